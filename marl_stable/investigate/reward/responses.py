"""What each action does to each term, tried out: an episode at random, and the same again but for one agent's action.

In each copy one agent does one thing for a few steps, all else is as before, and what each of its terms then pays is
compared with what it paid. On the mean over situations such a gain may be nothing although the action matters, where it
helps here and harms there; so it is told as well how far gains lie apart.

Shapes: T steps, E copies, A agents of a group, N agents of all groups, K terms, C choices, M trials.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from marl_stable.investigate.baselines import next_legal
from marl_stable.investigate.reward.arena import Arena
from marl_stable.investigate.reward.play import Choose, Floats, Played, again, at_random, known, members, named
from marl_stable.types import Box, Group, PerGroup, legal_features

LEVELS = 5  # of a range
MOST_CHOICES = 12  # of a discrete action; of more, evenly spaced ones
MOST_DIMENSIONS = 12  # of all groups together
PLAYS = 12  # for all of them together, at least one for each
HOLD = 5  # steps; a fifth of shorter episodes
FEWEST = 4  # trials of a choice
BAND = (10, 90)  # percentiles

Labels = NDArray[np.int64]


class Try(NamedTuple):
    """Who does what in each copy, from when on."""

    group: Group
    dimension: int
    value: Floats  # (E,) in the environment's units, or the number of a choice
    agent: Labels  # (E,) in the group
    moment: Labels  # (E,)
    hold: int  # steps

    def window(self, t: int) -> NDArray[np.bool_]:
        """`(E,)` whether it is done at step `t`."""
        return np.asarray((t >= self.moment) & (t < self.moment + self.hold))


def responses(arena: Arena) -> list[dict[str, Any]]:
    """By group, dimension of the action and term: what is done (`at`) for so many `steps`, and by how much the term's
    sum over twice as many then changes: `mean`, its standard `error`, and the band from `low` to `high`."""
    kinds = [(group, d) for group in arena.spec.groups for d in range(dimensions(group))][:MOST_DIMENSIONS]
    bases = [arena.play(at_random(arena.spec, arena.generator(i)), i) for i in range(arena.rounds)]
    rng = np.random.default_rng(arena.seed + 3)
    plays = max(1, PLAYS // len(kinds)) if arena.allows("most trials of single actions") else 1
    found = []
    for group, dimension in kinds:
        at = choices(group, dimension)
        trials = [_trial(arena, bases, i, rng, group, dimension) for i in range(plays)]
        which, gain = (np.concatenate(column) for column in zip(*trials, strict=True))
        place = {"group": group.name, "dimension": dimension, "range": isinstance(group.action, Box)}
        for k, term in enumerate(named(group)):
            found.append(place | {"term": term, "steps": _hold(bases[0])} | _summary(at, which, gain[:, k]))
    return found


def dimensions(group: Group) -> int:
    """In how many numbers an action of the group can differ."""
    kind = group.action
    if isinstance(kind, Box):
        return len(kind.low)
    return len(kind.n) if isinstance(kind.n, tuple) else 1


def choices(group: Group, dimension: int) -> Floats:
    """`(C,)` what is tried."""
    kind = group.action
    if isinstance(kind, Box):
        return np.linspace(kind.low[dimension], kind.high[dimension], LEVELS)
    n = kind.n[dimension] if isinstance(kind.n, tuple) else kind.n
    return np.unique(np.linspace(0, n - 1, min(n, MOST_CHOICES)).round())


def _trial(
    arena: Arena, bases: list[Played], i: int, rng: np.random.Generator, group: Group, dimension: int
) -> tuple[Labels, Floats]:
    """`(E,)` which choice each copy tried, and `(E, K)` by how much it changed each of the group's terms."""
    base, at = bases[i % arena.rounds], choices(group, dimension)
    copies, hold = arena.env.num_envs, _hold(base)
    which = np.roll(np.resize(np.arange(len(at)), copies), i)
    moment = rng.integers(0, np.maximum(1, base.live.sum(0) - 2 * hold + 1))
    tried = Try(group, dimension, at[which], rng.integers(len(group.agents), size=copies), moment, hold)
    other = arena.play(_doing(arena, base, tried, 800 + i), i % arena.rounds)
    terms = [arena.who.terms.index(term) for term in named(group)]
    columns = np.array(members(arena.who, group))[tried.agent]
    return which, (_paid(other, moment, 2 * hold, columns) - _paid(base, moment, 2 * hold, columns))[:, terms]


def _hold(base: Played) -> int:
    return max(1, min(HOLD, len(base.live) // 5))


def _doing(arena: Arena, base: Played, tried: Try, offset: int) -> Choose:
    """`base` again, but for what is tried; the next legal action where masks forbid."""
    nobody = np.zeros((*base.live.shape, len(arena.who.agents)), dtype=bool)
    repeat = again(arena.spec, base.action, nobody, arena.generator(offset))
    masked = {group.name: legal_features(group) for group in arena.spec.groups if group.masked}

    def choose(obs: PerGroup, t: int) -> PerGroup:
        action = dict(repeat(obs, t))
        action[tried.group.name] = _replaced(action[tried.group.name], tried, t)
        return action | {name: next_legal(action[name], obs[name][..., -n:] > 0.5) for name, n in masked.items()}

    return choose


def _replaced(action: torch.Tensor, tried: Try, t: int) -> torch.Tensor:
    """Actions `(E, A)` or `(E, A, D)` with what is tried."""
    copies = np.flatnonzero(tried.window(t))
    changed = action.clone()
    flat = changed if changed.dim() == 3 else changed.unsqueeze(-1)
    value = torch.from_numpy(tried.value[copies]).to(action.device, action.dtype)
    flat[copies, tried.agent[copies], tried.dimension] = value
    return changed


def _paid(play: Played, moment: Labels, steps: int, columns: Labels) -> Floats:
    """`(E, K)` sums of the terms of agent `columns (E,)` over so many steps from `moment (E,)` on."""
    copies = np.arange(play.live.shape[1])
    own = known(play.terms[:, copies, columns]) * play.live[..., None]  # (T, E, K)
    time = np.arange(len(own))[:, None]
    within = (time >= moment) & (time < moment + steps)
    return np.asarray((own * within[..., None]).sum(0))


def _summary(at: Floats, which: Labels, gain: Floats) -> dict[str, Any]:
    kept = [c for c in range(len(at)) if (which == c).sum() >= FEWEST]
    trials = [gain[which == c] for c in kept]
    return {
        "at": [float(at[c]) for c in kept],
        "mean": [float(rows.mean()) for rows in trials],
        "error": [float(rows.std(ddof=1) / np.sqrt(len(rows))) for rows in trials],
        "low": [float(np.percentile(rows, BAND[0])) for rows in trials],
        "high": [float(np.percentile(rows, BAND[1])) for rows in trials],
        "trials": len(gain),
    }
