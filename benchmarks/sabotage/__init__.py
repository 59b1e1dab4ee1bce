"""Faults planted in a learner under way, which nothing tells the monitor of: what diagnosis is measured against.

    fault = SABOTAGE["killed_units"]
    with sabotaged("killed_units", dose=0.9, onset=100_000):
        run = ms.train(algo="matd3", env="particle/simple_spread_v3", **fault.flags)

A fault changes weights once, or replaces a method of the learner by one that is wrong. Checkpoints know nothing of the
latter, so that a run with a fault must not be resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from benchmarks.faults import set_clock
from benchmarks.sabotage.learning import (
    entropy_coefficient,
    log_prob_mismatch,
    moved_observations,
    no_exploration,
    stale_replay,
    targets_are_current,
    targets_stand_still,
    value_normaliser,
)
from benchmarks.sabotage.networks import (
    as_configured,
    batchnorm_mode,
    identical_agents,
    killed_units,
    large_final_layer,
    large_recurrent_weights,
    large_weights,
)
from benchmarks.sabotage.optimisers import frozen_parameters, gradient_spike, learning_rate
from benchmarks.sabotage.reach import ALL, BOTH, OFF_POLICY, ON_POLICY, family
from marl_stable.conversion import unknown
from marl_stable.training import Training
from marl_stable.types import UsageError


class Sabotage(NamedTuple):
    """A fault of a learner: `apply(training, dose)` plants it, once."""

    cause: str  # what it should be diagnosed as
    families: tuple[str, ...]  # of algorithms: see `reach.family`
    apply: Callable[[Training, float], None]
    doses: tuple[float, ...]  # from nearly harmless to severe
    flags: Mapping[str, Any] = {}  # that the training needs for it
    late: bool = True  # whether it can begin in mid-run

    @property
    def dose(self) -> float:
        """The usual one."""
        return self.doses[len(self.doses) // 2]


@contextmanager
def sabotaged(name: str, dose: float | None = None, onset: int = 0) -> Iterator[None]:
    """Within, every training gets the fault `name` at the first iteration boundary at or after `onset` steps.

    Raises UsageError for an unknown one, and when it is to be planted in an algorithm that cannot have it.
    """
    if name not in SABOTAGE:
        raise unknown("sabotage", name, SABOTAGE, f"Known: {', '.join(SABOTAGE)}.")
    fault = SABOTAGE[name]
    planted: list[Training] = []

    def plant(training: Training) -> None:
        if training.steps < onset or any(training is other for other in planted):
            return
        planted.append(training)
        if family(training) not in fault.families:
            raise UsageError(f"the fault {name} is one of {', '.join(fault.families)}, not of {family(training)}.")
        fault.apply(training, fault.dose if dose is None else dose)

    with at_boundaries(plant):
        yield


@contextmanager
def at_boundaries(call: Callable[[Training], None]) -> Iterator[None]:
    """Within, `call(training)` when a training is made and after each of its iterations."""
    made, advance = Training.__post_init__, Training.advance

    def begun(self: Training) -> None:
        made(self)
        call(self)

    def advanced(self: Training, seconds: float) -> None:
        advance(self, seconds)
        call(self)

    Training.__post_init__, Training.advance = begun, advanced  # type: ignore[method-assign]
    try:
        yield
    finally:
        Training.__post_init__, Training.advance = made, advance  # type: ignore[method-assign]


def keep_clocks_together(training: Training) -> None:
    """For `at_boundaries`: evaluations have the faults of `benchmarks.faults` that training has by then."""
    set_clock(training.eval_env, training.steps // training.envs.num_envs)


DEEP = {
    "algo__network__hidden": (64,) * 12,
    "algo__network__norm": "none",
    "algo__network__block": "plain",
    "algo__network__activation": "tanh",
}
POOR = {"algo__network__norm": "none", "algo__network__activation": "relu", "algo__network__final_init": "none"}

SABOTAGE: dict[str, Sabotage] = {
    "learning_rate_high": Sabotage("learning_rate_too_high", ALL, learning_rate(BOTH), (10, 30, 100)),
    "actor_learning_rate_high": Sabotage("learning_rate_too_high", ALL, learning_rate(("actor",)), (10, 30, 100)),
    "critic_learning_rate_high": Sabotage("learning_rate_too_high", ALL, learning_rate(("critic",)), (10, 30, 100)),
    "learning_rate_low": Sabotage("learning_rate_too_low", ALL, learning_rate(BOTH), (1e-2, 1e-3, 1e-4)),
    "actor_learning_rate_low": Sabotage("learning_rate_too_low", ALL, learning_rate(("actor",)), (1e-2, 1e-3, 1e-4)),
    "gradient_spike": Sabotage("exploding_gradients", ALL, gradient_spike(BOTH), (1e2, 1e6, 1e10)),
    "actor_gradient_spike": Sabotage("exploding_gradients", ALL, gradient_spike(("actor",)), (1e2, 1e6, 1e10)),
    "frozen_parameters": Sabotage("untrained_parameters", ALL, frozen_parameters, (1, 2, 9)),
    "targets_stand_still": Sabotage("untrained_parameters", OFF_POLICY, targets_stand_still, (1,)),
    "targets_are_current": Sabotage("critic_divergence", OFF_POLICY, targets_are_current, (1,)),
    "value_normaliser": Sabotage("value_normalisation", ON_POLICY, value_normaliser, (0.3, 1, 3)),
    "log_prob_mismatch": Sabotage("ratio_explosion", ON_POLICY, log_prob_mismatch, (0.1, 0.5, 2)),
    "moved_observations": Sabotage("ratio_explosion", ON_POLICY, moved_observations, (0.3, 1, 3)),
    "entropy_coefficient_high": Sabotage("entropy_explosion", ON_POLICY, entropy_coefficient, (0.1, 1, 10)),
    "entropy_coefficient_negative": Sabotage("entropy_collapse", ON_POLICY, entropy_coefficient, (-0.1, -1, -10)),
    "no_exploration": Sabotage("too_little_exploration", OFF_POLICY, no_exploration, (1,)),
    "large_final_layer": Sabotage("activation_growth", ALL, large_final_layer, (30, 1e3, 1e5)),
    "large_weights": Sabotage("activation_growth", ALL, large_weights, (3, 10, 30), POOR),
    "killed_units": Sabotage("dormant_units", ALL, killed_units, (0.3, 0.9, 0.98)),
    "identical_agents": Sabotage("identical_policies", ALL, identical_agents, (1,)),
    "stale_replay": Sabotage("stale_replay", OFF_POLICY, stale_replay, (1,)),
    "batchnorm_mode": Sabotage("batchnorm_mismatch", ALL, batchnorm_mode, (1,), {"algo__network__norm": "batch"}),
    "large_recurrent_weights": Sabotage(
        "recurrent_gradients", ON_POLICY, large_recurrent_weights, (2, 5, 15), {"algo__network__recurrent": "gru"}
    ),
    "deep_network": Sabotage("vanishing_gradients", ALL, as_configured, (1,), DEEP, late=False),
}
