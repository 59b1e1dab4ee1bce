"""Who acts in an evaluation: a trained agent, chance, or one for some groups and another for the rest.

Shapes: E copies, A agents of a group, O observation features, D action features, K choices at once, n actions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor

from marl_stable.agents.base import Agent
from marl_stable.evaluation import Act, Remembering
from marl_stable.types import Box, Discrete, EnvSpec, Group, PerGroup


class ByAgent:
    """What `agent` does: greedily, or drawn with `generator`. Made anew for each play: it may remember."""

    def __init__(
        self, agent: Agent, generator: torch.Generator | None = None, look: Callable[[PerGroup], None] | None = None
    ) -> None:
        """`look` is shown all raw actions."""
        self.agent, self.generator, self.look = agent, generator, look
        self.player = agent.player()

    def __call__(self, obs: PerGroup) -> PerGroup:
        """Observations `(E, A, O)` to actions in the environment's units."""
        draw = self.generator
        raw = {name: p.sample(draw) if draw else p.mode() for name, p in self.player(obs).items()}
        if self.look:
            self.look(raw)
        return self.agent.to_env(raw)

    def ended(self, done: Tensor) -> None:
        """Forget the episodes of the copies `done (E,)`."""
        self.player.ended(done)


def at_random(spec: EnvSpec, generator: torch.Generator) -> Act:
    """Uniformly random legal actions for every group."""
    return lambda obs: {group.name: random_action(group, obs[group.name], generator) for group in spec.groups}


def random_action(group: Group, obs: Tensor, generator: torch.Generator) -> Tensor:
    """A uniformly random action for each observation `(E, A, O)`, in the environment's units.

    `(E, A)` int64, `(E, A, K)` int64 for several choices, `(E, A, D)` float32 for a Box. In a masked group a legal
    one; any where the mask allows none, which is an agent that is not asked.
    """
    shape, device, action = obs.shape[:-1], obs.device, group.action
    if isinstance(action, Box):
        low, high = torch.tensor(action.low, device=device), torch.tensor(action.high, device=device)
        return torch.lerp(low, high, torch.rand(*shape, len(low), generator=generator, device=device))
    if not isinstance(action, Discrete):
        choices = [torch.randint(n, shape, generator=generator, device=device) for n in action.n]
        return torch.stack(choices, dim=-1)
    if not group.masked:
        return torch.randint(action.n, shape, generator=generator, device=device)
    legal = obs[..., -action.n :] > 0.5  # (E, A, n)
    draw = torch.rand(legal.shape, generator=generator, device=device)
    return (draw + legal).argmax(dim=-1)  # draws are below 1, so that any legal action comes before all others


class Mixed:
    """`one` acts for `groups`, `other` for the rest."""

    def __init__(self, spec: EnvSpec, one: Act, groups: Collection[str], other: Act) -> None:
        self.names, self.one, self.groups, self.other = [group.name for group in spec.groups], one, groups, other

    def __call__(self, obs: PerGroup) -> PerGroup:
        """Observations `(E, A, O)` to actions in the environment's units."""
        mine, theirs = self.one(obs), self.other(obs)
        return {name: (mine if name in self.groups else theirs)[name] for name in self.names}

    def ended(self, done: Tensor) -> None:
        """Let those who remember forget the episodes of the copies `done (E,)`."""
        for act in (self.one, self.other):
            if isinstance(act, Remembering):
                act.ended(done)
