"""Probe games that ask about rewards: when they are paid, what for, and what an end is.

Shapes: E copies, A agents, O observation features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marl_stable.envs.probe.base import Probe


class Match(Probe):
    """One step: a point for the action on the side of the sign seen. Fails where actors do not see."""

    best_return = 1.0

    @staticmethod
    def value(gamma: float) -> float:
        """One point, at once."""
        return 1.0

    def _begin(self) -> Tensor:
        return self._uniform().sign()

    def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
        return (action == (self.obs.squeeze(-1) > 0)).float(), self._constant(0.0)


class Recall(Match):
    """Two steps: the point for the first action is paid after the second. Fails where credit does not go back."""

    length = 2

    @staticmethod
    def value(gamma: float) -> float:
        """One point, a step later."""
        return gamma

    def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
        right, _ = super()._play(action)
        if self.t == 0:
            return torch.zeros_like(right), 2 + right.unsqueeze(-1)
        return self.obs.squeeze(-1) - 2, self._constant(0.0)


class Endless(Probe):
    """A point per step for ever, seen five steps at a time. Fails where a time limit is taken for an end."""

    length, cut_off, best_return = 5, True, 5.0

    @staticmethod
    def value(gamma: float) -> float:
        """The geometric series."""
        return 1 / (1 - gamma)

    def _begin(self) -> Tensor:
        return self._constant(1.0)

    def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(self.obs.squeeze(-1)), self._constant(1.0)


class Ending(Endless):
    """A point per step, and a true end after five, of which the clock is seen. Fails where an end is bootstrapped."""

    cut_off = False

    @staticmethod
    def value(gamma: float) -> float:
        """Five terms of the geometric series."""
        return sum(gamma**t for t in range(5))

    def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(self.obs.squeeze(-1)), self.obs - 0.4


class Silence(Match):
    """Never any reward. Fails where nothing is divided by nothing."""

    best_return = 0.0

    @staticmethod
    def value(gamma: float) -> float:
        """Nothing."""
        return 0.0

    def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(self.obs.squeeze(-1)), self._constant(0.0)
