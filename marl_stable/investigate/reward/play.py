"""Plays one episode in every copy, and keeps all that is asked about rewards afterwards.

Agents are in the order of the groups, one after the other; terms are those of all groups, each by one name. A group
without terms has one, `reward`.

Shapes: T steps, E copies, A agents of a group, N agents of all groups, K terms, O observation features, D action
features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from marl_stable.acting import random_action
from marl_stable.envs.base import BatchedEnv
from marl_stable.types import EnvSpec, Group, PerGroup, Step

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Choose = Callable[[PerGroup, int], PerGroup]
"""Observations `(E, A, O)` and the step of the episode to actions in the environment's units."""

WHOLE = "reward"  # the one term of agents that report none


class Roster(NamedTuple):
    """Who is paid for what."""

    agents: tuple[str, ...]  # N
    terms: tuple[str, ...]  # K
    has: Bools  # (N, K)


class Played(NamedTuple):
    """The first episode of every copy, as far as it was played; entries beyond its end are not to be read."""

    obs: dict[str, NDArray[np.float32]]  # (T, E, A, O) what was acted on
    action: PerGroup  # (T, E, A) or (T, E, A, D)
    terms: Floats  # (T, E, N, K), not finite where the environment's were not
    reward: Floats  # (T, E, N)
    acted: Bools  # (T, E, N)
    terminated: Bools  # (T, E, N)
    live: Bools  # (T, E) the step belongs to the first episode
    over: Bools  # (E,) the episode ended by itself, and was not left off

    @property
    def lengths(self) -> Floats:
        """`(E,)` steps."""
        steps: Floats = self.live.sum(0).astype(np.float64)
        return steps

    def sums(self) -> Floats:
        """`(E, N, K)` each term summed over the episode, what is not finite left out."""
        total: Floats = np.where(self.live[:, :, None, None], known(self.terms), 0.0).sum(0)
        return total

    def returns(self) -> Floats:
        """`(E, N)` rewards summed over the episode, what is not finite left out."""
        total: Floats = np.where(self.live[:, :, None], known(self.reward), 0.0).sum(0)
        return total


def known(values: Floats) -> Floats:
    """`values` with 0 for what is not finite."""
    return np.where(np.isfinite(values), values, 0.0)


def roster(spec: EnvSpec) -> Roster:
    """Agents and terms of an environment."""
    names = [named(group) for group in spec.groups]
    terms = tuple(dict.fromkeys(term for own in names for term in own))
    rows = [
        [term in own for term in terms] for group, own in zip(spec.groups, names, strict=True) for _ in group.agents
    ]
    agents = tuple(agent for group in spec.groups for agent in group.agents)
    return Roster(agents, terms, np.array(rows, dtype=bool))


def members(who: Roster, group: Group) -> list[int]:
    """Columns of a group's agents among those of all."""
    return [who.agents.index(agent) for agent in group.agents]


def named(group: Group) -> tuple[str, ...]:
    """The terms of a group's rewards, or the one of the whole."""
    return group.terms or (WHOLE,)


@torch.no_grad()
def watch(env: BatchedEnv, choose: Choose, seed: int, longest: int) -> Played:
    """Reset with `seed` and let `choose` act until every copy's first episode is over, or for `longest` steps."""
    who = roster(env.spec)
    rows: list[tuple[NDArray[Any], ...]] = []
    seen: list[PerGroup] = []
    did: list[PerGroup] = []
    running = np.ones(env.num_envs, dtype=bool)
    obs = env.reset(seed)
    for t in range(longest):
        action = choose(obs, t)
        seen.append({name: x.detach().cpu().clone() for name, x in obs.items()})
        did.append({name: x.detach().cpu().clone() for name, x in action.items()})
        step = env.step(action)
        rows.append((_by_term(env.spec, who, step), *_flat(env.spec, step), running.copy()))
        running &= ~step.done.cpu().numpy()
        if not running.any():
            break
        obs = step.obs
    terms, reward, acted, terminated, live = (np.stack(column) for column in zip(*rows, strict=True))
    names = [group.name for group in env.spec.groups]
    return Played(
        {name: torch.stack([x[name] for x in seen]).numpy() for name in names},
        {name: torch.stack([x[name] for x in did]) for name in names},
        terms,
        reward.astype(np.float64),
        acted.astype(bool),
        terminated.astype(bool),
        live.astype(bool),
        ~running,
    )


def _by_term(spec: EnvSpec, who: Roster, step: Step) -> Floats:
    """`(E, N, K)`, 0 where an agent has no such term."""
    parts = []
    for group in spec.groups:
        values = (step.terms[group.name] if group.terms else step.reward[group.name].unsqueeze(-1)).cpu().numpy()
        part = np.zeros((*values.shape[:2], len(who.terms)))
        part[..., [who.terms.index(term) for term in named(group)]] = values
        parts.append(part)
    return np.concatenate(parts, axis=1)


def _flat(spec: EnvSpec, step: Step) -> tuple[NDArray[Any], ...]:
    """`(E, N)` each: rewards, who acted, whose world ended."""
    kinds = (step.reward, step.alive, step.terminated)
    return tuple(torch.cat([kind[group.name] for group in spec.groups], dim=1).cpu().numpy() for kind in kinds)


def at_random(spec: EnvSpec, generator: torch.Generator) -> Choose:
    """Uniformly random legal actions."""
    return lambda obs, _: {group.name: random_action(group, obs[group.name], generator) for group in spec.groups}


def again(spec: EnvSpec, earlier: PerGroup, redrawn: NDArray[np.bool_], generator: torch.Generator) -> Choose:
    """The actions of an earlier play `(T, E, A, ...)` once more, but for those of the agents `redrawn (T, E, N)`.

    Beyond the earlier play's end all are drawn.
    """
    start, parts = 0, {}
    for group in spec.groups:
        parts[group.name] = torch.from_numpy(redrawn[..., start : start + len(group.agents)])
        start += len(group.agents)

    def choose(obs: PerGroup, t: int) -> PerGroup:
        action = {}
        for group in spec.groups:
            drawn, old = random_action(group, obs[group.name], generator), earlier[group.name]
            if t < len(old):
                change = parts[group.name][t].to(drawn.device)
                change = change if drawn.dim() == 2 else change.unsqueeze(-1)
                drawn = torch.where(change, drawn, old[t].to(drawn.device, drawn.dtype))
            action[group.name] = drawn
        return action

    return choose


def joined(plays: list[Played]) -> Played:
    """Several plays as one of more copies; the shorter ones are filled up with steps that are not to be read."""
    longest = max(len(play.live) for play in plays)

    def put(arrays: list[NDArray[Any]]) -> NDArray[Any]:
        filled = [np.concatenate([x, np.zeros((longest - len(x), *x.shape[1:]), x.dtype)]) for x in arrays]
        return np.concatenate(filled, axis=1)

    first = plays[0]
    return Played(
        {name: put([play.obs[name] for play in plays]) for name in first.obs},
        {name: torch.from_numpy(put([play.action[name].numpy() for play in plays])) for name in first.action},
        put([play.terms for play in plays]),
        put([play.reward for play in plays]),
        put([play.acted for play in plays]),
        put([play.terminated for play in plays]),
        put([play.live for play in plays]),
        np.concatenate([play.over for play in plays]),
    )
