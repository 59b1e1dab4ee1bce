"""Probe games that ask about acting: who one is, how far to go, what was seen, what is allowed, whose turn it is.

Shapes: E copies, A agents, O observation features, D action features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from marl_stable.envs.probe.base import Probe
from marl_stable.types import Box, Discrete, PerGroup


class Roles(Probe):
    """Two agents who see nothing: all is well where the first says 0 and the second 1, half where they swap.

    Fails where agents who share a network are not told apart.
    """

    agents, best_return = 2, 1.0
    PAY = ((0.0, 1.0), (0.5, 0.0))  # by the first's action, then the second's

    @staticmethod
    def value(gamma: float) -> float:
        """One point, at once."""
        return 1.0

    def _begin(self) -> Tensor:
        return self._constant(0.0)

    def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
        pay = torch.tensor(self.PAY, device=self.device)[action[:, 0], action[:, 1]]
        return pay.unsqueeze(1).expand(-1, 2).contiguous(), self._constant(0.0)


class Aim(Probe):
    """One step: minus the squared distance, in ranges, of a continuous action to where the observations point.

    Two agents, and two dimensions of very different range, neither around 0. Fails where actions are scaled wrongly.
    """

    agents, obs_size, best_return = 2, 2, 0.0
    action: Box = Box((-3.0, 0.0), (1.0, 0.01))

    @staticmethod
    def value(gamma: float) -> float:
        """Nothing is lost."""
        return 0.0

    def _begin(self) -> Tensor:
        return self._uniform()

    def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
        low, high = torch.tensor(self.action.low), torch.tensor(self.action.high)
        place = (action - low.to(self.device)) / (high - low).to(self.device)  # (E, A, D) in [0, 1]
        return -(place - (0.5 + 0.4 * self.obs)).square().sum(-1), self._constant(0.0)


class Remember(Probe):
    """A sign is seen at the first of four steps alone, and a point paid for the action on its side at the last.

    Two agents, each with a sign of its own. Fails where nothing is remembered: half a point is then the best.
    """

    agents, length, best_return, best_forgetful_return = 2, 4, 1.0, 0.5

    @staticmethod
    def value(gamma: float) -> float:
        """One point, three steps later."""
        return gamma**3

    def _begin(self) -> Tensor:
        self.sign = self._uniform().sign()
        return self.sign

    def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
        right = (action == (self.sign.squeeze(-1) > 0)).float()
        return right if self.t == self.length - 1 else torch.zeros_like(right), self._constant(0.0)

    def state_dict(self) -> dict[str, Any]:
        """The same, and the signs that are no longer seen."""
        return super().state_dict() | {"sign": self.sign.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> PerGroup:
        """Go on where `state_dict` was taken."""
        self.sign = state["sign"].to(self.device, copy=True)
        return super().load_state_dict(state)


class Allowed(Probe):
    """One step: a point for the last of the actions that are allowed. Fails where masks are not obeyed, or not seen."""

    action, obs_size, masked, best_return = Discrete(4), 5, True, 1.0

    @staticmethod
    def value(gamma: float) -> float:
        """One point, at once."""
        return 1.0

    def _begin(self) -> Tensor:
        legal = self._uniform()[..., 1:] > 0
        legal[..., 0] |= ~legal.any(-1)
        return torch.cat([self._constant(0.0)[..., :1], legal.float()], dim=-1)

    def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
        legal = self.obs[..., 1:]
        last = (legal * torch.arange(1, 5, device=self.device)).argmax(-1)
        allowed = legal.gather(-1, action.unsqueeze(-1)).squeeze(-1)
        return (action == last).float() + allowed - 1, self._constant(0.0)


class Relay(Probe):
    """Two agents move by turns, twice each: a point for the side of the sign seen, paid in the other's turn.

    They see the sign, what is owed to them, and the clock. Fails where a turn does not get what is paid after it.
    """

    agents, obs_size, length, turn_based, best_return = 2, 3, 4, True, 2.0

    @staticmethod
    def value(gamma: float) -> float:
        """Two points, a turn of one's own apart."""
        return 1 + gamma

    def _begin(self) -> Tensor:
        return self._seen(self._constant(0.0)[..., 1], 0)

    def _seen(self, owed: Tensor, t: int) -> Tensor:
        sign = self._uniform()[:, :1, 0].sign().expand_as(owed)
        return torch.stack([sign, owed, torch.full_like(owed, t / self.length)], dim=-1)

    def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
        right = ((action == (self.obs[..., 0] > 0)) & self._moving()).float()
        paid = self.obs[..., 1]
        if self.t + 1 == self.length:
            return paid + right, self._constant(0.0)
        return paid, self._seen(right, self.t + 1)
