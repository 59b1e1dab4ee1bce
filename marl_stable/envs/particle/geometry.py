"""Constant matrices that turn the state of the particle world into differences and observations.

Shapes: E copies, V movers, M entities, K vectors. State is features x copies, so that each operation runs over
contiguous copies: rows of `pos` (2M, E) are x0, y0, x1, y1, ... of every entity, rows of `vel` (2V, E) those of every
mover.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def length(vectors: Tensor) -> Tensor:
    """Euclidean length (K, E) of vectors (K, 2, E)."""
    return vectors.square().sum(dim=1).sqrt()


def differences(pairs: Iterable[tuple[int, int]], entities: int) -> Tensor:
    """`(2K, 2M)` float64, to multiply `pos` with: x and y of the first entity minus the second, pair by pair."""
    sight = Sight(range(0), entities)
    rows = [sight.offset(first, second) for first, second in pairs]
    return torch.cat([torch.zeros(0, 2 * entities, dtype=torch.float64), *rows])


class Sight:
    """Rows of the constant matrix that turns `cat([vel, pos])` into features: each method gives two, for x and y."""

    def __init__(self, movers: range, entities: int) -> None:
        self.movers, self.entities = movers, entities

    def velocity(self, mover: int) -> Tensor:
        """How fast the entity moves."""
        return self._pick(self.movers.index(mover))

    def position(self, entity: int) -> Tensor:
        """Where it is."""
        return self._pick(len(self.movers) + entity)

    def offset(self, entity: int, viewer: int) -> Tensor:
        """Where it is, seen from the viewer."""
        return self.position(entity) - self.position(viewer)

    def nothing(self) -> Tensor:
        """Two zeros."""
        return torch.zeros(2, 2 * (len(self.movers) + self.entities), dtype=torch.float64)

    def _pick(self, slot: int) -> Tensor:
        rows = self.nothing()
        rows[0, 2 * slot] = rows[1, 2 * slot + 1] = 1.0
        return rows
