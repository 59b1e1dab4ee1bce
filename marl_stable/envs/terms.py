"""Parts of a reward, as Python environments report them: `infos[agent]["reward_terms"] = {"term": number}`.

Nothing declares their names, so the first copy is played for a few steps before training. NumPy only, as workers have
no torch.

Shapes: A agents of one group, O observation features, D action features, K reward terms.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from marl_stable.types import Box, Discrete, Group

if TYPE_CHECKING:
    from marl_stable.envs.copies import Copy

TERMS = "reward_terms"
STEPS = 25  # to look for names; terms of rare events may show later than others
TOLERANCE = 1e-4  # of the sum of magnitudes, and in absolute terms


def terms_in(infos: Any, agent: str) -> Mapping[Any, Any]:
    """The terms that `infos` report for `agent`; empty where there are none. Infos may hold anything else besides."""
    info = infos.get(agent) if isinstance(infos, Mapping) else None
    terms = info.get(TERMS) if isinstance(info, Mapping) else None
    return terms if isinstance(terms, Mapping) else {}


def write_terms(row: NDArray[np.float32], columns: Mapping[str, int], terms: Mapping[Any, Any]) -> None:
    """Write what `terms` has into a row `(K,)` of zeros; a name without a column and what is no number are left out."""
    for name, value in terms.items():
        column = columns.get(str(name))
        if column is not None:
            with contextlib.suppress(TypeError, ValueError):
                row[column] = float(value)


def add_up(terms: NDArray[np.float32], reward: float) -> bool:
    """Whether `terms (K,)` are the parts of `reward`, up to rounding."""
    limit = max(TOLERANCE, TOLERANCE * float(np.abs(terms).sum()))
    return bool(abs(float(terms.sum()) - reward) <= limit)


def find_terms(copy: Copy) -> dict[str, tuple[str, ...]]:
    """Names of the terms of each group, in order of appearance; plays `copy`, whose next use must be a reset.

    An environment without any is played for one step (in turns: for one of each agent), with the first of its legal
    actions or the centre of its bounds: nothing that a training would not do as well.
    """
    groups = copy.spec.groups
    found: dict[str, dict[str, None]] = {group.name: {} for group in groups}
    patience = len(copy.spec.agents) if copy.spec.turn_based else 1
    rng = np.random.default_rng(0)
    with contextlib.suppress(Exception):  # the training's own first steps will say so, with their seed
        obs = copy.reset(0)
        for step in range(STEPS):
            harmless = step < patience
            moves = {group.name: _moves(group, obs[group.name], None if harmless else rng) for group in groups}
            obs, *_, done = copy.step(moves)
            for group in groups:
                for agent in group.agents:
                    found[group.name] |= dict.fromkeys(map(str, terms_in(copy.infos(), agent)))
            if step + 1 >= patience and not any(found.values()):
                break
            obs = copy.reset(step + 1) if done else obs
    return {name: tuple(names) for name, names in found.items()}


def _moves(group: Group, obs: NDArray[np.float32], rng: np.random.Generator | None) -> NDArray[Any]:
    """Legal actions at `obs (A, O)`: drawn with `rng`, or without it the first or the middle ones.

    `(A,)` or `(A, K)` int64, `(A, D)` float32.
    """
    action, agents = group.action, len(group.agents)
    if isinstance(action, Box):
        low, high = np.array(action.low, np.float32), np.array(action.high, np.float32)
        share = np.full((agents, len(low)), 0.5) if rng is None else rng.random((agents, len(low)))
        return (low + share * (high - low)).astype(np.float32)
    if not isinstance(action, Discrete):
        choices = (agents, len(action.n))
        return np.zeros(choices, np.int64) if rng is None else rng.integers(0, action.n, choices)
    legal = obs[:, -action.n :] > 0.5 if group.masked else np.ones((agents, action.n), np.bool_)
    draw = np.zeros(legal.shape) if rng is None else rng.random(legal.shape)
    return np.asarray((draw + legal).argmax(axis=1))  # draws are below 1: any legal action comes before all others
