"""In which units a critic of actions sees rewards: deviations from their mean, and what an end is worth in them.

Shapes: B rows of a batch, A agents.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marl_stable.agents.group_learner import REWARD_CLIP
from marl_stable.normalize import RunningNorm

TINY = 1e-12
FARTHEST_END = 1e3  # units of reward; an end worth more drowns all else, so rewards are then not centred


class RewardScale:
    """From raw rewards to normalised ones, and back; `active` false leaves them raw. The statistics are in `norm`."""

    def __init__(self, norm: RunningNorm, gamma: float, active: bool) -> None:
        self.norm, self.gamma, self.active = norm, gamma, active

    def normalized(self, reward: Tensor) -> Tensor:
        """`(B, A)` rewards in deviations from their mean, or from 0 where an end would then be too far away."""
        if not self.active:
            return reward
        norm = self.norm
        return torch.where(self._centred(), norm(reward), (reward / norm.divisor).clamp(-REWARD_CLIP, REWARD_CLIP))

    def _centred(self) -> Tensor:
        return self._end().abs() < FARTHEST_END

    def _end(self) -> Tensor:
        return -self.norm.offset / self.norm.divisor / max(1 - self.gamma, TINY)

    def terminal_value(self) -> Tensor:
        """`(A,)` what lies beyond an end, rewards of 0 for ever, in units of the normalised reward."""
        if not self.active:
            return torch.zeros_like(self.norm.offset)
        return torch.where(self._centred(), self._end(), 0.0)

    def unit(self) -> Tensor:
        """`(A,)` what a normalised reward of 1, or a value of 1, is in raw reward."""
        return self.norm.divisor if self.active else torch.ones_like(self.norm.divisor)

    def raw_reward(self, reward: Tensor) -> Tensor:
        """Normalised rewards `(..., A)` in raw units."""
        return reward * self.unit() + self._centre()

    def raw_value(self, value: Tensor) -> Tensor:
        """Values `(..., A)`, sums of normalised rewards, in raw units."""
        return value * self.unit() + self._centre() / max(1 - self.gamma, TINY)

    def _centre(self) -> Tensor:
        centred = self._centred() if self.active else torch.zeros_like(self._centred())
        return torch.where(centred, self.norm.offset, 0.0)
