"""What training asks of an environment: many copies at once, agents in groups, tensors in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from marl_stable.types import EnvSpec, PerGroup, Step

if TYPE_CHECKING:
    import torch


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
