"""Series to calibrate detectors on: autocorrelated noise with heavy tails, shifts of it, and curves of learning."""

from __future__ import annotations

from functools import cache

import numpy as np

from marl_stable.monitor.calibration import sigma

ROWS, SERIES = 300, 20
KINDS = {"independent": (0.0, 5), "rho 0.8": (0.8, 5), "rho 0.95": (0.95, 4)}


def autoregressive(rho: float, df: int, rows: int = ROWS, series: int = SERIES, seed: int = 0) -> np.ndarray:
    """AR(1) series with Student-t innovations, settled; `(series, rows)`."""
    noise = 0.3 * np.random.default_rng(seed).standard_t(df, (rows + 200, series))
    for t in range(1, len(noise)):
        noise[t] += rho * noise[t - 1]
    return np.asarray(noise[200:].T)


@cache
def healthy() -> dict[str, np.ndarray]:
    """Of each kind, series in which nothing happens."""
    return {kind: autoregressive(*parameters) for kind, parameters in KINDS.items()}


def shifted(x: np.ndarray, row: int, sigmas: float) -> np.ndarray:
    """The series, higher from `row` on."""
    return np.asarray(x + sigmas * sigma(x) * (np.arange(x.size) >= row))


def learning(kind: str, rows: int, seed: int) -> np.ndarray:
    """A return curve of training that goes well; `(rows,)`."""
    t = np.linspace(0, 1, rows)
    curve = {"rising": t, "saturating": 1 - np.exp(-4 * t), "plateau": np.minimum(1, 5 * t), "flat": 0 * t}[kind]
    return np.asarray(curve + 0.1 * np.random.default_rng(seed).standard_t(5, rows))


def far(z: np.ndarray, limit: float) -> np.ndarray:
    """Rows beyond `limit`; what was not read is not."""
    return np.asarray(np.abs(np.nan_to_num(z)) > limit)
