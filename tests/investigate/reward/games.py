"""Tiny games whose rewards come in terms, each with one thing to be found, batched and played in milliseconds.

Two agents push points on a line towards marks of their own. Shapes: E copies, A agents, K terms.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from marl_stable.envs.probe.base import Probe
from marl_stable.investigate.reward.arena import Arena
from marl_stable.types import Box, PerGroup, Step

CPU = torch.device("cpu")


class Line(Probe):
    """Two agents at `x` in [-1, 1] see their place and their mark; pushes move them. Sound as it stands."""

    agents, obs_size, length, cut_off, best_return = 2, 2, 20, True, 0.0
    action: Any = Box((-1.0,), (1.0,))
    names: tuple[str, ...] = ("near", "effort")
    PUSH = 0.2

    def __init__(self, num_envs: int, device: torch.device = CPU) -> None:
        super().__init__(num_envs, device)
        if self.names:
            self.spec = self.spec._replace(groups=(self.spec.groups[0]._replace(terms=self.names),))

    @staticmethod
    def value(gamma: float) -> float:
        return 0.0

    def _begin(self) -> Tensor:
        return self._uniform()

    def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
        before = self.obs
        place = (before[..., 0] + self.PUSH * action[..., 0]).clamp(-1, 1)
        after = torch.stack([place, before[..., 1]], dim=-1)
        self.parts = self.paid(before, after, action[..., 0])
        return torch.stack(self.parts, dim=-1).sum(-1), after

    def paid(self, before: Tensor, after: Tensor, push: Tensor) -> list[Tensor]:
        """`(E, A)` by term."""
        return [-distance(after), -0.2 * push.square()]

    def step(self, action: PerGroup) -> Step:
        step = super().step(action)
        return step._replace(terms={"agent": torch.stack(self.parts, dim=-1)}) if self.names else step


def distance(obs: Tensor) -> Tensor:
    """`(E, A)` to the mark."""
    return (obs[..., 0] - obs[..., 1]).abs()


class Whole(Line):
    """The same, without terms."""

    names = ()


class Noise(Line):
    names = ("near", "weather")

    def paid(self, before: Tensor, after: Tensor, push: Tensor) -> list[Tensor]:
        return [-distance(after), 2 * torch.randn(push.shape, generator=self.generator)]


class Unseeded(Line):
    """The noise follows no seed, so that equal plays differ."""

    names = ("near", "weather")
    stray = torch.Generator().manual_seed(3)

    def paid(self, before: Tensor, after: Tensor, push: Tensor) -> list[Tensor]:
        return [-distance(after), 2 * torch.randn(push.shape, generator=self.stray)]


class Sparse(Line):
    """A rare bonus beside a dense term: nothing wrong with that."""

    names = ("near", "there")

    def paid(self, before: Tensor, after: Tensor, push: Tensor) -> list[Tensor]:
        return [-distance(after), 5.0 * (distance(after) < 0.02)]


class Potential(Line):
    """Shaping by the difference of a potential."""

    names = ("near", "shaping")

    def paid(self, before: Tensor, after: Tensor, push: Tensor) -> list[Tensor]:
        return [-0.1 * distance(after), distance(before) - 0.99 * distance(after)]


class Loops(Line):
    """Approaching is paid, leaving is free."""

    names = ("near", "nearer")

    def paid(self, before: Tensor, after: Tensor, push: Tensor) -> list[Tensor]:
        return [-0.02 * distance(after), (distance(before) - distance(after)).clamp_min(0)]


class Swift(Loops):
    """The same, and what is seen tells how fast one approaches: the state explains what its changes do."""

    obs_size = 3

    def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
        before = self.obs
        paid, after = super()._play(action)
        return paid, torch.cat([after, (distance(before) - distance(after)).unsqueeze(-1)], dim=-1)


class Dominated(Line):
    names = ("near", "effort")

    def paid(self, before: Tensor, after: Tensor, push: Tensor) -> list[Tensor]:
        return [-0.001 * distance(after), -push.square()]


class Fight(Line):
    names = ("near", "far")

    def paid(self, before: Tensor, after: Tensor, push: Tensor) -> list[Tensor]:
        return [-distance(after), 0.9 * distance(after) - 0.02 * push.square()]


class Constant(Line):
    """To the right, always."""

    names = ("right",)

    def paid(self, before: Tensor, after: Tensor, push: Tensor) -> list[Tensor]:
        return [push]


class Silent(Line):
    names = ("never",)

    def paid(self, before: Tensor, after: Tensor, push: Tensor) -> list[Tensor]:
        return [torch.zeros_like(push)]


class Hunters(Line):
    """What one is paid, the other loses."""

    names = ("duel",)

    def paid(self, before: Tensor, after: Tensor, push: Tensor) -> list[Tensor]:
        gain = distance(after)[:, 1:] - distance(after)[:, :1]
        return [torch.cat([gain, -gain], dim=1)]


class Shared(Line):
    names = ("near",)

    def paid(self, before: Tensor, after: Tensor, push: Tensor) -> list[Tensor]:
        return [-distance(after).mean(1, keepdim=True).expand(push.shape)]


class Lazy(Line):
    """Everybody is paid for what the first two of three do."""

    agents = 3
    names = ("near",)

    def paid(self, before: Tensor, after: Tensor, push: Tensor) -> list[Tensor]:
        return [-distance(after)[:, :2].mean(1, keepdim=True).expand(push.shape)]


class Tiny(Line):
    names = ("near",)

    def paid(self, before: Tensor, after: Tensor, push: Tensor) -> list[Tensor]:
        return [-1e-5 * distance(after)]


class Huge(Line):
    names = ("near",)

    def paid(self, before: Tensor, after: Tensor, push: Tensor) -> list[Tensor]:
        return [-1e5 * distance(after)]


class Offset(Line):
    names = ("near",)

    def paid(self, before: Tensor, after: Tensor, push: Tensor) -> list[Tensor]:
        return [100.0 - distance(after)]


class Distant(Line):
    """A distance from a goal of which chance feels next to nothing: 1 away unless a push towards the mark is hard."""

    names = ("near",)

    def paid(self, before: Tensor, after: Tensor, push: Tensor) -> list[Tensor]:
        towards = push * torch.sign(before[..., 1] - before[..., 0])
        return [0.95 * (towards > 0.99) - 1 + 0.001 * towards]


class Glitch(Line):
    names = ("near", "sensor")

    def paid(self, before: Tensor, after: Tensor, push: Tensor) -> list[Tensor]:
        struck = torch.rand(push.shape, generator=self.generator) < 0.003
        return [-distance(after), 1e3 * struck * torch.randn(push.shape, generator=self.generator)]


class Logarithm(Line):
    names = ("near", "log")

    def paid(self, before: Tensor, after: Tensor, push: Tensor) -> list[Tensor]:
        return [-distance(after), (distance(after) - 0.05).log()]


class Ending(Line):
    """Copies end apart: where an agent leaves the middle. Each begins anew by itself."""

    cut_off = False
    length = 20
    EDGE = 0.95

    def reset(self, seed: int) -> PerGroup:
        self.age = torch.zeros(self.num_envs, dtype=torch.int64)
        return super().reset(seed)

    def _begin(self) -> Tensor:
        return 0.8 * self._uniform()

    def step(self, action: PerGroup) -> Step:
        reward, after = self._play(action["agent"])
        self.age += 1
        left = self.over(after)
        done = left | (self.age >= self.length)
        fresh = self._begin()
        self.obs = torch.where(done[:, None, None], fresh, after)
        self.age = self.age.masked_fill(done, 0)
        flags = left.unsqueeze(1).expand(-1, self.agents)
        return Step(
            obs={"agent": self.obs},
            next_obs={"agent": after},
            reward={"agent": reward},
            terminated={"agent": flags},
            truncated={"agent": (done & ~left).unsqueeze(1).expand(-1, self.agents)},
            alive={"agent": torch.ones_like(reward, dtype=torch.bool)},
            done=done,
            terms={"agent": torch.stack(self.parts, dim=-1)},
        )

    def over(self, after: Tensor) -> Tensor:
        """`(E,)`."""
        return (after[..., 0].abs() > self.EDGE).any(1)


class Suicide(Ending):
    """A step costs, an end nothing."""

    names = ("near",)

    def paid(self, before: Tensor, after: Tensor, push: Tensor) -> list[Tensor]:
        return [-0.5 - distance(after)]


class Penalty(Ending):
    """The same with an end that costs more than all that could follow: sound."""

    names = ("near", "fall")

    def paid(self, before: Tensor, after: Tensor, push: Tensor) -> list[Tensor]:
        return [-0.5 - distance(after), -60.0 * self.over(after).float().unsqueeze(1).expand(push.shape)]


class Prize(Ending):
    """Pushing is dear, and an end pays: worth it for who is near."""

    names = ("effort", "prize")

    def paid(self, before: Tensor, after: Tensor, push: Tensor) -> list[Tensor]:
        return [-push.square(), 5.0 * self.over(after).float().unsqueeze(1).expand(push.shape)]


class Alive(Ending):
    names = ("near", "alive")

    def paid(self, before: Tensor, after: Tensor, push: Tensor) -> list[Tensor]:
        return [-0.02 * distance(after), torch.full_like(push, 2.0)]


class Lingering(Ending):
    """Reaching the marks ends it and is paid less than staying close."""

    names = ("close", "reached")

    def paid(self, before: Tensor, after: Tensor, push: Tensor) -> list[Tensor]:
        return [2 - distance(after), 1.5 * self.over(after).float().unsqueeze(1).expand(push.shape)]

    def over(self, after: Tensor) -> Tensor:
        return (distance(after) < 0.1).any(1)


class Arriving(Lingering):
    """The same, paid as it should be."""

    def paid(self, before: Tensor, after: Tensor, push: Tensor) -> list[Tensor]:
        return [-0.1 - 0.1 * distance(after), 10.0 * self.over(after).float().unsqueeze(1).expand(push.shape)]


def arena(game: type[Line], copies: int = 48, rounds: int = 1, seed: int = 5) -> Arena:
    return Arena(game(copies), seed, 40, rounds, 24)
