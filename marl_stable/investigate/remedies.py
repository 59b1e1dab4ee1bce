"""What an experiment tries against a run that went wrong: the remedies of its diagnosis, and the usual ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from marl_stable.agents.config import ActorCriticConfig
from marl_stable.config import RunConfig
from marl_stable.configs import nested
from marl_stable.conversion import leaves, override
from marl_stable.types import UsageError

SMALLER = 0.1  # of the step size
PENALTY, MORE = 1e-2, 10.0
CLIP = 0.5
FINAL_INIT = 3e-3
FIRST = 4  # findings whose remedies are tried
LARGE = 1.0  # deviation of rewards between too small and too large
RATES = ("algo.lr", "algo.actor_lr", "algo.critic_lr")
CONTINUABLE = (
    *RATES,
    *("algo.max_grad_norm", "algo.lr_schedule", "algo.action_penalty", "algo.weight_decay", "algo.l1"),
    *("algo.adam_betas", "algo.adam_eps", "algo.entropy_coef", "algo.clip_coef", "algo.clip_value", "algo.target_kl"),
    *("algo.gae_lambda", "algo.update_epochs", "algo.tau", "algo.huber", "algo.exploration_noise", "algo.final_noise"),
)
"""Settings that may change while networks, optimisers, statistics and batches stay as they are."""


class Remedy(NamedTuple):
    """One change against a cause; `name` in words, `config` as dotted keys."""

    cause: str
    name: str
    config: dict[str, Any]
    shrinks: bool = False  # the last layer of actors too, where their saturated networks are gone on with


def remedies(findings: Sequence[Mapping[str, Any]], config: RunConfig, reward_std: float | None) -> list[Remedy]:
    """What to try, without repetition: first what the first `findings` propose, then the usual.

    `reward_std`: the deviation of rewards in random play, where known.
    """
    proposed = [
        Remedy(finding["cause"], "as diagnosed", dict(finding["config"])) for finding in findings if finding["config"]
    ]
    tried: list[Remedy] = []
    for remedy in (*proposed[:FIRST], *usual(config, reward_std)):
        changed = _changed(remedy, config)
        if changed.config and all(changed.config != other.config for other in tried) and _fits(changed, config):
            tried.append(changed)
    return tried


def usual(config: RunConfig, reward_std: float | None) -> Iterable[Remedy]:
    """Smaller steps, clipping, normalisation and unsaturated actions, as far as `config` is without them."""
    algo = config.algo
    assert isinstance(algo, ActorCriticConfig)
    rates = {key: float(f"{rate * SMALLER:.3g}") for key, rate in leaves(config) if key in RATES and rate is not None}
    yield Remedy("learning_rate_too_high", "smaller steps", rates)
    if algo.max_grad_norm is None:
        yield Remedy("exploding_gradients", "gradient clipping", {"algo.max_grad_norm": CLIP})
    yield Remedy("observation_scale", "normalised observations", {"algo.normalize_obs": True})
    scale = "reward_scale_too_large" if reward_std is None or reward_std > LARGE else "reward_scale_too_small"
    if not (algo.normalize_reward or algo.normalize_value):
        yield Remedy(scale, "normalised rewards", {"algo.normalize_reward": True})
    penalty = {"algo.action_penalty": MORE * algo.action_penalty or PENALTY}
    yield Remedy("actor_saturation", "actions off their bounds", penalty | _small_start(algo), shrinks=True)


def _small_start(algo: ActorCriticConfig) -> dict[str, Any]:
    return {"algo.network.final_init": FINAL_INIT} if algo.network.final_init is None else {}


def _changed(remedy: Remedy, config: RunConfig) -> Remedy:
    """Without what `config` has already, or does not know."""
    known = dict(leaves(config))
    wanted = {key: value for key, value in remedy.config.items() if key in known and known[key] != value}
    return remedy._replace(config=wanted)


def applied(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """`config` with dotted keys changed. Raises UsageError where they do not fit."""
    return override(config, nested({key.replace(".", "__"): value for key, value in changes.items()}))


def _fits(remedy: Remedy, config: RunConfig) -> bool:
    try:
        applied(config, remedy.config)
    except UsageError:
        return False
    return True


def continuable(remedy: Remedy, config: RunConfig) -> bool:
    """Whether `remedy` can begin in the midst of a run of `config`.

    Everything that gives weights another meaning or networks another shape cannot; nor can a limit of gradients that
    follows norms which nobody has kept.
    """
    keys = set(remedy.config) - ({"algo.network.final_init"} if remedy.shrinks else set())
    follows = remedy.config.get("algo.max_grad_norm") == "adaptive"
    return bool(keys or remedy.shrinks) and keys <= set(CONTINUABLE) and not follows
