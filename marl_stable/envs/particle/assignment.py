"""The cheapest assignment of agents to places, in every copy at once and without waiting for the device.

By dynamic programming over sets of places: the first k agents fill a set of k places best by the best of k ways to put
the last of them somewhere and the others into the rest: N * 2^(N-1) sums, where trying all takes N!.

Shapes: E copies, N agents and as many places, S sets of k places.
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

MOST = 10
"""With 10 agents a step sums 5,120 numbers per copy, and every further agent doubles that."""


class Assignment:
    """Which places N agents share out at least distance; `MOST` agents at most."""

    def __init__(self, count: int, device: torch.device) -> None:
        self._layers = [(rest.to(device), last.to(device)) for rest, last in _layers(count)]

    def price(self, distance: Tensor, price: Tensor) -> Tensor:
        """`(E,)`: what all pay at their places; `distance` and `price` (N, N, E) are of each agent at each place.

        Where several assignments have the least distance, the price is that of one of them.
        """
        total = distance.new_zeros(1, distance.shape[-1])  # (S, E): the least distance that fills each set of places
        paid = torch.zeros_like(total)
        for away, due, (rest, last) in zip(distance, price, self._layers, strict=True):
            total, way = (total[rest] + away[last]).min(dim=1)  # over (S, k, E)
            paid = (paid[rest] + due[last]).gather(1, way.unsqueeze(1)).squeeze(1)
        return paid[0]


def _layers(count: int) -> list[tuple[Tensor, Tensor]]:
    """For k = 1 to N, of each set of k places (S, k): the number of the set without one of them, and that one."""
    layers = []
    smaller: dict[tuple[int, ...], int] = {(): 0}
    for size in range(1, count + 1):
        sets = list(combinations(range(count), size))
        rest = [[smaller[members[:i] + members[i + 1 :]] for i in range(size)] for members in sets]
        layers.append((torch.tensor(rest), torch.tensor(sets)))
        smaller = {members: number for number, members in enumerate(sets)}
    return layers
