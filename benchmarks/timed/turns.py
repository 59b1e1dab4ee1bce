"""Measurements made in turn, so that a machine that is slow for a while is slow for all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Work = Callable[[], float]
"""Does something once; what it measured, such as steps per second."""


def in_turn(rounds: int, *work: Work) -> list[float]:
    """Median of each one's figures over `rounds` in which they take turns; one more, the first, warms up."""
    figures = [[run() for run in work] for _ in range(rounds + 1)]
    return [float(x) for x in np.median(np.array(figures[1:]), axis=0)]
