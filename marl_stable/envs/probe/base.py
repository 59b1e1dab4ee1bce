"""What all probe games are: copies on the device, at the same step, of a game with a known answer.

`value` is what a correct critic says of a first observation under best play, `best_return` what best play is paid.
Shapes: E copies, A agents, O observation features, D action features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from marl_stable.generators import go_on
from marl_stable.types import ActionSpec, Discrete, EnvSpec, Group, PerGroup, Step


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
        self.spec = EnvSpec(f"{__package__}:{type(self).__name__}", names, (group,), self.turn_based)
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
        go_on(self.generator, state["generator"])
        return {"agent": self.obs}

    def close(self) -> None:
        """Nothing to release."""

    def _constant(self, value: float) -> Tensor:
        return torch.full((self.num_envs, self.agents, self.obs_size), value, device=self.device)

    def _uniform(self) -> Tensor:
        """`(E, A, O)` uniform in [-1, 1)."""
        return 2 * torch.rand(self.obs.shape, generator=self.generator, device=self.device) - 1
