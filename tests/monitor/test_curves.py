"""What whole curves did: collapses, cycles and trends that are found, and curves of which nothing is to be said."""

from __future__ import annotations

import math
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest

from marl_stable.monitor import curves
from marl_stable.monitor.curves import drop_after_peak, oscillation, running_median, trend
from marl_stable.types import UsageError
from tests.monitor.series import KINDS, ROWS, autoregressive, healthy, learning

# Collapse


@pytest.mark.parametrize("rows", [50, 200, 1000])
def test_a_collapse_has_its_peak_onset_and_depth(rows):
    t = np.linspace(0, 1, rows)
    curve = np.minimum(1, 3 * t) - 0.6 * np.clip((t - 0.7) / 0.05, 0, 1)
    steps = 500 * np.arange(rows)
    for seed in range(8):
        found = drop_after_peak(steps, curve + 0.08 * np.random.default_rng(seed).standard_normal(rows), baseline=0.0)
        assert found is not None
        assert 0.3 * steps[-1] <= found.peak_step <= 0.72 * steps[-1]
        assert 0.66 * steps[-1] <= found.onset_step <= 0.76 * steps[-1]
        assert found.depth == pytest.approx(0.6, abs=0.15)


def test_a_dip_that_recovered_and_a_shallow_drop_are_no_collapse():
    t = np.linspace(0, 1, 200)
    noise = 0.05 * np.random.default_rng(0).standard_normal(200)
    dip = np.minimum(1, 3 * t) - 0.8 * ((t > 0.6) & (t < 0.8))
    assert drop_after_peak(np.arange(200), dip + noise, 0.0) is None
    shallow = np.minimum(1, 3 * t) - 0.2 * (t > 0.7)
    assert drop_after_peak(np.arange(200), shallow + noise, 0.0) is None
    assert drop_after_peak(np.arange(200), shallow + noise, 0.0, min_depth=0.1) is not None


def test_nothing_is_told_of_numbers_whose_differences_overflow():
    rows, signs = np.arange(40), np.sign(np.random.default_rng(0).standard_normal(40))
    for values in (np.ones(40), signs, np.where(rows < 20, 1.7, -1.7)):
        assert drop_after_peak(rows, 1e308 * values) is None


def test_a_collapse_does_not_depend_on_units():
    t = np.linspace(0, 1, 200)
    y = np.minimum(1, 3 * t) - 0.7 * (t > 0.8) + 0.05 * np.random.default_rng(1).standard_normal(200)
    found, scaled = drop_after_peak(np.arange(200), y, 0.0), drop_after_peak(np.arange(200), 1e4 * y - 1e6, -1e6)
    assert found is not None
    assert scaled is not None
    assert found[:2] == scaled[:2]
    assert found.depth == pytest.approx(scaled.depth)


def slow_median(x, width):
    half = width // 2
    return [np.median(x[max(0, t - half) : t + half + 1]) for t in range(len(x))]


@pytest.mark.parametrize(("rows", "width"), [(0, 5), (1, 5), (2, 10), (11, 1), (12, 4), (50, 49), (200, 40), (300, 61)])
def test_a_running_median_is_that_of_each_window(rows, width):
    x = np.random.default_rng(rows).standard_t(2, rows)
    for values in (x, x.round(), np.where(np.abs(x) > 2, np.inf, x)):
        assert np.array_equal(running_median(values, width), slow_median(values, width))


def test_a_run_of_30000_readings_is_read_in_seconds_and_in_little_memory():
    rows, began = 30_000, time.process_time()
    assert drop_after_peak(np.arange(rows), np.random.default_rng(0).standard_normal(rows)) is None
    assert time.process_time() - began < 5  # 10 and more, where each window is sorted by itself
    tracemalloc.start()
    try:
        running_median(np.random.default_rng(0).standard_normal(rows), rows // 5)
        assert tracemalloc.get_traced_memory()[1] < 20e6  # windows side by side hold 1.4e9
    finally:
        tracemalloc.stop()


# Oscillation and trend


@pytest.mark.parametrize("period", [2, 10, 40])
def test_an_oscillation_has_its_period(period):
    t = np.arange(200)
    y = np.cos(2 * np.pi * t / period) + 0.5 * np.random.default_rng(0).standard_normal(200) + 0.01 * t
    found = oscillation(y)
    assert found is not None
    cycles = found.lag / period
    assert abs(cycles - max(1, round(cycles))) < 0.1
    assert found.strength > 0.4
    assert found.p_value == 0.005


@pytest.mark.parametrize("kind", KINDS)
def test_red_noise_is_no_oscillation(kind):
    assert np.mean([oscillation(x) is not None for x in healthy()[kind]]) <= 0.1


def test_trends_are_told_from_wandering():
    steps = 250 * np.arange(ROWS)
    for kind, series in healthy().items():
        assert np.mean([abs(trend(steps, x).z) > 3 for x in series]) <= 0.05, kind
    for sign in (1, -1):
        found = trend(steps, healthy()["independent"][0] + sign * 1e-5 * steps)
        assert found.slope == pytest.approx(sign * 1e-5, rel=0.2)
        assert sign * found.z > 5
        assert sign * found.change > 1


def test_a_trend_of_many_rows_and_one_without_noise():
    steps = np.arange(5000.0)
    found = trend(steps, 1e-3 * steps + np.random.default_rng(0).normal(size=5000))
    assert found.slope == pytest.approx(1e-3, rel=0.1)
    exact = trend(np.arange(100), np.linspace(0, 198, 100))
    assert exact.slope == pytest.approx(2)
    assert exact.change > 1e6  # rounding is all the noise there is
    assert exact.z > 9


# What says nothing


@pytest.mark.parametrize("rows", [50, 200, 600])
@pytest.mark.parametrize("kind", ["rising", "saturating", "plateau", "flat"])
def test_healthy_learning_neither_collapses_nor_cycles(kind, rows):
    for seed in range(10):
        y = learning(kind, rows, seed)
        assert drop_after_peak(1000 * np.arange(rows), y, baseline=-0.5) is None, seed
        assert oscillation(y) is None, seed


def test_a_trend_passes_over_nan():
    x = autoregressive(0.0, 5, rows=300, series=1, seed=10)[0]
    gaps = np.full(600, np.nan)
    gaps[::2] = x
    assert trend(np.arange(600), gaps).slope == pytest.approx(trend(np.arange(300), x).slope / 2)


def test_one_outlier_moves_no_trend():
    x = autoregressive(0.0, 5, rows=200, series=1, seed=12)[0]
    spiked = x.copy()
    spiked[100] = 1e6
    assert trend(np.arange(200), spiked).slope == pytest.approx(trend(np.arange(200), x).slope, abs=1e-4)


@pytest.mark.parametrize("constant", [0.0, 1e-6, -3.0, 1e9])
def test_a_constant_curve_says_nothing(constant):
    x, steps = np.full(100, constant), np.arange(100)
    assert oscillation(x) is None
    assert drop_after_peak(steps, x) is None
    assert trend(steps, x) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("fill", [1.0, math.nan, math.inf, None])
@pytest.mark.parametrize("rows", range(6))
def test_curves_of_few_rows_say_nothing_and_raise_nothing(rows, fill):
    x = np.full(rows, fill) if fill is not None else np.arange(rows, dtype=np.float64)
    steps = np.arange(rows)
    assert oscillation(x) is None
    assert drop_after_peak(steps, x) is None
    assert trend(steps, x) == (0.0, 0.0, 0.0)
    assert running_median(np.nan_to_num(x, posinf=0), 3).shape == x.shape


def test_steps_and_values_must_match():
    for call in (trend, drop_after_peak):
        with pytest.raises(UsageError, match="one length"):
            call(np.arange(3), np.zeros(4))


def test_no_torch_is_needed():
    code = f"import {curves.__name__}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
