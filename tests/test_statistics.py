"""Statistics over seeds."""

from __future__ import annotations

import numpy as np
from scipy.stats import trim_mean

from marl_stable.statistics import interquartile_interval, interquartile_mean


def test_the_interquartile_mean_is_scipys() -> None:
    draw = np.random.default_rng(1)
    for size in (1, 2, 3, 4, 5, 8, 11):
        values = draw.normal(size=(6, size))
        np.testing.assert_allclose(interquartile_mean(values), trim_mean(values, 0.25, axis=1), rtol=1e-12)
    low, high = interquartile_interval(values[0])
    again = trim_mean(np.random.default_rng(0).choice(values[0], (2000, 11)), 0.25, axis=1)
    np.testing.assert_allclose([low, high], np.percentile(again, [2.5, 97.5]), rtol=1e-12)
    assert low < float(interquartile_mean(values[0])) < high
