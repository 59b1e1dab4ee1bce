"""An environment with faults of known cause, for benchmarks of stability and diagnosis.

    marl-stable train --env benchmarks.faults:distorted \\
        --env.kwargs '{"env": "particle/simple_spread_v3", "faults": [{"kind": "reward_scale", "dose": 1e-4}]}'

`"score": true` beside them leaves out the faults of the reward: so `eval` measures the true return of what was learned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from benchmarks.faults import actions, episodes, observations, rewards
from benchmarks.faults.distortion import Clean, Distortion, measured_at_random
from marl_stable.config import EnvConfig
from marl_stable.conversion import require, unknown
from marl_stable.envs import catalog
from marl_stable.envs.base import BatchedEnv
from marl_stable.types import UsageError

KINDS = rewards.KINDS | observations.KINDS | actions.KINDS | episodes.KINDS
MEASURED_STEPS = 100  # of random play, where a fault is as large as what it distorts


def distorted(
    num_envs: int,
    device: torch.device,
    env: str,
    env_kwargs: Mapping[str, Any] | None = None,
    faults: Sequence[Mapping[str, Any]] = (),
    score: bool = False,
    began_at: int = 0,
) -> BatchedEnv:
    """`num_envs` copies of `env` with `faults`, each {"kind": ..., "dose": x, "from": step of a copy, ...}, in order.

    `score` leaves out those of the reward alone. `began_at`: steps of a copy that count as played already, so that what
    begins late has begun. Raises UsageError for an unknown kind or option, and as `marl_stable.envs.catalog.make` does.
    """
    kinds = [_kind(fault) for fault in faults]
    kept = [fault for fault, kind in zip(faults, kinds, strict=True) if not (score and kind.REWARD)]
    base = EnvConfig(id=env, kwargs=dict(env_kwargs or {}))
    made = _stack(base, kept, num_envs, torch.device(device))
    set_clock(made, began_at)
    return made


def set_clock(env: BatchedEnv, steps: int) -> None:
    """Let the next `reset` begin at step `steps` of every copy; evaluation then has the faults that training has."""
    layer: Any = env
    while layer is not None:
        if isinstance(layer, Distortion):
            layer.began_at = steps
        layer = getattr(layer, "env", None)


def _stack(base: EnvConfig, faults: Sequence[Mapping[str, Any]], copies: int, device: torch.device) -> BatchedEnv:
    env = catalog.make(base, device, copies)
    for place, fault in enumerate(faults):

        def measure(below: Sequence[Mapping[str, Any]] = faults[:place]) -> Clean:
            usual = catalog.resolve_num_envs(base)  # not the run's: training and evaluation have the same fault
            twin = _stack(base, below, usual, device)
            found = measured_at_random(twin, MEASURED_STEPS)
            twin.close()
            return found

        env = _kind(fault)(env, fault, measure)
    return env


def _kind(fault: Mapping[str, Any]) -> type[Distortion]:
    if not isinstance(fault, Mapping) or "kind" not in fault:
        raise UsageError(f'env.kwargs faults holds {fault!r}; each fault must be {{"kind": ..., "dose": ...}}.')
    if fault["kind"] not in KINDS:
        raise unknown("kind of fault", str(fault["kind"]), KINDS, f"Known: {', '.join(KINDS)}.")
    onset = fault.get("from", 0)
    require(isinstance(onset, int) and onset >= 0, f"from of {fault['kind']}", onset, "0 or a step of a copy")
    return KINDS[fault["kind"]]
