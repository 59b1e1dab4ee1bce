"""Means, deviations and percentiles over the rows that count: those in which an agent was there.

Shapes: N rows, A agents. `x (N, A, ...)` becomes `(A, ...)`; `alive (N, A)` is true where a row counts, None where all
do. Without a row that counts the answer is NaN: not read.
"""

from __future__ import annotations

import torch
from torch import Tensor

GOLDEN = 0.6180339887498949  # whose multiples fill the unit interval evenly


def mean(x: Tensor, alive: Tensor | None) -> Tensor:
    """`(A, ...)` mean over rows; integers and truth values become shares."""
    x = x if x.is_floating_point() else x.float()
    if alive is None:
        return x.mean(0)
    counts = _as(alive, x)
    return torch.where(counts, x, 0.0).sum(0) / counts.sum(0)


def deviation(x: Tensor, alive: Tensor | None) -> Tensor:
    """`(A, ...)` standard deviation over rows, of the population."""
    return mean((x - mean(x, alive)).square(), alive).sqrt()


def percentile(x: Tensor, share: float, alive: Tensor | None, above: int = 0) -> Tensor:
    """`(A, ...)` the smallest value that at least `share` of the rows do not exceed, but for so many (`above`) of the
    largest at the least; `torch.quantile` may wait."""
    counts = torch.ones_like(x, dtype=torch.bool) if alive is None else _as(alive, x).expand_as(x)
    ordered = torch.where(counts, x, torch.inf).sort(0).values
    n = counts.sum(0, keepdim=True)
    rank = torch.minimum((n * share).ceil().long(), n - above).clamp_min(1) - 1
    return torch.where(n > 0, ordered.gather(0, rank), torch.nan).squeeze(0)


def _as(alive: Tensor, x: Tensor) -> Tensor:
    return alive.reshape(*alive.shape, *(1,) * (x.dim() - alive.dim()))


def spread(rows: int, most: int, device: torch.device) -> Tensor:
    """Indices of at most so many rows, one in each of as many equal parts, at places that follow no period.

    Every n-th row would miss an agent that acts in every other step.
    """
    if rows <= most:
        return torch.arange(rows, device=device)
    part = torch.arange(most, dtype=torch.float64, device=device)
    return ((part + part * GOLDEN % 1) * (rows / most)).long().clamp_max(rows - 1)
