"""Tiny games with a known answer, batched on the device: what fails on one of them is broken, and its rule says where.

`value` is what a correct critic says of a first observation under best play, `best_return` what best play is paid.
Shapes: E copies, A agents, O observation features, D action features. All copies are at the same step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from marl_stable.types import ActionSpec, Box, Discrete, EnvSpec, Group, PerGroup, Step


class Probe(ABC):
    """Copies of a game of `length` steps with one group of agents, mostly ones whose whole state is what they see."""

    action: ActionSpec = Discrete(2)
    agents, obs_size, length = 1, 1, 1
    cut_off = False  # the end is a time limit, beyond which the game would go on
    masked = turn_based = False
    best_return: float

    def __init__(self, num_envs: int, device: torch.device) -> None:
        names = tuple(f"agent_{i}" for i in range(self.agents))
        group = Group("agent", names, self.obs_size, self.action, "team", self.masked)
        self.spec = EnvSpec(f"{__name__}:{type(self).__name__}", names, (group,), self.turn_based)
        self.num_envs, self.device = num_envs, device
        self.replay_differs: tuple[int, ...] = ()
        self.generator = torch.Generator(device)
        self.t = 0
        self.obs = torch.zeros(num_envs, self.agents, self.obs_size, device=device)

    @staticmethod
    @abstractmethod
    def value(gamma: float) -> float:
        """The value of a first observation under best play."""

    @abstractmethod
    def _begin(self) -> Tensor:
        """First observations `(E, A, O)`."""

    @abstractmethod
    def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
        """What actions `(E, A)` or `(E, A, D)` lead to: reward `(E, A)` and observations `(E, A, O)`."""

    def reset(self, seed: int) -> PerGroup:
        """Begin the first episode of every copy."""
        self.generator.manual_seed(seed)
        self.t, self.obs = 0, self._begin()
        return {"agent": self.obs}

    def step(self, action: PerGroup) -> Step:
        """Advance every copy; all their episodes end together."""
        reward, next_obs = self._play(action["agent"])
        over, alive = self.t + 1 == self.length, self._moving()
        self.t, self.obs = (0, self._begin()) if over else (self.t + 1, next_obs)
        led_to = {"agent": next_obs}
        return Step(
            obs={"agent": self.obs} if over else led_to,
            next_obs=led_to,
            reward={"agent": reward},
            terminated={"agent": torch.full_like(reward, over and not self.cut_off, dtype=torch.bool)},
            truncated={"agent": torch.full_like(reward, over and self.cut_off, dtype=torch.bool)},
            alive={"agent": alive.expand(self.num_envs, -1)},
            done=torch.full((self.num_envs,), over, device=self.device),
        )

    def _moving(self) -> Tensor:
        """`(A,)` whether each agent acts in this step: all at once, or in turns."""
        order = torch.arange(self.agents, device=self.device)
        return order == self.t % self.agents if self.turn_based else order >= 0

    def state_dict(self) -> dict[str, Any]:
        """Observations, step of the episode and generator."""
        return {"obs": self.obs.clone(), "t": self.t, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> PerGroup:
        """Go on where `state_dict` was taken."""
        self.obs, self.t = state["obs"].to(self.device, copy=True), state["t"]
        self.generator.set_state(state["generator"].cpu())
        return {"agent": self.obs}

    def close(self) -> None:
        """Nothing to release."""

    def _constant(self, value: float) -> Tensor:
        return torch.full((self.num_envs, self.agents, self.obs_size), value, device=self.device)

    def _uniform(self) -> Tensor:
        """`(E, A, O)` uniform in [-1, 1)."""
        return 2 * torch.rand(self.obs.shape, generator=self.generator, device=self.device) - 1


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


class Silence(Match):
    """Never any reward. Fails where nothing is divided by nothing."""

    best_return = 0.0

    @staticmethod
    def value(gamma: float) -> float:
        """Nothing."""
        return 0.0

    def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(self.obs.squeeze(-1)), self._constant(0.0)


GAMES: dict[str, type[Probe]] = {
    game.__name__: game for game in (Match, Recall, Endless, Ending, Roles, Aim, Remember, Allowed, Relay, Silence)
}
