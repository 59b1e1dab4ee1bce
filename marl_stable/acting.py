"""Who acts in an evaluation: a trained agent, chance, or one for some groups and another for the rest.

Shapes: E copies, A agents of a group, O observation features, D action features, K choices at once, n actions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from marl_stable.agents.base import Agent
from marl_stable.evaluation import Act, Remembering
from marl_stable.types import Box, Discrete, EnvSpec, Group, PerGroup


@dataclass
class Told:
    """An act whose memory is told where episodes end; it remembers, so that each play needs a new one."""

    act: Act
    ended: Callable[[Tensor], None]

    def __call__(self, obs: PerGroup) -> PerGroup:
        """Observations `(E, A, O)` to actions in the environment's units."""
        return self.act(obs)


def by_agent(
    agent: Agent, generator: torch.Generator | None = None, look: Callable[[PerGroup], None] | None = None
) -> Act:
    """What `agent` does: greedily, or drawn with `generator`; for one play. `look` is shown all raw actions."""
    player = agent.player()

    def act(obs: PerGroup) -> PerGroup:
        raw = {name: p.sample(generator) if generator else p.mode() for name, p in player(obs).items()}
        if look:
            look(raw)
        return agent.to_env(raw)

    return Told(act, player.ended)


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


def mixed(spec: EnvSpec, one: Act, groups: Collection[str], other: Act) -> Act:
    """`one` acts for `groups`, `other` for the rest."""

    def act(obs: PerGroup) -> PerGroup:
        mine, theirs = one(obs), other(obs)
        return {group.name: (mine if group.name in groups else theirs)[group.name] for group in spec.groups}

    def ended(done: Tensor) -> None:
        for who in (one, other):
            if isinstance(who, Remembering):
                who.ended(done)

    return Told(act, ended)
