"""Statistics by which detectors take their thresholds from the run itself: 1-d float64 arrays to numbers, in NumPy.

`n` rows are the readings of one signal, one per logged iteration: 50 to 1,000 in a run. NaN means "not read" and is
passed over; +-inf is a value. A "sigma" is 1.4826 times a median absolute deviation, the standard deviation of normal
data. Signals that live on a scale of ratios (norms, losses, spreads) are passed as logarithms.

The constants were fixed on autocorrelated, heavy-tailed series (AR(1) with Student-t innovations), never on trainings.
Measured on 100 series of 500 rows each; false alarms in percent of the series, per million rows in brackets:

                                  independent t5    rho 0.8, t5    rho 0.95, t4
    |z| > 3, one row                 100 (23,200)    92 (7,600)      83 (6,400)
    |z| > 8, one row                     17 (400)        2 (40)          3 (60)
    |z| > 8, 3 of 5                             0        1 (20)          1 (20)
    CUSUM k 1.5, h 50                           0             0        12 (320)
    change point, p < 0.01                      0             0               0
  found of shifts by 3 sigma at row 300, and the median delay
    CUSUM                          100%, 42 rows   94%, 44 rows    84%, 41 rows
    change point                            100%            93%              5%
  found of shifts by 12 sigma
    |z| > 8, 3 of 5                 100%, 3 rows   100%, 3 rows    100%, 3 rows

Of 100 rows the CUSUM finds almost no shift by 3 sigma (0 to 26%), the change point 98% of them if rows are independent.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marl_stable.types import UsageError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

SIGMA = 1.4826  # of a normal distribution, in median absolute deviations
READS = 3  # readings in a row that must agree: one odd iteration says nothing
Z_ALARM = 8.0  # robust sigmas; at 3 to 6 heavy tails alone alarm
WINDOW = 500  # rows: a shift must not fill the window before the CUSUM has seen it (200 rows find half as many)
BURN_IN = 30  # rows before the first z
FLOOR = 1e-3  # least sigma, in units of the signal: for logarithms, 0.1% of the value
CURVE = 3  # degree of the polynomial that stands for learning: rise, plateau and what lies between


class Shift(NamedTuple):
    """What a CUSUM found: rows in alarm, the estimated first row of the first shift, and its direction (-1, 0, 1)."""

    alarm: Bools
    start: int | None
    direction: int


class ChangePoint(NamedTuple):
    """`row` is the first after the shift; levels are medians, `size` their difference in sigmas of the noise."""

    row: int
    before: float
    after: float
    size: float
    p_value: float


def sigma(x: Floats) -> float:
    """Robust deviation, 1.4826 median |x - median x|; 0 for no values."""
    return SIGMA * float(np.median(np.abs(x - np.median(x)))) if x.size else 0.0


def robust_z(
    x: Floats, window: int = WINDOW, burn_in: int = BURN_IN, limit: float = Z_ALARM, floor: float = FLOOR
) -> Floats:
    """z_t = (x_t - median) / (1.4826 MAD + floor) against the `window` rows before t, in sigmas; `(n,)`.

    Rows with |z| > limit do not enter the window, so that a fault never becomes its own normal. NaN where x is NaN and
    in the first `burn_in` finite rows. A straight ramp of any slope sits at |z| = 1.35 to 1.43: drift alone is no
    alarm. Give `floor` in the units of x. Source: Hampel's identifier; ZClip (Kumar et al. 2025) with median and MAD
    for mean and deviation.
    """
    if not 2 <= burn_in <= window:
        raise UsageError(f"burn_in {burn_in} must be at least 2 and at most the window of {window} rows")
    z, ring = np.full(x.size, np.nan), np.empty(window)
    known, median, scale = 0, 0.0, 1.0
    for t, value in enumerate(x.tolist()):
        if math.isnan(value) or (known < burn_in and math.isinf(value)):
            continue
        if known >= burn_in:
            z[t] = (value - median) / scale
            if not abs(z[t]) <= limit:
                continue
        ring[known % window] = value
        known += 1
        if known >= burn_in:
            seen = ring[:known]
            median = _median(seen)
            scale = SIGMA * _median(np.abs(seen - median)) + floor
    return z


def _median(x: Floats) -> float:
    """As `np.median`, whose checks cost ten times the work for a few hundred values."""
    ordered = np.sort(x)
    return 0.5 * float(ordered[(x.size - 1) // 2] + ordered[x.size // 2])


def persistent(mask: Bools, hits: int = 3, of: int = 5) -> Bools:
    """Rows at which at least `hits` of the last `of` rows, the row itself included, are set; `(n,)`."""
    count = np.concatenate(([0], np.cumsum(mask)))
    row = np.arange(1, mask.size + 1)
    return np.asarray(count[row] - count[np.maximum(row - of, 0)] >= hits)


def cusum(z: Floats, k: float = 1.5, h: float = 50.0, cap: float = Z_ALARM) -> Shift:
    """Slow shifts: S_t = max(0, S_{t-1} + z_t - k) upwards and likewise downwards, alarm where S > h (sigma rows).

    The shift starts after the last row at which S was 0. z enters within +-cap, since one outlier is no shift, and S
    stops at h + cap, so that an alarm ends when the shift does; NaN leaves S. k = 1.5 lies above the z of a ramp.
    Source: Page 1954; k and h for autocorrelated series.
    """
    alarm, start, direction = np.zeros(z.size, dtype=bool), None, 0
    total, since = [0.0, 0.0], [0, 0]
    for t, value in enumerate(np.clip(z, -cap, cap).tolist()):
        for side, sign in enumerate((1, -1)):
            if not math.isnan(value):
                total[side] = min(max(0.0, total[side] + sign * value - k), h + cap)
                since[side] = since[side] if total[side] > 0 else t + 1
            if total[side] > h:
                alarm[t] = True
                if start is None:
                    start, direction = since[side], sign
    return Shift(alarm, start, direction)


def onset(outside: Bools, steps: NDArray[Any], reads: int = READS) -> int | None:
    """First step from which a series was outside its band for `reads` reads running; None where it never was.

    Leave out rows that were not read: a gap neither ends nor makes a stay outside.
    """
    check_lengths(steps, outside)
    first = np.flatnonzero(persistent(outside, reads, reads))
    return int(steps[first[0] - reads + 1]) if first.size else None


def lasting(outside: Bools, steps: NDArray[Any], reads: int = READS) -> int | None:
    """Since which step a series has been outside its band without a break, up to now; 0 where it always was.

    None where one of the latest `reads` readings was inside.
    """
    check_lengths(steps, outside)
    if outside.size < reads or not outside[-reads:].all():
        return None
    inside = np.flatnonzero(~outside)
    return int(steps[inside[-1] + 1]) if inside.size else 0


def began(at: int, steps: NDArray[Any]) -> int:
    """`at`, or 0 where that is the first reading: what was so then may have been so from the start."""
    return 0 if at <= steps[0] else at


def autocorrelation_time(x: Floats) -> float:
    """Rows that carry as much information about the mean as one independent row, 1 to n.

    (1 + rho) / (1 - rho) of an AR(1), rho corrected for its bias in short series; the larger of the estimates from
    rows and from means of n^(1/3) rows, which see slow drift under white noise. Source: Kendall 1954; batch means.
    """
    rows, longest = x[~np.isnan(x)], 1.0
    for size in (1, max(2, round(rows.size ** (1 / 3)))):
        count = rows.size // size
        if count < 6 or np.ptp(rows) == 0:
            continue
        means = rows[rows.size - count * size :].reshape(count, size).mean(1)
        rho = lag_one(means)
        longest = max(longest, size * float(means.var() / rows.var()) * (1 + rho) / (1 - rho))
    return min(longest, float(max(rows.size, 1)))


def change_point(x: Floats, p_limit: float = 0.01) -> ChangePoint | None:
    """The most likely single shift of level; None where chance or a smooth curve explains the rows as well.

    Maximally selected rank statistic max_t |sum_{i<=t} (rank_i - mean)| / deviation, t at least 5 rows and 5% from the
    ends; p by Miller & Siegmund (1982), Lausen & Schumacher (1992), with the deviation widened by the root of the
    autocorrelation time of what the step leaves, so n rows count as n / time. A cubic through the ranks must leave
    more than the step does, since learning curves rise and settle. Shifts below 1 sigma are None too.
    """
    read = np.flatnonzero(~np.isnan(x))
    n, values = read.size, x[read]
    margin = max(5, n // 20)
    ranks = centred_ranks(values)
    if n < 2 * margin or not ranks.any():
        return None
    t = np.arange(margin, n - margin + 1)
    statistic = np.abs(np.cumsum(ranks)[t - 1]) / np.sqrt(ranks.var(ddof=1) * t * (n - t) / n)
    cut = int(t[statistic.argmax()])
    left = np.concatenate([part - part.mean() for part in np.split(ranks, [cut])])
    p = _maximum_p(float(statistic.max()) / math.sqrt(autocorrelation_time(left)), margin / n)
    if p > p_limit or np.abs(left).sum() >= np.abs(detrended(ranks, CURVE)).sum():
        return None
    before, after = float(np.median(values[:cut])), float(np.median(values[cut:]))
    level = np.repeat((before, after), (cut, n - cut))
    finite = np.isfinite(values) & np.isfinite(level)
    size = in_sigmas(after - before, sigma(values[finite] - level[finite]))
    return ChangePoint(int(read[cut]), before, after, size, p) if abs(size) >= 1 else None


def _maximum_p(b: float, edge: float) -> float:
    """P(max |standardised Brownian bridge| > b) over the share edge..1-edge of its time."""
    if b <= 1:
        return 1.0
    density = math.exp(-b * b / 2) / math.sqrt(2 * math.pi)
    return min(1.0, 4 * density / b + 2 * density * (b - 1 / b) * math.log((1 - edge) / edge))


def check_lengths(steps: NDArray[Any], values: NDArray[Any]) -> None:
    """Raise UsageError unless both are 1-d and of one length."""
    if steps.shape != values.shape or values.ndim != 1:
        raise UsageError(f"steps {steps.shape} and values {values.shape} must be 1-d and of one length")


def in_sigmas(change: float, noise: float) -> float:
    """A change in units of the noise; without noise, 0 or infinite."""
    return change / noise if noise > 0 else math.copysign(math.inf, change) if change else 0.0


def centred_ranks(x: Floats) -> Floats:
    """Ranks minus their mean, ties shared: bounded, so that no outlier counts for more than its place."""
    _, place, count = np.unique(x, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[place] - (x.size + 1) / 2, dtype=np.float64)


def detrended(x: Floats, degree: int) -> Floats:
    """x `(n, ...)` without its least-squares polynomial; for bounded values (ranks)."""
    basis = np.linalg.qr(np.polynomial.legendre.legvander(np.linspace(-1, 1, len(x)), degree))[0]
    rest = np.asarray(x - basis @ (basis.T @ x))
    return np.where(np.abs(rest) > 1e-9 * np.abs(x).max(initial=0), rest, 0.0)  # what rounding leaves is no noise


def autocorrelation(x: Floats) -> Floats:
    """Autocorrelation at lags 0 to n - 1, zero for a constant; `(n,)`."""
    spectrum = np.fft.rfft(x - x.mean(), 2 * x.size)
    product = np.fft.irfft(spectrum * spectrum.conj())[: x.size]
    return np.asarray(product / product[0] if product[0] > 0 else np.zeros(x.size))


def lag_one(x: Floats) -> float:
    """Autocorrelation of neighbours; the mean and a fitted step or line bias it down by about (1 + 6 rho) / n."""
    rho = float(autocorrelation(x)[1])
    return min(max(0.0, rho + (1 + 6 * max(rho, 0.0)) / x.size), 1 - 1 / x.size)
