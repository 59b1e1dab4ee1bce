"""How target networks follow what is learned, at the readings at which that moved."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from marl_stable.monitor.case import Case
from marl_stable.monitor.recording import Series

NOTHING = 1e-9  # of the size of the weights: rounding alone is more


def following(case: Case, signal: str) -> Iterator[Series]:
    """`target_change` or `target_gap` of each target network, without readings before which nothing was learned."""
    for target in case.recording.series(signal):
        changes = case.recording.series("layer_change", **target.where)
        moved = [change.values > 0 for change in changes if len(change.values) == len(target.values)]
        if moved:
            learned = np.any(moved, axis=0)
            yield target._replace(steps=target.steps[learned], values=target.values[learned])
