"""Can actions move a term at all, how soon, and how clearly: equal plays in which only some actions are drawn anew.

Two plays from one seed have the same beginnings and, where the environment repeats, the same luck; what differs
between them is the actions' doing. Where it does not repeat, equal actions show how much luck alone differs.

Shapes: T steps, E copies, N agents, K terms.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from marl_stable.investigate.reward.arena import Arena
from marl_stable.investigate.reward.play import Bools, Choose, Floats, Played, again, at_random, joined, known
from marl_stable.types import PerGroup

FLIPS = 999
MOST_AGENTS = 8
LEAST = 1e-3  # share of the variance below which nobody moves a term
CHANCE = 0.05
HALF = 0.5  # of the largest effect: felt
SPAN = 5  # steps for which the longest deviation is held, at least


class Influence(NamedTuple):
    """What one agent's actions alone change."""

    paid: Floats  # (N,) by how much all returns of an episode change, the median over episodes
    seen: Bools  # (N,) whether any other agent saw something else


class Control(NamedTuple):
    """How far actions move each agent's terms."""

    repeats: bool  # equal plays were equal
    share: Floats  # (N, K) of the variance between episodes that redrawn actions make
    p: Floats  # (N, K) of a permutation test of it
    snr: Floats  # (N, K) actions' variance over that of everything else
    lag: list[list[int | None]]  # N x K, steps from an action to half of its largest effect
    influence: Influence | None


def control(arena: Arena) -> Control:
    """Play at random, the same again, and with all actions drawn anew."""
    plays, twins, others = [], [], []
    for i in range(arena.rounds):
        first = arena.play(at_random(arena.spec, arena.generator(i)), i)
        plays.append(first)
        twins.append(arena.play(_redrawn(arena, first, everybody=False, offset=200 + i), i))
        others.append(arena.play(_redrawn(arena, first, everybody=True, offset=300 + i), i))
    one, twin, other = joined(plays), joined(twins), joined(others)
    size = min(len(one.live), len(twin.live))
    repeats = one.live.shape == twin.live.shape and bool(
        np.array_equal(known(one.terms)[:size][one.live], known(twin.terms)[:size][one.live])
    )
    share, p, snr = shares(one, twin, other)
    return Control(repeats, share, p, snr, _lags(arena, plays[0]), influence(arena, plays[0], repeats))


def shares(one: Played, twin: Played, other: Played) -> tuple[Floats, Floats, Floats]:
    """`(N, K)` each: share of the variance that the actions make, its p, and signal to noise.

    Half the mean squared difference of two plays is the variance of what differs between them; what equal plays
    differ by is luck, and is taken off. The larger of the figures for sums of episodes and for single steps counts.
    """
    found = [_share(*kind) for kind in ((x.sums() for x in (one, twin, other)), _steps(one, twin, other))]
    share = np.minimum(np.maximum(found[0][0], found[1][0]), 1.0)
    p = np.minimum(1.0, 2 * np.minimum(found[0][1], found[1][1]))  # of two tries
    return share, p, share / np.maximum(1 - share, 1e-3)


def _steps(*plays: Played) -> list[Floats]:
    """Terms of single steps `(E * T, N, K)` as far as all plays go, episode by episode."""
    size = min(len(play.live) for play in plays)
    both = np.logical_and.reduce([play.live[:size] for play in plays])
    return [known(play.terms)[:size][both] for play in plays]


def _share(one: Floats, twin: Floats, other: Floats) -> tuple[Floats, Floats]:
    """Of rows `(M, N, K)`: share and p, by flipping which of two differences is the actions'."""
    acted, luck = 0.5 * (one - other) ** 2, 0.5 * (one - twin) ** 2
    variance = np.maximum(one.var(0), 0.5 * (one.var(0) + other.var(0)))
    gain = acted - luck
    mean = gain.mean(0)
    size = np.abs(one).max(0)
    share = np.where(variance > 1e-18 * np.maximum(size, 1e-30) ** 2, mean / np.where(variance > 0, variance, 1.0), 0.0)
    rows = gain[:: max(1, len(gain) // 400)]
    signs = np.random.default_rng(0).choice((-1.0, 1.0), (FLIPS, len(rows)))
    flipped = np.tensordot(signs, rows, 1) / len(rows)  # (FLIPS, N, K)
    tiny = 1e-12 * np.abs(rows).mean(0)
    p = (1 + (flipped >= rows.mean(0) - tiny).sum(0)) / (1 + FLIPS)
    return np.maximum(share, 0.0), np.where(mean > 0, p, 1.0)


def _redrawn(arena: Arena, play: Played, everybody: bool, offset: int) -> Choose:
    flags = np.full((*play.live.shape, len(arena.who.agents)), everybody)
    return again(arena.spec, play.action, flags, arena.generator(offset))


def _lags(arena: Arena, play: Played) -> list[list[int | None]]:
    """Steps from an action, drawn anew in each copy at a moment of its own, until each term has changed by half of the
    most that it will."""
    steps, copies = play.live.shape
    n, k = len(arena.who.agents), len(arena.who.terms)
    moment = np.random.default_rng(arena.seed).integers(0, max(1, steps // 3), copies)
    flags = np.zeros((steps, copies, n), dtype=bool)
    flags[moment, np.arange(copies)] = True
    other = arena.play(again(arena.spec, play.action, flags, arena.generator(400)), 0)
    changed = response(play, other, moment)
    peak = changed.max(0)
    return [
        [int((changed[:, i, j] >= HALF * peak[i, j]).argmax()) if peak[i, j] else None for j in range(k)]
        for i in range(n)
    ]


def response(play: Played, other: Played, moment: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Floats:
    """`(L, N, K)` mean size of what changed, by steps since the `moment (E,)` of each copy."""
    size = min(len(play.live), len(other.live))
    both = (play.live[:size] & other.live[:size])[:, :, None, None]
    gap = np.where(both, np.abs(known(play.terms)[:size] - known(other.terms)[:size]), 0.0)
    reach = max(1, size - int(moment.max()))
    rows = [gap[moment + lag, np.arange(gap.shape[1])].mean(0) for lag in range(reach)]
    return np.stack(rows)


def influence(arena: Arena, play: Played, repeats: bool) -> Influence | None:
    """What each agent's own actions change, all others acting as before; unknown where plays do not repeat, or time is
    short."""
    names = arena.who.agents
    if not (repeats and 1 < len(names) <= MOST_AGENTS and arena.allows("what each agent changes")):
        return None
    paid, seen = np.zeros(len(names)), np.zeros(len(names), dtype=bool)
    for i in range(len(names)):
        flags = np.zeros((*play.live.shape, len(names)), dtype=bool)
        flags[..., i] = True
        other = arena.play(again(arena.spec, play.action, flags, arena.generator(500 + i)), 0)
        paid[i] = float(np.median(np.abs(play.returns() - other.returns()).sum(1)))
        seen[i] = _noticed(play, other, i)
    return Influence(paid, seen)


def _noticed(play: Played, other: Played, agent: int) -> bool:
    """Whether others saw anything else, or the episode took another time."""
    if play.live.shape != other.live.shape or not np.array_equal(play.live, other.live):
        return True
    start = 0
    for name, mine in play.obs.items():
        rest = [i for i in range(mine.shape[2]) if start + i != agent]
        start += mine.shape[2]
        if not np.array_equal(mine[play.live][:, rest], other.obs[name][play.live][:, rest], equal_nan=True):
            return True
    return False


def deviations(arena: Arena, choose: Choose, plays: int) -> Floats:
    """`(M,)` what a return gains where another action is held for a while, then `choose` goes on as before.

    In every second play all agents deviate, in the others one; each copy for a time of its own, as what helps for a
    moment may be too much of a good thing later. By the policy improvement theorem a way to behave from
    which no deviation gains is the best there is, as far as single deviations tell.
    """
    gains, names = [], len(arena.who.agents)
    rng = np.random.default_rng(arena.seed + 1)
    bases = [arena.play(choose, episode) for episode in range(arena.rounds)]
    for i in range(plays):
        base = bases[i % arena.rounds]
        steps, copies = base.live.shape
        span = rng.integers(1, max(SPAN, steps // 5) + 1, copies)
        begin = rng.integers(0, np.maximum(1, base.live.sum(0) - span))
        time = np.arange(steps)[:, None]
        within = (time >= begin) & (time < begin + span)  # (T, E)
        one = np.eye(names, dtype=bool)[rng.integers(names, size=copies)]
        flags = within[:, :, None] & (one if i % 2 else np.ones_like(one))[None]
        held = _held(arena, again(arena.spec, base.action, flags, arena.generator(600 + i)), flags)
        gains.append((arena.play(held, i % arena.rounds).returns() - base.returns()).mean(1))
    return np.concatenate(gains)


def _held(arena: Arena, draw: Choose, flags: Bools) -> Choose:
    """`draw`, where an agent that deviates keeps to the first action it drew, unless masks forbid."""
    first: PerGroup = {}

    def choose(obs: PerGroup, t: int) -> PerGroup:
        action, start = draw(obs, t), 0
        for group in arena.spec.groups:
            n = len(group.agents)
            if t < len(flags) and not group.masked:
                now = torch.from_numpy(flags[t, :, start : start + n]).to(arena.env.device)
                new = torch.from_numpy(~flags[:t, :, start : start + n].any(0)).to(arena.env.device)
                taken, mine = action[group.name], first.get(group.name, action[group.name])
                now, new = (x if taken.dim() == 2 else x.unsqueeze(-1) for x in (now, new))
                first[group.name] = torch.where(new, taken, mine)
                action[group.name] = torch.where(now, first[group.name], taken)
            start += n
        return action

    return choose
