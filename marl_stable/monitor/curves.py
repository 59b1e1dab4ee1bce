"""What a whole curve did, a return or a loss from its first row to its last: collapsed, cycled, rose or fell.

`n` rows are the readings of one curve, one per logged iteration or evaluation, as `calibration` reads them: NaN means
"not read", a sigma is robust. Measured on its series, 100 of 500 rows each; false alarms in percent of the series:

                                  independent t5    rho 0.8, t5    rho 0.95, t4
    trend, |z| > 3                              1             0               0
    oscillation, p < 0.01                       0             0               4

`drop_after_peak` found falls by 5 deviations of a row in 200 rows in 100%, 87% and 100% of 60 curves each; it called
no healthy rising curve collapsed, but 0%, 2% and 20% of those that had only ever wandered on one level.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marl_stable.monitor.calibration import (
    CURVE,
    Floats,
    autocorrelation,
    autocorrelation_time,
    centred_ranks,
    check_lengths,
    detrended,
    in_sigmas,
    lag_one,
    sigma,
)

MIN_ROWS = 10  # fewer rows say nothing about levels, trends and cycles
LEVEL_ALARM = 5.0  # deviations of a level that rise and fall must exceed; 4 alarm on 5% of flat, independent curves
MAX_PAIRED = 1000  # rows of which Theil-Sen compares every pair
MIN_STRENGTH = 0.25  # autocorrelation below which a cycle, however certain, is not what the series is about
SURROGATES = 199  # so that p is at least 1/200


class Collapse(NamedTuple):
    """A curve that lost `depth` of (peak - baseline) and stayed down from `onset_step` on."""

    peak_step: int
    onset_step: int
    depth: float


class Oscillation(NamedTuple):
    """A period of `lag` rows at which the autocorrelation is `strength` (-1..1)."""

    lag: int
    strength: float
    p_value: float


class Trend(NamedTuple):
    """Slope per step, the change over the whole series in sigmas of the noise, and its significance in deviations."""

    slope: float
    change: float
    z: float


@np.errstate(over="ignore", invalid="ignore")  # of numbers near the end of the range
def drop_after_peak(
    steps: NDArray[Any], values: Floats, baseline: float | None = None, min_depth: float = 0.3
) -> Collapse | None:
    """Whether a return curve fell from its peak and is still down at its end: peak, onset, depth; None if not.

    Levels are running medians over 5% of the rows (at least 5); the noise is the robust deviation from the running
    median over a fifth of them. Both the rise above `baseline` (default: the first rows; better: the random policy's
    return) and the fall must exceed 5 deviations of a level, and the fall `min_depth` of the rise. The onset is the
    first step from which the curve stays below the peak by a tenth of the fall and 1 deviation of the noise. A dip
    from which it recovered is no collapse; nor is anything told of numbers whose differences overflow.
    """
    check_lengths(steps, values)
    read = np.isfinite(values)
    steps, values = steps[read], values[read]
    if values.size < MIN_ROWS:
        return None
    width = max(5, values.size // 20)
    level = running_median(values, width)
    rest = values - running_median(values, max(5, values.size // 5))
    noise = sigma(rest)  # of one row; a level of `width` rows has less of it, by how far they are independent
    limit = LEVEL_ALARM * noise * min(1.0, 1.25 * math.sqrt(autocorrelation_time(rest) / width))
    peak, end = int(level.argmax()), float(np.median(values[-width:]))
    rise = float(level[peak]) - (float(np.median(values[:width])) if baseline is None else baseline)
    fall = float(level[peak]) - end
    if not np.isfinite((limit, rise, fall)).all() or min(rise, fall) <= limit or fall < min_depth * rise:
        return None
    up = np.flatnonzero(level >= level[peak] - max(0.1 * fall, noise))
    return Collapse(int(steps[peak]), int(steps[min(up[-1] + 1, values.size - 1)]), fall / rise)


def running_median(x: Floats, width: int) -> Floats:
    """Median of the `width` rows around each (made odd); fewer at the ends, so that the last level is a late one.

    `x` holds no NaN. The window is kept in order, a row in and a row out, so that memory is that of one window.
    """
    half, values = width // 2, x.tolist()
    window, level = sorted(values[:half]), np.empty(x.size)
    for t in range(x.size):
        if t + half < x.size:
            insort(window, values[t + half])
        if t > half:
            del window[bisect_left(window, values[t - half - 1])]
        middle = len(window) // 2
        level[t] = window[middle] if len(window) % 2 else (window[middle - 1] + window[middle]) / 2
    return level


def oscillation(values: Floats, p_limit: float = 0.01) -> Oscillation | None:
    """The period of a cycling series: its best autocorrelation after the first negative one; None if none is sure.

    On detrended ranks; at least 3 periods must fit, and the autocorrelation must reach 0.25. p is the share of AR(1)
    series of the same length and lag-one autocorrelation (seeded, 199 of them) that cycle as strongly: red noise alone
    wanders up and down.
    """
    ranks = centred_ranks(values[~np.isnan(values)])
    n = ranks.size
    if n < MIN_ROWS or not ranks.any():
        return None
    ranks = detrended(ranks, CURVE)
    lag, strength = _best_lag(ranks)
    if strength < MIN_STRENGTH:
        return None
    generator, rho = np.random.default_rng(0), max(0.0, lag_one(ranks))
    series = np.empty((n, SURROGATES))
    series[0] = generator.standard_normal(SURROGATES) / math.sqrt(1 - rho * rho)
    for t in range(1, n):
        series[t] = rho * series[t - 1] + generator.standard_normal(SURROGATES)
    stronger = sum(_best_lag(column)[1] >= strength for column in detrended(series, CURVE).T)
    p = (1 + stronger) / (1 + SURROGATES)
    return Oscillation(lag, strength, p) if p <= p_limit else None


def _best_lag(x: Floats) -> tuple[int, float]:
    """Lag of the highest autocorrelation after the first negative one, up to a third of the rows; 0 if none."""
    r = autocorrelation(x)[: x.size // 3 + 1]
    negative = np.flatnonzero(r < 0)
    if not negative.size:
        return 0, 0.0
    lag = int(negative[0] + r[negative[0] :].argmax())
    return (lag, float(r[lag])) if lag < r.size - 1 else (0, 0.0)


def trend(steps: NDArray[Any], values: Floats) -> Trend:
    """Theil-Sen slope per step, with its change over the series in sigmas of the residuals and its significance.

    Say "rising" where z > 3 and change > 1, "falling" where z < -3 and change < -1. z is Spearman's rank correlation
    with time over its deviation, widened by the autocorrelation time of the residuals. Beyond 1,000 rows every second,
    third... is compared. Zeros where fewer than 10 finite rows. Source: Sen 1968; Yue & Wang 2004.
    """
    check_lengths(steps, values)
    read = np.isfinite(values)
    time, y = steps[read].astype(np.float64), values[read]
    if y.size < MIN_ROWS or np.ptp(time) == 0:
        return Trend(0.0, 0.0, 0.0)
    every = -(-y.size // MAX_PAIRED)
    time, y = time[::every], y[::every]
    early, late = np.triu_indices(y.size, 1)
    apart = time[late] > time[early]
    slope = float(np.median(((y[late] - y[early])[apart]) / (time[late] - time[early])[apart]))
    change = in_sigmas(slope * float(time[-1] - time[0]), sigma(y - slope * time))
    ranks, order = centred_ranks(y), np.arange(y.size) - (y.size - 1) / 2
    spread = math.sqrt(float((ranks**2).sum() * (order**2).sum()))
    rho = float(ranks @ order) / spread if spread else 0.0
    return Trend(slope, change, rho * math.sqrt((y.size - 1) / autocorrelation_time(detrended(ranks, 1))))
