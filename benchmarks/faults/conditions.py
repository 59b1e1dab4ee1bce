"""Which fault of an environment is to be diagnosed as what, and how large it has to be to do harm.

`NONE` stands for conditions that are hard and no fault: a framework is to learn there, and any finding is a false one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

NONE = "none"


class EnvFault(NamedTuple):
    """Faults of an environment with one cause; the first of `faults` takes the dose."""

    cause: str
    faults: tuple[Mapping[str, Any], ...]
    doses: tuple[float, ...] = (1.0,)  # from nearly harmless to severe
    late: bool = True  # whether it can begin in mid-run
    box: bool = False  # whether it needs continuous actions
    env_kwargs: Mapping[str, Any] = {}  # of the environment below
    flags: Mapping[str, Any] = {}  # of the training

    def kwargs(
        self, env: str, env_kwargs: Mapping[str, Any] | None = None, dose: float | None = None, onset: int = 0
    ) -> dict[str, Any]:
        """The `env.kwargs` of `benchmarks.faults:distorted` on `env`, from step `onset` of every copy on."""
        faults = [dict(fault) | ({"from": onset} if onset else {}) for fault in self.faults]
        if faults and dose is not None:
            faults[0]["dose"] = dose
        return {"env": env, "env_kwargs": dict(env_kwargs or {}) | dict(self.env_kwargs), "faults": faults}


def _one(cause: str, kind: str, *doses: float, late: bool = True, box: bool = False, **options: Any) -> EnvFault:
    """A single fault; the middle dose is its usual one."""
    return EnvFault(cause, ({"kind": kind, "dose": doses[len(doses) // 2], **options},), doses, late, box)


FAULTS: dict[str, EnvFault] = {
    # what the table of stress conditions has, in its order
    "clean": EnvFault(NONE, (), ()),
    "reward_tiny": _one("reward_scale_too_small", "reward_scale", 1e-2, 1e-4, 1e-6),
    "reward_huge": _one("reward_scale_too_large", "reward_scale", 1e2, 1e4, 1e6),
    "reward_offset": _one("reward_offset", "reward_offset", 1e2, 1e3, 1e4, late=False),
    "reward_spike": _one("reward_outliers", "reward_spike", 1e4, 1e6, 1e8),
    "reward_noise": _one(NONE, "reward_noise", 1.5, 5.0, 15.0),
    "reward_delay": _one(NONE, "reward_delay", 1.0, late=False),
    "reward_sparse": _one(NONE, "reward_sparse", 1.0, late=False),
    "reward_flip": _one("reward_shift", "reward_flip", 0.3, 1.0, 3.0),
    "obs_scale": _one("observation_scale", "obs_scale", 1e3, 1e5, 1e7),
    "obs_constant": _one(NONE, "obs_constant", 7, 20, 60, late=False),
    "obs_noise": _one(NONE, "obs_noise", 70, 200, 600, late=False),
    "obs_nan": _one("observation_non_finite", "obs_nan", 1e-5, 1e-4, 1e-3),
    "reward_inf": _one("reward_non_finite", "reward_inf", 1e-6, 1e-5, 1e-4),
    "obs_nan_sensor": _one("observation_non_finite", "obs_nan_sensor", 1, 2, 3),
    "obs_drift": _one(NONE, "obs_drift", 0.3, 1.0, 3.0),
    "action_range": _one(NONE, "action_range", 1e-1, 1e-2, 1e-3, late=False, box=True),
    "long_horizon": EnvFault(NONE, (), (), late=False, env_kwargs={"max_cycles": 1_000}, flags={"algo__gamma": 0.999}),
    "dying_agents": _one(NONE, "dying_agents", 0.007, 0.02, 0.06),
    # tasks that look like faults
    "constant_action_optimal": _one("constant_action_is_optimal", "constant_action_optimal", 1.0),
    "bang_bang_optimal": _one(NONE, "bang_bang_optimal", 1.0, late=False, box=True),
    # further causes that lie in an environment
    "reward_shift": _one("reward_shift", "reward_offset", 3.0, 10.0, 30.0),
    "reward_zero": _one("no_reward_signal", "reward_zero", 1.0),
    "reward_nan": _one("reward_non_finite", "reward_nan", 1e-6, 1e-5, 1e-4),
    "reward_from_chance": _one("reward_uncontrollable", "reward_from_chance", 1.0),
    "obs_frozen": _one("observation_constant", "obs_frozen", 1, 4, 10),
    "action_clipped": _one("action_range_mismatch", "action_clipped", 3.0, 10.0, 30.0, late=False, box=True),
    "action_dead": _one("action_has_no_effect", "action_dead", 1, 2, 4),
    "lazy_agent": _one("lazy_agent", "lazy_agent", 1.0),
    "time_limit_as_termination": _one("time_limit_as_termination", "time_limit_as_termination", 0.3, 1.0),
    "padded_agents": _one("masking_error", "padded_agents", 0.007, 0.02, 0.06),
    "twin_agents": _one("identical_policies", "twin_agents", 1.0),
}
