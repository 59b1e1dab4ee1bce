"""Statistics over seeds, as Agarwal et al. 2021 advise for the few that there usually are.

Shapes: N values, of one seed each. Loads no torch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BOOTSTRAP_SAMPLES = 2_000


def interquartile_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean without the lowest and the highest quarter, over the last axis; of fewer than four values, of all.

    scipy's trim_mean does the same, and takes a second to import.
    """
    cut = values.shape[-1] // 4
    middle: NDArray[np.float64] = np.sort(values)[..., cut : values.shape[-1] - cut]
    return np.asarray(middle.mean(axis=-1))


def interquartile_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """95% percentile interval of the interquartile mean over resampled `values (N,)`; the same for the same values."""
    draws = np.random.default_rng(0).choice(values, (BOOTSTRAP_SAMPLES, len(values)))
    low, high = np.percentile(interquartile_mean(draws), [2.5, 97.5])
    return float(low), float(high)
