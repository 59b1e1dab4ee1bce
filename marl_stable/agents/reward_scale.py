"""In which units a critic of actions sees rewards: deviations from their mean, and what an end is worth in them.

Rewards are clipped, since one that is corrupt would else move the critic for long. A rare reward must not be: where
goals of 1 and of 10 are met once in 500 steps, both lie beyond ten deviations, and clipped there they are the same to
the agent. What tells them apart is that an outlier is rarer still, or farther than any task pays: what comes oftener
than once in 10,000 steps, within a thousand deviations, is the task, and the clip gives way to it.

Shapes: B rows of a batch, A agents.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marl_stable import distributed
from marl_stable.normalize import WINSOR, RunningNorm

REWARD_CLIP = 10.0  # deviations, at first
FARTHEST = 1e3  # deviations; beyond them a reward is an outlier, however often it comes
OFTEN, FEW = 1e-4, 5  # share of rewards beyond the clip from which on it gives way, and how many are no chance
TINY = 1e-12
FARTHEST_END = 1e3  # units of reward; an end worth more drowns all else, so rewards are then not centred


class RewardScale(RunningNorm):
    """From raw rewards to normalised ones, and back; `active` false leaves them raw."""

    ends: Tensor
    reach: Tensor  # (A,) deviations at which rewards are clipped; changes in place
    beyond: Tensor  # (A,) rewards between it and the farthest, since it changed, of those that were counted
    counted: Tensor

    def __init__(self, agents: int, gamma: float, active: bool) -> None:
        super().__init__((agents,), REWARD_CLIP)
        self.gamma, self.active = gamma, active
        self.register_buffer("ends", torch.zeros(agents, dtype=torch.bool))
        self.register_buffer("reach", torch.full((agents,), REWARD_CLIP))
        self.register_buffer("beyond", torch.zeros(agents, dtype=torch.float64))
        self.register_buffer("counted", torch.zeros(agents, dtype=torch.float64))

    def take_in(self, reward: Tensor, terminated: Tensor, alive: Tensor, settled: bool) -> None:
        """Let `(N, A)` rewards of living agents into the statistics, and remember whose episodes ever `terminated`."""
        if self.active:
            self._give_way(reward, alive)
            self.winsor = torch.where(self.reach > REWARD_CLIP, FARTHEST, WINSOR)
            self.update(reward, alive, settled)
        self.ends |= distributed.total((terminated & alive).sum(0)) > 0

    def normalized(self, reward: Tensor) -> Tensor:
        """`(B, A)` rewards in deviations from their mean; from 0, by their rms, where an end would be too far away."""
        if not self.active:
            return reward
        return torch.clamp(self._deviations(reward), -self.reach, self.reach)

    def _deviations(self, reward: Tensor) -> Tensor:
        return (reward - self._centre()) / self.unit()

    def _give_way(self, reward: Tensor, alive: Tensor) -> None:
        """Double the clip where too many rewards lie beyond it to be outliers; count them."""
        size, known = self._deviations(reward).abs(), self.count > 0
        far = (size > self.reach) & (size <= FARTHEST) & alive & known
        found = distributed.total(torch.stack([far.sum(0), (alive & known).sum(0)]).to(torch.float64))
        beyond, counted = self.beyond + found[0], self.counted + found[1]
        often = (beyond >= FEW) & (beyond > OFTEN * counted)
        self.count = torch.where(often & (self.reach <= REWARD_CLIP), 0.0, self.count)  # measured without them
        self.reach.copy_(torch.where(often, 2 * self.reach, self.reach))
        self.beyond, self.counted = (torch.where(often, 0.0, count) for count in (beyond, counted))

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
