"""A scripted expert from a file: PettingZoo dictionaries in, PettingZoo dictionaries out, copy by copy.

Shapes: E copies, A agents of a group, O observation features.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from marl_stable.envs import factory
from marl_stable.investigate.reward.play import Choose
from marl_stable.types import Box, EnvSpec, Group, PerGroup, UsageError


def load(place: str, spec: EnvSpec) -> Choose:
    """The expert `FILE.py:policy`: a function of observations by agent that returns actions by agent.

    Observations are flat arrays as networks see them, actions those of the environment's spaces. Where `policy` is a
    class, each copy gets an instance at each episode's beginning, which may remember. Raises UsageError for a file or a
    name that is not there, and for a policy that raises or does not answer for every agent.
    """
    found = factory.load(place)
    remembers = inspect.isclass(found)
    players: list[Any] = []

    def choose(obs: PerGroup, t: int) -> PerGroup:
        copies = len(next(iter(obs.values())))
        if t == 0 or len(players) != copies:
            players[:] = [_called(place, found) if remembers else found for _ in range(copies)]
        rows = [_answer(place, spec, players[copy], obs, copy) for copy in range(copies)]
        return {g.name: torch.from_numpy(np.stack([row[g.name] for row in rows])) for g in spec.groups}

    return choose


def _answer(place: str, spec: EnvSpec, player: Any, obs: PerGroup, copy: int) -> dict[str, NDArray[Any]]:
    """By group `(A, ...)`."""
    seen = {
        agent: obs[group.name][copy, i].cpu().numpy() for group in spec.groups for i, agent in enumerate(group.agents)
    }
    actions = _called(place, player, seen)
    missing = [agent for agent in spec.agents if not isinstance(actions, Mapping) or agent not in actions]
    if missing:
        raise UsageError(f"expert {place} returned no action for {missing[0]}; return one by agent, {{agent: action}}.")
    return {g.name: np.stack([_inside(place, g, agent, actions[agent]) for agent in g.agents]) for g in spec.groups}


def _called(place: str, what: Any, *arguments: Any) -> Any:
    try:
        return what(*arguments)
    except Exception as error:
        raise UsageError(f"expert {place} failed: {type(error).__name__}: {error}") from error


def _inside(place: str, group: Group, agent: str, action: Any) -> NDArray[Any]:
    """An action of the environment's space as it is numbered here."""
    kind = group.action
    value = np.asarray(action)
    if isinstance(kind, Box):
        fits = value.size == len(kind.low)
        value = value.astype(np.float32).reshape(-1)
    else:
        value = value.astype(np.int64) - np.asarray(kind.start).reshape(value.shape if value.size > 1 else ())
        wide = np.asarray(kind.n)
        fits = value.size == wide.size and bool(
            ((value.reshape(-1) >= 0) & (value.reshape(-1) < wide.reshape(-1))).all()
        )
        value = value.reshape(wide.shape) if fits else value
    if not fits:
        raise UsageError(f"expert {place} returned {action!r} for {agent}; its action space is {kind}.")
    return value
