"""Does a term pay for going round in circles? Shaping that is a difference of a potential does not (Ng et al. 1999).

A term is taken for shaping where it says by how much something became better: where undiscounted changes of the state
explain it. (Discounted ones explain much of what hangs on a slow state alone.) One that is a potential's difference is
explained wholly and sums to nothing over every loop; one that only ever pays does neither. Shapes: T steps, E copies,
N agents, K terms, M rows, O features.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marl_stable.investigate.reward.fitting import CLIP, Sight, sight, solve
from marl_stable.investigate.reward.play import Floats, Played, Roster, known
from marl_stable.types import EnvSpec, legal_features

MOST_ROWS = 8_000
CHANGES, POTENTIAL = 0.25, 0.9  # share of a term that changes explain: it is about them; it is a potential's
WORDS = ("shap", "potential", "progress", "approach")
NEAR = 0.35  # of the usual distance between two moments: there again
FEWEST_LOOPS, LONGEST_LOOP = 12, 40
GAMMAS = (1.0, 0.995, 0.99, 0.95, 0.9)


class Shape(NamedTuple):
    """What a term of an agent looks like."""

    changes: float  # share of its variance that a difference of some potential explains, discounted or not
    undiscounted: float  # the same without a discount: what stands still changes by nothing, so it is no fit of a state
    loops: int  # how often a play came back to where it had been
    gain: float  # what a loop pays per step: by the fit, and where there are enough at most what those loops paid
    error: float  # its standard error
    size: float  # mean size of the term per step


def shape(spec: EnvSpec, play: Played, who: Roster, n: int, k: int) -> Shape:
    """Look at term `k` of agent `n`."""
    start = 0
    for group in spec.groups:
        if n < start + len(group.agents):
            break
        start += len(group.agents)
    obs = play.obs[group.name][:, :, n - start : n - start + 1]  # (T, E, 1, O)
    obs = obs[..., : group.obs_size - legal_features(group)]
    term = known(play.terms[..., n, k])
    here = play.live[:-1] & play.live[1:]  # the next moment is of the same episode
    alone = group._replace(agents=(who.agents[n],))
    seen = sight(obs[play.live], alone)
    before, after, y = obs[:-1][here], obs[1:][here], term[:-1][here]
    stride = max(1, -(-len(y) // MOST_ROWS))
    before, after, y = before[::stride], after[::stride], y[::stride]
    changes, undiscounted, beyond, error = _potential(seen, before, after, y)
    gains = loops(_placed(seen, obs), term, play)
    if len(gains) >= FEWEST_LOOPS and gains.mean() < beyond:
        beyond, error = float(gains.mean()), float(gains.std() / np.sqrt(len(gains)))
    return Shape(changes, undiscounted, len(gains), beyond, error, float(np.abs(term[play.live]).mean()))


def _potential(seen: Sight, before: NDArray[Any], after: NDArray[Any], y: Floats) -> tuple[float, float, float, float]:
    """Share explained by the best of differences with and without a discount, by that without, and what is paid beyond
    the best with its error. Differences sum to nothing over a loop, so that what is paid beyond is what a loop pays per
    step."""
    one, other = _basis(seen, before), _basis(seen, after)
    explained = {gamma: _explained(gamma * other - one, y) for gamma in GAMMAS}
    changes, gamma = max((share, gamma) for gamma, share in explained.items())
    x = gamma * other - one
    centre = x.mean(0)
    weights = solve((x - centre) / np.maximum(x.std(0), 1e-6), (y - y.mean())[:, None])[:, 0]
    weights = weights / np.maximum(x.std(0), 1e-6)
    left = y - x @ weights
    return changes, explained[1.0], float(left.mean()), float(left.std() / np.sqrt(max(1, len(left))))


def _basis(seen: Sight, obs: NDArray[Any]) -> Floats:
    """`(M, F)` of observations `(M, 1, O)`: features, and the lengths of neighbouring pairs, which distances are."""
    raw = known(obs[:, 0].astype(np.float64))
    return np.concatenate([seen.of(obs)[:, 0], np.abs(raw), np.hypot(raw[:, :-1], raw[:, 1:])], axis=1)


def _explained(x: Floats, y: Floats) -> float:
    """Share of the variance of `y (M,)` that `x (M, F)` explains on rows that were not fitted."""
    total = float(((y - y.mean()) ** 2).sum())
    if total <= 1e-18 * max(1e-30, float((y**2).sum())) or len(y) < 8:
        return 0.0
    x = x / np.maximum(x.std(0), 1e-6)
    block = np.arange(len(y)) * 8 // len(y) % 2
    left = 0.0
    for part in (0, 1):
        held = block == part
        fit = solve(np.concatenate([x, np.ones((len(x), 1))], axis=1)[~held], y[~held, None])
        left += float(((y[held] - (np.concatenate([x, np.ones((len(x), 1))], axis=1)[held] @ fit)[:, 0]) ** 2).sum())
    return max(0.0, 1 - left / total)


def _placed(seen: Sight, obs: NDArray[Any]) -> Floats:
    """`(T, E, O)` standardised observations."""
    return np.clip((known(obs[:, :, 0].astype(np.float64)) - seen.mean) / seen.std, -CLIP, CLIP)


def loops(place: Floats, term: Floats, play: Played) -> Floats:
    """Mean per step of a term over every stretch after which `place (T, E, O)` was nearly what it had been before."""
    found = []
    for copy in range(place.shape[1]):
        length = int(play.live[:, copy].sum())
        path, paid = place[:length, copy], np.concatenate([[0.0], np.cumsum(term[:length, copy])])
        if length < 4:
            continue
        gap = np.sqrt(((path[:, None] - path[None]) ** 2).mean(-1)) if length <= 256 else None
        if gap is None:
            continue
        usual = float(np.median(gap[np.triu_indices(length, 1)]))
        found += _closed(gap, NEAR * usual, paid)
    return np.array(found)


def _closed(gap: Floats, near: float, paid: Floats) -> list[float]:
    """Loops that leave the neighbourhood and return, one after the other, so that none is counted twice."""
    found, start, length = [], 0, len(gap)
    while start < length - 3:
        row = gap[start, start + 1 : start + LONGEST_LOOP]
        away = np.flatnonzero(row > 2 * near)
        back = np.flatnonzero(row <= near)
        back = back[back > away[0]] if len(away) else back[:0]
        if len(back):
            end = start + 1 + int(back[0])
            found.append(float(paid[end] - paid[start]) / (end - start))
            start = end
        else:
            start += 1
    return found
