"""What became of each term while a run was trained, from its recording: what it paid, and its share of the advantage.

Shapes: n readings, A agents of a group, K terms.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from marl_stable.monitor.recording import Recording

MEANS, SHARES = "rewards/terms/", "term_share"
MOST = 60  # points of a curve; of more readings, neighbours are averaged
THIRD = 3


def over_training(recording: Recording) -> list[dict[str, Any]]:
    """By group and term: what it paid per step (`mean`) and its `share` of the advantage, means over a group's agents,
    of the first and the last third of the readings and as curves over `steps`.

    Shares of a group add up to 1 wherever they are known, and are None where nothing varied. Empty where no terms were
    reported.
    """
    found = []
    for group, terms in _terms(recording).items():
        steps = recording.steps
        means = np.stack([_over_agents(recording, MEANS + term, group) for term in terms])  # (K, n)
        shares = np.stack([_over_agents(recording, SHARES, group, term=term) for term in terms])
        read = ~np.isnan(means).all(0)
        steps, means, shares = steps[read], means[:, read], shares[:, read]
        for k, term in enumerate(terms):
            entry = {"group": group, "term": term, "mean": _thirds(means[k]), "share": _thirds(shares[k])}
            curve = {"mean": _thinned(means[k]), "share": _thinned(shares[k])}
            found.append(entry | {"steps": [round(x) for x in _thinned(steps.astype(float))], "curve": curve})
    return found


def _terms(recording: Recording) -> dict[str, list[str]]:
    """The terms of each group."""
    found: dict[str, list[str]] = {}
    for signal in recording.signals():
        if signal.startswith(MEANS):
            for series in recording.series(signal):
                terms = found.setdefault(series.where["group"], [])
                terms += [name] if (name := signal.removeprefix(MEANS)) not in terms else []
    return found


def _over_agents(recording: Recording, signal: str, group: str, **where: Any) -> NDArray[np.float64]:
    """`(n,)` mean over those agents that have a reading; NaN where nobody has."""
    total, count = np.zeros(len(recording.steps)), np.zeros(len(recording.steps))
    for series in recording.series(signal, group=group, **where):
        at = np.searchsorted(recording.steps, series.steps)
        total[at] += series.values
        count[at] += 1
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _thirds(values: NDArray[np.float64]) -> dict[str, float | None]:
    size = -(-len(values) // THIRD)
    return {"first": _mean(values[:size]), "last": _mean(values[-size:])}


def _thinned(values: NDArray[np.float64]) -> list[Any]:
    parts = np.array_split(values, min(MOST, len(values))) if len(values) else []
    return [_mean(part) for part in parts]


def _mean(values: NDArray[np.float64]) -> float | None:
    read = values[~np.isnan(values)]
    return float(read.mean()) if len(read) else None
