"""What can be had without learning: random actions, and the best action that never changes.

A policy no better than its best constant action has learned nothing, whatever its curve looks like. Shapes: E copies,
A agents of a group, D action features, K reward terms.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from marl_stable.acting import random_action
from marl_stable.agents.base import copied
from marl_stable.envs.base import BatchedEnv
from marl_stable.evaluation import Act, Episodes, bootstrap_interval, play
from marl_stable.types import Discrete, Group, MultiDiscrete, PerGroup, Step, legal_features

EPISODES = 100
SEARCH_EPISODES = 10  # per candidate; the winner is measured again on other episodes, so that luck does not count
BUDGET_STEPS = 16_000  # environments with long episodes get one per copy, and no search beyond it
MAX_EPISODE = 1_000  # steps of a copy; a longer episode counts as it stands
CORNERS, RANDOM_CANDIDATES = 32, 16
SEED = 7_654_321
ACTIONS = SEED + 3  # of random actions: with the seed of the reset they would draw what environments draw
OBSERVED_CALLS = 64


class Outcomes(NamedTuple):
    """What T steps of all copies led to; those after a copy's last counted episode as well."""

    reward: PerGroup  # (T, E, A), as are the next three
    terminated: PerGroup
    truncated: PerGroup
    alive: PerGroup
    done: Tensor  # (T, E)
    terms: PerGroup = {}  # noqa: RUF012 - (T, E, A, K), of groups that have terms


class RandomPlay(NamedTuple):
    """A short random play: what it returned, how long its episodes were, and what was seen and met on the way."""

    episodes: Episodes
    obs: PerGroup  # (N, A, O), of the first steps, copy by copy
    outcomes: Outcomes

    def there(self) -> PerGroup:
        """`(N, A)` who acted on each row of `obs`: 1, or 0."""
        seen = {name: self.outcomes.alive[name].flatten(0, 1)[: len(obs)] for name, obs in self.obs.items()}
        return {name: x.float() for name, x in seen.items()}

    def horizon(self) -> float:
        """Mean episode length, in steps."""
        return float(self.episodes.lengths.mean())


def random_play(env: BatchedEnv, seed: int) -> RandomPlay:
    """Play 100 episodes with uniformly random legal actions, or one per copy where those would take too long."""
    generator = torch.Generator(env.device).manual_seed(seed + ACTIONS)
    seen: dict[str, list[Tensor]] = {group.name: [] for group in env.spec.groups}

    def act(obs: PerGroup) -> PerGroup:
        for name, values in seen.items():
            if len(values) < OBSERVED_CALLS:
                values.append(obs[name].clone())
        return {group.name: random_action(group, obs[group.name], generator) for group in env.spec.groups}

    witness: Any = _Witness(env)
    count = min(EPISODES, env.num_envs)
    episodes = play(witness, act, count, seed + SEED, MAX_EPISODE)
    if count < EPISODES and episodes.lengths.mean() * EPISODES <= BUDGET_STEPS:
        for values in seen.values():
            values.clear()
        episodes = play(witness, act, EPISODES, seed + SEED, MAX_EPISODE)
    return RandomPlay(episodes, {name: torch.cat(values) for name, values in seen.items()}, witness.outcomes())


class _Witness:
    """What :func:`play` uses of an environment, keeping what each step since the last reset led to."""

    def __init__(self, env: BatchedEnv) -> None:
        self.env, self.spec, self.num_envs, self.device = env, env.spec, env.num_envs, env.device
        self.kept: list[tuple[PerGroup, ...]] = []
        self.done: list[Tensor] = []
        self.terms: list[PerGroup] = []

    def reset(self, seed: int) -> PerGroup:
        self.kept, self.done, self.terms = [], [], []
        return self.env.reset(seed)

    def step(self, action: PerGroup) -> Step:
        step = self.env.step(action)
        self.kept.append((*map(copied, (step.reward, step.terminated, step.truncated, step.alive)),))
        self.done.append(step.done.clone())
        self.terms.append(copied(step.terms))
        return step

    def outcomes(self) -> Outcomes:
        names = [group.name for group in self.spec.groups]
        reward, terminated, truncated, alive = (
            {name: torch.stack([step[name] for step in kind]) for name in names}
            for kind in zip(*self.kept, strict=True)
        )
        terms = {name: torch.stack([step[name] for step in self.terms]) for name in self.terms[0]}
        return Outcomes(reward, terminated, truncated, alive, torch.stack(self.done), terms)


def measure(env: BatchedEnv, play_at_random: RandomPlay, seed: int, budget: int = BUDGET_STEPS) -> dict[str, Any]:
    """The `baselines` of `diagnosis.json`: random, and best constant (None where the search exceeds `budget` steps)."""
    found = _described(play_at_random.episodes)
    length = play_at_random.horizon()
    candidates = {group.name: constant_actions(group, seed) for group in env.spec.groups}
    trials = sum(len(values) for values in candidates.values()) * SEARCH_EPISODES + EPISODES
    if trials * length > budget:
        return {"random": found, "best_constant": None}
    return {"random": found, "best_constant": best_constant(env, candidates, seed)}


def best_constant(env: BatchedEnv, candidates: dict[str, list[Tensor]], seed: int) -> dict[str, Any]:
    """Search group after group, the others holding their best so far (at first: the first candidate)."""
    best = {name: values[0] for name, values in candidates.items()}
    for name, values in candidates.items():
        scores = []
        for value in values:
            episodes = play(env, _constant(env, best | {name: value}), SEARCH_EPISODES, seed + SEED + 1, MAX_EPISODE)
            scores.append(_group_return(env, episodes, name))
        best[name] = values[int(np.argmax(scores))]
    episodes = play(env, _constant(env, best), EPISODES, seed + SEED + 2, MAX_EPISODE)
    action = {agent: best[group.name].tolist() for group in env.spec.groups for agent in group.agents}
    return _described(episodes) | {"action": action}


def constant_actions(group: Group, seed: int) -> list[Tensor]:
    """Actions worth holding for ever: each discrete one; of a box its centre, no-op, corners and some inside."""
    draw = torch.Generator().manual_seed(seed + SEED)
    if isinstance(group.action, Discrete):
        return list(torch.arange(group.action.n))
    if isinstance(group.action, MultiDiscrete):
        return _choices(group.action, draw)
    low, high = torch.tensor(group.action.low), torch.tensor(group.action.high)
    if 2 ** len(low) <= CORNERS:
        corners = torch.tensor(list(product((0.0, 1.0), repeat=len(low))))
    else:
        corners = torch.randint(2, (CORNERS, len(low)), generator=draw).float()
    inside = torch.rand(RANDOM_CANDIDATES, len(low), generator=draw)
    places = torch.cat([torch.full((1, len(low)), 0.5), corners, inside])
    return [torch.zeros_like(low).clamp(low, high), *torch.lerp(low, high, places)]  # lerp is exact at both ends


def _choices(action: MultiDiscrete, draw: torch.Generator) -> list[Tensor]:
    """Every combination where they are few, else the first and some at random."""
    if math.prod(action.n) <= CORNERS:
        return [torch.tensor(choice) for choice in product(*(range(n) for n in action.n))]
    drawn = torch.stack([torch.randint(n, (CORNERS,), generator=draw) for n in action.n], dim=-1)
    return [torch.zeros_like(drawn[0]), *drawn]


def _constant(env: BatchedEnv, action: dict[str, Tensor]) -> Act:
    """Everyone does the same for ever; where that is illegal, the next action that is not."""
    held = {}
    for group in env.spec.groups:
        value = action[group.name].to(env.device)
        held[group.name] = value.expand(env.num_envs, len(group.agents), *value.shape).contiguous()
    masked = {group.name: legal_features(group) for group in env.spec.groups if group.masked}

    def act(obs: PerGroup) -> PerGroup:
        return held | {name: next_legal(held[name], obs[name][..., -n:] > 0.5) for name, n in masked.items()}

    return act


def next_legal(action: Tensor, legal: Tensor) -> Tensor:
    """`action (E, A)` where `legal (E, A, n)` allows it, else the next one, counting round."""
    n = legal.shape[-1]
    order = (action.unsqueeze(-1) + torch.arange(n, device=action.device)) % n  # (E, A, n), the wish first
    return order.gather(-1, legal.gather(-1, order).int().argmax(-1, keepdim=True)).squeeze(-1)


def _group_return(env: BatchedEnv, episodes: Episodes, name: str) -> float:
    agents = next(group.agents for group in env.spec.groups if group.name == name)
    return float(episodes.returns[:, [env.spec.agents.index(agent) for agent in agents]].mean())


def _described(episodes: Episodes) -> dict[str, Any]:
    values = episodes.mean_returns()
    return {"return": float(values.mean()), "ci95": list(bootstrap_interval(values))}
