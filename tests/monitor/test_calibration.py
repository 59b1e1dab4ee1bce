"""Statistics that calibrate detectors: false alarms and power on autocorrelated heavy tails, and what is no fault."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from marl_stable.monitor import calibration
from marl_stable.monitor.calibration import (
    autocorrelation_time,
    change_point,
    cusum,
    onset,
    persistent,
    robust_z,
    sigma,
)
from marl_stable.types import UsageError
from tests.monitor.series import KINDS, autoregressive, far, healthy, learning, shifted

# False alarms and power


@pytest.mark.parametrize("kind", KINDS)
def test_three_sigmas_alarm_on_nearly_every_healthy_series_and_eight_with_persistence_on_nearly_none(kind):
    z = [robust_z(x) for x in healthy()[kind]]
    assert np.mean([far(row, 3).any() for row in z]) >= 0.8
    assert np.mean([persistent(far(row, 8)).any() for row in z]) <= 0.05


@pytest.mark.parametrize(("kind", "at_most"), [("independent", 0.0), ("rho 0.8", 0.0), ("rho 0.95", 0.15)])
def test_textbook_cusum_alarms_under_autocorrelation_and_these_constants_seldom(kind, at_most):
    z = [robust_z(x) for x in healthy()[kind]]
    assert np.mean([cusum(row).alarm.any() for row in z]) <= at_most
    textbook = np.mean([cusum(row, k=0.5, h=8).alarm.any() for row in z])
    assert textbook >= (0.9 if kind != "independent" else 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_shift_by_twelve_sigmas_is_seen_at_its_third_row(kind):
    alarms = [persistent(far(robust_z(shifted(x, 150, 12)), 8)) for x in autoregressive(*KINDS[kind], seed=1)]
    delays = [np.flatnonzero(alarm[150:])[0] + 1 for alarm in alarms]
    assert np.median(delays) == 3
    assert max(delays) <= 10


def test_cusum_finds_a_shift_by_three_sigmas_its_start_and_its_direction():
    delays, starts = [], []
    for i, x in enumerate(autoregressive(0.0, 5, rows=500, seed=2)):
        found = cusum(robust_z(shifted(x, 300, -3 if i % 2 else 3)))
        assert found.direction == (-1 if i % 2 else 1)
        assert found.start is not None
        delays.append(np.flatnonzero(found.alarm)[0] - 300)
        starts.append(abs(found.start - 300))
    assert 33 <= np.median(delays) <= 50
    assert np.median(starts) <= 1
    assert max(starts) <= 6


def test_a_window_of_100_rows_loses_shifts_that_the_default_finds():
    """The reason for WINDOW: what shifts slowly fills a short window before it has added up."""
    series = [shifted(x, 300, 3) for x in autoregressive(0.8, 5, rows=500, seed=3)]
    found = [np.mean([cusum(robust_z(x, window=w)).alarm.any() for x in series]) for w in (100, 500)]
    assert found[0] <= 0.6 < 0.8 <= found[1]


@pytest.mark.parametrize("kind", KINDS)
def test_change_points_are_honest_under_autocorrelation(kind):
    assert np.mean([change_point(x) is not None for x in healthy()[kind]]) <= 0.05
    short = autoregressive(*KINDS[kind], rows=50, series=60, seed=4)
    assert np.mean([change_point(x) is not None for x in short]) <= 0.05


def test_change_points_are_found_where_they_are():
    series = autoregressive(0.0, 5, rows=100, seed=5)
    results = [(x, change_point(shifted(x, 70, 3))) for x in series]
    assert sum(found is None for _, found in results) <= 1
    for x, found in results:
        if found is None:
            continue
        assert abs(found.row - 70) <= 2
        assert 2 < found.size < 5
        assert found.after - found.before == pytest.approx(3 * sigma(x), rel=0.35)
        assert found.p_value < 1e-3
    slow = [change_point(shifted(x, 600, 4)) for x in autoregressive(0.8, 5, rows=1000, seed=5)]
    assert np.mean([found is not None and abs(found.row - 600) <= 10 for found in slow]) >= 0.9


def test_a_change_point_near_the_end_is_found():
    x = shifted(autoregressive(0.0, 5, rows=200, series=1, seed=6)[0], 185, 4)
    found = change_point(x)
    assert found is not None
    assert abs(found.row - 185) <= 1


def test_the_autocorrelation_time_is_that_of_the_process():
    assert np.median([autocorrelation_time(x) for x in autoregressive(0.0, 5, rows=2000, seed=7)]) < 1.5
    assert 7 < np.median([autocorrelation_time(x) for x in autoregressive(0.8, 5, rows=2000, seed=7)]) < 13  # 9


# What is no fault


@pytest.mark.parametrize("rows", [50, 200, 600])
@pytest.mark.parametrize("kind", ["rising", "saturating", "plateau", "flat"])
def test_no_alarm_on_healthy_learning_curves(kind, rows):
    for seed in range(10):
        z = robust_z(learning(kind, rows, seed))
        assert not persistent(far(z, 8)).any(), seed
        assert not cusum(z).alarm.any(), seed


@pytest.mark.parametrize("slope", [1e-3, 1.0, -50.0])
def test_a_straight_ramp_of_any_slope_stays_below_the_cusum(slope):
    x = slope * np.arange(400.0)
    z = robust_z(x, floor=0.0)
    assert np.nanmax(np.abs(z)) < 1.44
    assert not cusum(z).alarm.any()
    assert change_point(x) is None
    assert change_point(np.sqrt(np.arange(400.0))) is None


# Windows, gaps and outliers


def test_the_window_is_frozen_while_alarmed_so_that_a_fault_does_not_become_normal():
    x = shifted(autoregressive(0.0, 5, rows=900, series=1, seed=8)[0], 100, 20)
    assert far(robust_z(x, window=50), 8)[100:].mean() > 0.99
    thawed = robust_z(x, window=50, limit=np.inf)
    assert not far(thawed, 8)[200:].any()


def test_after_the_fault_the_old_normal_still_holds():
    x = autoregressive(0.0, 5, rows=300, series=1, seed=9)[0]
    faulty = x.copy()
    faulty[100:200] += 100
    assert np.array_equal(robust_z(faulty)[200:], robust_z(np.delete(x, np.s_[100:200]))[100:])


def test_nan_is_passed_over():
    x = shifted(autoregressive(0.0, 5, rows=300, series=1, seed=10)[0], 200, 9)
    gaps = np.full(600, np.nan)
    gaps[::2] = x
    assert np.array_equal(robust_z(gaps)[::2], robust_z(x), equal_nan=True)
    assert np.isnan(robust_z(gaps)[1::2]).all()
    whole, gappy = cusum(robust_z(x)), cusum(robust_z(gaps))
    assert np.array_equal(gappy.alarm[::2], whole.alarm)
    assert gappy.alarm[1::2].tolist() == whole.alarm.tolist()  # an alarm lasts through rows that were not read
    found, same = change_point(x), change_point(gaps)
    assert found is not None
    assert same is not None
    assert same == found._replace(row=2 * found.row)
    assert autocorrelation_time(gaps) == autocorrelation_time(x)


def test_infinite_values_are_far_out_and_never_enter_the_window():
    x = autoregressive(0.0, 5, rows=100, series=1, seed=11)[0]
    x[[3, 50, 51]] = np.inf, np.inf, -np.inf
    z = robust_z(x)
    assert (z[50], z[51]) == (np.inf, -np.inf)
    assert np.isfinite(z[52:]).all()
    assert not cusum(z).alarm.any()
    late = x.copy()
    late[80:] = np.inf
    found = change_point(late)
    assert found is not None
    assert (found.row, found.after, found.size) == (80, np.inf, np.inf)


def test_one_outlier_moves_neither_cusum_nor_change_point():
    spiked = autoregressive(0.0, 5, rows=200, series=1, seed=12)[0]
    spiked[100] = 1e6
    assert not cusum(robust_z(spiked)).alarm.any()
    assert not persistent(far(robust_z(spiked), 8)).any()
    assert change_point(spiked) is None


def test_the_alarm_ends_soon_after_the_shift():
    z = np.concatenate((np.zeros(50), np.full(300, 4.0), np.zeros(50)))
    alarm = cusum(z).alarm
    first, last = np.flatnonzero(alarm)[[0, -1]]
    assert first == 50 + 20  # 20 rows add 50.0 to the sum, the next exceeds it
    assert 350 <= last <= 356
    assert cusum(z).start == 50
    assert cusum(-z).direction == -1


@pytest.mark.parametrize("constant", [0.0, 1e-6, -3.0, 1e9])
def test_a_constant_series_says_nothing(constant):
    x = np.full(100, constant)
    assert not np.nan_to_num(robust_z(x)).any()
    assert change_point(x) is None
    assert autocorrelation_time(x) == 1


@pytest.mark.parametrize("fill", [1.0, math.nan, math.inf, None])
@pytest.mark.parametrize("rows", range(6))
def test_series_of_few_rows_say_nothing_and_raise_nothing(rows, fill):
    x = np.full(rows, fill) if fill is not None else np.arange(rows, dtype=np.float64)
    assert robust_z(x).shape == x.shape
    assert persistent(np.zeros(rows, dtype=bool)).shape == x.shape
    assert cusum(x).alarm.shape == x.shape
    assert change_point(x) is None
    assert sigma(np.nan_to_num(x, posinf=0)) >= 0
    assert autocorrelation_time(np.nan_to_num(x, posinf=0)) >= 1


@pytest.mark.parametrize(("burn_in", "window"), [(1, 10), (20, 10)])
def test_an_impossible_burn_in_is_one_sentence(burn_in, window):
    with pytest.raises(UsageError, match=f"burn_in {burn_in} .* window of {window}"):
        robust_z(np.zeros(3), window=window, burn_in=burn_in)


# Persistence and onset


def test_persistence_needs_three_of_the_last_five():
    mask = np.array([1, 1, 0, 0, 1, 0, 0, 1, 0, 1, 1], dtype=bool)
    assert persistent(mask).tolist() == [False] * 4 + [True] + [False] * 5 + [True]
    assert persistent(np.ones(3, dtype=bool)).tolist() == [False, False, True]


def test_the_onset_is_the_first_of_three_reads_running():
    steps = 100 * np.arange(8)
    assert onset(np.array([0, 1, 1, 0, 1, 1, 1, 0], dtype=bool), steps) == 400
    assert onset(np.array([1, 1, 1, 0, 1, 1, 1, 1], dtype=bool), steps) == 0
    assert onset(np.array([1, 1, 0, 0, 0, 0, 1, 1], dtype=bool), steps) is None
    assert onset(np.zeros(0, dtype=bool), np.zeros(0)) is None


def test_steps_and_rows_of_an_onset_must_match():
    with pytest.raises(UsageError, match="one length"):
        onset(np.zeros(4, dtype=bool), np.arange(3))


def test_no_torch_is_needed():
    code = f"import {calibration.__name__}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
