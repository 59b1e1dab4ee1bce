"""In which units a critic of actions sees rewards: deviations from their mean, and what an end is worth in them.

Shapes: B rows of a batch, A agents.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marl_stable import distributed
from marl_stable.normalize import RunningNorm

REWARD_CLIP = 10.0  # deviations
TINY = 1e-12
FARTHEST_END = 1e3  # units of reward; an end worth more drowns all else, so rewards are then not centred


class RewardScale(RunningNorm):
    """From raw rewards to normalised ones, and back; `active` false leaves them raw."""

    ends: Tensor

    def __init__(self, agents: int, gamma: float, active: bool) -> None:
        super().__init__((agents,), REWARD_CLIP)
        self.gamma, self.active = gamma, active
        self.register_buffer("ends", torch.zeros(agents, dtype=torch.bool))

    def take_in(self, reward: Tensor, terminated: Tensor, alive: Tensor, settled: bool) -> None:
        """Let `(N, A)` rewards of living agents into the statistics, and remember whose episodes ever `terminated`."""
        if self.active:
            self.update(reward, alive, settled)
        self.ends |= distributed.total((terminated & alive).sum(0)) > 0

    def normalized(self, reward: Tensor) -> Tensor:
        """`(B, A)` rewards in deviations from their mean; from 0, by their rms, where an end would be too far away."""
        if not self.active:
            return reward
        return ((reward - self._centre()) / self.unit()).clamp(-self.clip, self.clip)

    def _centred(self) -> Tensor:
        """`(A,)` where nothing ends, all rewards may be moved alike: no policy gains by it."""
        near = self._end().abs() < FARTHEST_END
        return near | ~self.ends if self.gamma < 1 else near

    def _end(self) -> Tensor:
        return -self.offset / self.divisor / max(1 - self.gamma, TINY)

    def terminal_value(self) -> Tensor:
        """`(A,)` what lies beyond an end, rewards of 0 for ever, in units of the normalised reward."""
        if not self.active:
            return torch.zeros_like(self.offset)
        return torch.where(self._centred(), self._end(), 0.0)

    def unit(self) -> Tensor:
        """`(A,)` what a normalised reward of 1, or a value of 1, is in raw reward."""
        if not self.active:
            return torch.ones_like(self.divisor)
        return torch.where(self._centred(), self.divisor, torch.hypot(self.divisor, self.offset))

    def raw_reward(self, reward: Tensor) -> Tensor:
        """Normalised rewards `(..., A)` in raw units."""
        return reward * self.unit() + self._centre()

    def raw_value(self, value: Tensor) -> Tensor:
        """Values `(..., A)`, sums of normalised rewards, in raw units."""
        return value * self.unit() + self._centre() / max(1 - self.gamma, TINY)

    def _centre(self) -> Tensor:
        centred = self._centred() if self.active else torch.zeros_like(self._centred())
        return torch.where(centred, self.offset, 0.0)
