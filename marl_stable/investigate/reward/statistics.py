"""What each agent is paid by each term: figures of single steps and of episodes, by plain counting.

Shapes: T steps, E copies, N agents, K terms, M values.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch

from marl_stable.investigate.reward.play import Bools, Floats, Played, Roster, known
from marl_stable.normalize import robust, sampled

FAR = 50.0  # robust deviations from the median, beyond which a reward is far out
ALIKE = 3.0  # those that differ by less than this factor are one event that is rare, not accidents
ABSURD = 1e5  # beyond it even they are no event
FATED, SCATTERED = 0.5, 0.25  # share of such events that come whatever is done, accidents therefore; of the episode
RARE = 0.02  # share of the steps that accidents take at most
SHARED = 1e-6


class Outlier(NamedTuple):
    """The rewards that lie farther out than any event explains."""

    agent: str
    term: str
    ratio: float  # the largest distance from the median, in robust deviations
    value: float
    share: float  # of steps
    copy: int
    step: int
    action: list[float]


def describe(play: Played, who: Roster) -> list[dict[str, Any]]:
    """One entry for each agent and each of its terms; `mean` and `std` are of single steps, not finite ones apart."""
    lengths = play.lengths
    sums = play.sums()
    found = []
    for n, agent in enumerate(who.agents):
        for k in np.flatnonzero(who.has[n]):
            values = play.terms[..., n, k][play.live]
            entry = {"name": who.terms[k], "agent": agent, **of_steps(values)}
            entry["per_episode"] = float(sums[:, n, k].mean())
            entry["with_length"] = correlation(sums[:, n, k], lengths)
            found.append(entry)
    return found


def of_steps(values: Floats) -> dict[str, float | int | None]:
    """Figures of single steps `(M,)`."""
    finite = values[np.isfinite(values)]
    bad = len(values) - len(finite)
    if not len(finite):
        names = ("mean", "std", "median", "scale", "zero", "p001", "p999", "largest_over_scale")
        return dict.fromkeys(names) | {"non_finite": bad}
    median, scale = middle(finite)
    p001, p999 = np.percentile(finite, [0.1, 99.9])
    farthest = float(np.abs(finite - median).max())
    return {
        "mean": float(finite.mean()),
        "std": float(finite.std()),
        "median": median,
        "scale": scale,
        "zero": float((finite == 0).mean()),
        "p001": float(p001),
        "p999": float(p999),
        "largest_over_scale": farthest / scale if scale > 0 else None,
        "non_finite": bad,
    }


def middle(values: Floats) -> tuple[float, float]:
    """Median and robust deviation, as the monitor measures them."""
    centre, scale = robust(sampled(torch.from_numpy(values), torch.ones(len(values), dtype=torch.bool)))
    return float(centre), float(scale)


def correlation(x: Floats, y: Floats) -> float | None:
    """Of `(M,)` and `(M,)`; None where one does not vary."""
    sizes = x.std() * y.std()
    if not (len(x) > 2 and sizes > 1e-12 * max(1.0, abs(x).max() * abs(y).max())):
        return None
    return float(((x - x.mean()) * (y - y.mean())).mean() / sizes)


def between_terms(play: Played, who: Roster) -> dict[tuple[int, int, int], float]:
    """Correlation of an agent's terms over single steps, by agent and the two terms."""
    found = {}
    for n in range(len(who.agents)):
        own = np.flatnonzero(who.has[n])
        for i, j in ((i, j) for a, i in enumerate(own) for j in own[a + 1 :]):
            pair = known(play.terms[..., n, [i, j]][play.live])
            value = correlation(pair[:, 0], pair[:, 1])
            if value is not None:
                found[n, int(i), int(j)] = value
    return found


def sharing(reward: Floats, live: Bools) -> str:
    """Whether everybody's rewards `(T, E, N)` are the same (`shared`), sum to 0 (`zero-sum`), or neither (`own`)."""
    paid = known(reward[live])
    size = float(np.abs(paid).max(initial=0.0))
    if paid.shape[1] < 2 or size == 0:
        return "own"
    if float(np.ptp(paid, axis=1).max()) <= SHARED * size:
        return "shared"
    return "zero-sum" if float(np.abs(paid.sum(1)).max()) <= SHARED * size * paid.shape[1] else "own"


def upper_bound(seen: int, tries: int) -> float:
    """95% upper bound of a chance that came true `seen` times: 3/N where it never did (Wilson's otherwise)."""
    if tries == 0:
        return 1.0
    if seen == 0:
        return min(1.0, 3 / tries)
    p, z = seen / tries, 1.96
    centre, spread = p + z * z / (2 * tries), z * math.sqrt(p * (1 - p) / tries + z * z / (4 * tries * tries))
    return (centre + spread) / (1 + z * z / tries)


def outlier(play: Played, who: Roster, other: Played) -> Outlier | None:
    """The term with the most extreme accidents, if any has some; `other` began alike, and everybody acted otherwise."""
    worst: Outlier | None = None
    for n, agent in enumerate(who.agents):
        for k in np.flatnonzero(who.has[n]):
            found = _outlier(play, n, int(k), other)
            if found and (worst is None or found[0] > worst.ratio):
                ratio, value, share, step, copy = found
                worst = Outlier(agent, who.terms[k], ratio, value, share, copy, step, _action(play, n, step, copy))
    return worst


def _outlier(play: Played, n: int, k: int, other: Played) -> tuple[float, float, float, int, int] | None:
    """Ratio, value, share, step and copy; None where all is in order. Measured in units of the whole reward's spread: a
    term that is nearly always 0 has none of its own."""
    values = np.where(play.live, play.terms[..., n, k], np.nan)
    finite = values[np.isfinite(values)]
    whole = known(play.reward[..., n][play.live])
    if len(finite) < 2:
        return None
    median = float(np.median(finite))
    scale = middle(whole)[1]
    if scale <= 0:
        return None
    off = _off(play, n, k, median, scale)
    far = off[off > FAR]
    if not len(far) or len(far) > RARE * len(finite):
        return None
    if far.max() < ABSURD and _alike(far) and not _fated(off > FAR, _off(other, n, k, median, scale) > FAR, other.live):
        return None
    step, copy = np.unravel_index(int(off.argmax()), off.shape)
    return float(off.max()), float(values[step, copy]), len(far) / len(finite), int(step), int(copy)


def _off(play: Played, n: int, k: int, median: float, scale: float) -> Floats:
    """`(T, E)` distances of term `k` of agent `n` from `median` in units of `scale`, 0 beyond an episode's end.

    So are those of an end itself: what it is paid is a goal or a fall, no accident.
    """
    values = np.where(play.live & ~play.terminated[..., n], play.terms[..., n, k], np.nan)
    return np.abs(np.where(np.isfinite(values), values, median) - median) / scale


def _fated(here: Bools, there: Bools, live: Bools) -> bool:
    """Whether what lies far out, `(T, E)`, comes at the same moments in a play in which everybody acts otherwise.

    Not so where it comes at about one time, as what follows from a beginning does, or is paid at an end.
    """
    steps = min(len(here), len(there))
    asked = here[:steps] & live[:steps]
    same = asked & there[:steps]
    times = np.flatnonzero(same.any(1))
    return bool(same.sum() > FATED * asked.sum()) and int(np.ptp(times)) > SCATTERED * steps


def _alike(far: Floats) -> bool:
    """Whether those that lie far out are one event, such as a goal or a fall; of a few, whether they differ at all."""
    if len(far) <= 2:
        return float(far.max()) <= FAR * ALIKE**3
    few = len(far) < 8
    return float(far.max()) < (2.0 * float(far.min()) if few else ALIKE * float(np.median(far)))


def _action(play: Played, n: int, step: int, copy: int) -> list[float]:
    """What agent `n` did at that moment."""
    start = 0
    for action in play.action.values():
        if n < start + action.shape[2]:
            return [float(x) for x in np.atleast_1d(action[step, copy, n - start].numpy())]
        start += action.shape[2]
    return []
