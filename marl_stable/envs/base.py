"""What training asks of an environment: many copies at once, agents in groups, tensors in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from marl_stable.types import EnvSpec, PerGroup, Step

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class BatchedEnv(Protocol):
    """E copies of one environment, stepped together; each copy begins a new episode by itself when one ends.

    Actions are a dict keyed by group: `(E, A)` int64 for a discrete group, `(E, A, D)` float32 in the units of the
    environment for a Box group. Everything that happens after `reset(seed)` follows from the seed and the actions.
    """

    spec: EnvSpec
    num_envs: int
    device: torch.device
    replay_differs: tuple[int, ...]
    """Copies whose running episode could not be repeated by the last `load_state_dict`; they began a new one."""

    def reset(self, seed: int) -> PerGroup:
        """Begin the first episode of every copy; the first observations, `(E, A, O)` per group."""

    def step(self, action: PerGroup) -> Step:
        """Advance every copy by one step."""

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly, of plain types and tensors."""

    def load_state_dict(self, state: dict[str, Any]) -> PerGroup:
        """Go on where `state_dict` was taken; the observations to act on next."""

    def close(self) -> None:
        """Release what the copies hold."""


class Mishap(NamedTuple):
    """One failure of a worker process or of an environment in it."""

    where: dict[str, Any]  # worker, and copy where one is at fault
    told: str  # one sentence
    failures: int  # so far, this one included
    limit: int
    fatal: bool  # beyond the limit; else what failed was started anew


def take_mishaps(env: BatchedEnv) -> list[Mishap]:
    """What failed in `env`, or in the environment that it wraps, since this was last asked.

    Only environments with workers have something to tell: an attribute `mishaps`, a list.
    """
    inner: Any = env
    while hasattr(inner, "env"):
        inner = inner.env
    found: list[Mishap] = getattr(inner, "mishaps", [])
    taken = list(found)
    found.clear()
    return taken


def lost(step: Step) -> Tensor:
    """`(E,)` the copies whose episode was given up because their environment failed: over, though nobody acted."""
    found = step.done
    for alive in step.alive.values():
        found = found & ~alive.any(dim=1)
    return found
