"""Ways to behave, and what each is paid: chance, nothing, one action for ever, greed, a trained policy, an expert.

All are paid on the same episodes, so that two of them are compared episode by episode. Shapes: M episodes, E copies,
N agents, K terms, A agents of a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from marl_stable.evaluation import bootstrap_interval
from marl_stable.investigate.baselines import constant_actions, next_legal
from marl_stable.investigate.reward.arena import Arena
from marl_stable.investigate.reward.play import Choose, Floats, Played, at_random, joined
from marl_stable.types import Box, EnvSpec, PerGroup, legal_features

KEEP = 4  # one in so many constant actions stays in the race each round


class Candidate(NamedTuple):
    """A way to behave and what it was paid."""

    name: str
    play: Played
    action: dict[str, Any] | None = None  # of one that never changes, by agent

    @property
    def values(self) -> Floats:
        """`(M,)` returns: the means over agents."""
        means: Floats = self.play.returns().mean(1)
        return means

    def described(self) -> dict[str, Any]:
        """As `baselines` in the contract has it."""
        found: dict[str, Any] = {"return": float(self.values.mean()), "ci95": list(bootstrap_interval(self.values))}
        return found if self.action is None else found | {"action": self.action}


def paid(arena: Arena, name: str, choose: Choose, action: dict[str, Any] | None = None) -> Candidate:
    """What a way to behave is paid on everybody's episodes."""
    return Candidate(name, joined([arena.play(choose, episode) for episode in range(arena.rounds)]), action)


def chance(arena: Arena) -> Candidate:
    """Random actions."""
    plays = [arena.play(at_random(arena.spec, arena.generator(i)), i) for i in range(arena.rounds)]
    return Candidate("random", joined(plays))


def no_op(arena: Arena) -> Candidate:
    """The first choice, or what is nearest to 0."""
    held = _still(arena)
    action = {agent: held[group.name][0].tolist() for group in arena.spec.groups for agent in group.agents}
    return paid(arena, "no_op", holding(arena, held), action)


def _still(arena: Arena) -> dict[str, Tensor]:
    """By group `(1, ...)`, doing nothing."""
    held = {}
    for group in arena.spec.groups:
        kind = group.action
        if isinstance(kind, Box):
            low, high = torch.tensor(kind.low), torch.tensor(kind.high)
            held[group.name] = torch.zeros_like(low).clamp(low, high).unsqueeze(0)
        else:
            held[group.name] = torch.tensor([[0] * len(kind.n)] if isinstance(kind.n, tuple) else [0])
    return held


def holding(arena: Arena, held: dict[str, Tensor]) -> Choose:
    """One action for ever, by group `(1, ...)`, or by group and copy `(E, ...)`; the next legal one where illegal."""
    spread: PerGroup = {}
    for group in arena.spec.groups:
        value = held[group.name].to(arena.env.device)
        shape = (arena.env.num_envs, len(group.agents), *value.shape[1:])
        spread[group.name] = value.unsqueeze(1).expand(shape).contiguous()
    masked = {group.name: legal_features(group) for group in arena.spec.groups if group.masked}

    def choose(obs: PerGroup, _: int) -> PerGroup:
        return spread | {name: next_legal(spread[name], obs[name][..., -n:] > 0.5) for name, n in masked.items()}

    return choose


def constantly(spec: EnvSpec, action: dict[str, Any]) -> Choose:
    """One action for ever, by agent as findings have it, in any number of copies; masks are not asked."""

    def choose(obs: PerGroup, _: int) -> PerGroup:
        rows = {group.name: torch.tensor([action[agent] for agent in group.agents]) for group in spec.groups}
        return {name: row.expand(len(obs[name]), *row.shape).contiguous() for name, row in rows.items()}

    return choose


def best_constant(arena: Arena) -> tuple[Candidate, Choose, Candidate]:
    """The best action never to change, how to hold it, and what doing nothing was paid.

    Searched group after group, the others holding their best so far.
    """
    tried = {group.name: thinned(constant_actions(group, arena.seed), arena.most) for group in arena.spec.groups}
    best = {name: values[0] for name, values in tried.items()}
    for name, values in tried.items():
        best[name] = values[_race(arena, name, values, best)]
    choose = holding(arena, {name: value.unsqueeze(0) for name, value in best.items()})
    action = {agent: best[group.name].tolist() for group in arena.spec.groups for agent in group.agents}
    found, idle = paid(arena, "best_constant", choose, action), no_op(arena)
    if idle.values.mean() <= found.values.mean():
        return found, choose, idle
    return idle._replace(name="best_constant"), holding(arena, _still(arena)), idle


def thinned(values: Sequence[Tensor], most: int) -> list[Tensor]:
    """About so many of them, evenly spaced; the first, the lowest and the highest are always there."""
    if len(values) <= most:
        return list(values)
    sums = [float(value.sum()) for value in values]
    kept = {0, int(np.argmin(sums)), int(np.argmax(sums)), *range(0, len(values), -(-len(values) // most))}
    return [values[i] for i in sorted(kept)]


def _race(arena: Arena, name: str, values: list[Tensor], best: dict[str, Tensor]) -> int:
    """Which of the values is best, by successive halving; copies hold different ones at once."""
    agents = next(group.agents for group in arena.spec.groups if group.name == name)
    columns = [arena.who.agents.index(agent) for agent in agents]
    total, count = np.zeros(len(values)), np.zeros(len(values))
    left, episode, copies = np.arange(len(values)), 0, arena.env.num_envs
    while True:
        for start in range(0, len(left), copies):
            part = left[start : start + copies]
            turn = np.roll(np.resize(part, copies), episode)  # (E,) who holds what
            held = {other: value.unsqueeze(0) for other, value in best.items()}
            held[name] = torch.stack([values[which] for which in turn])
            returns = arena.play(holding(arena, held), 50 + episode).returns()[:, columns].mean(1)
            np.add.at(total, turn, returns)
            np.add.at(count, turn, 1)
            episode += 1
        order = left[np.argsort(-(total / np.maximum(count, 1))[left], kind="stable")]
        if len(order) <= 2 or (len(order) <= KEEP and episode > 1):
            return int(order[0])
        left = order[: max(2, len(order) // KEEP)]


def difference(one: Candidate, other: Candidate) -> tuple[float, float]:
    """Mean by which `one` is paid more, episode by episode, and its standard error."""
    gap = one.values - other.values
    return float(gap.mean()), float(gap.std(ddof=1) / np.sqrt(len(gap))) if len(gap) > 1 else float("inf")
