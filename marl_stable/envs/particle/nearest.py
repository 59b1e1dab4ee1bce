"""What viewers see nearest first. Shapes: E copies, V viewers, S seen, F features.

Copies come first here, unlike elsewhere: short rows of what is seen are sorted, and features stay together.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad


class Seen:
    """Places `seen` (E, S, 2) from those of the viewers (E, V, 2).

    `distance` (E, V, S) says in which order; who wants another changes it. What is infinitely far is not seen.
    """

    def __init__(self, viewers: Tensor, seen: Tensor) -> None:
        self._across, self._up = (seen[:, None, :, axis] - viewers[:, :, None, axis] for axis in range(2))
        self.distance: Tensor = (self._across.square() + self._up.square()).sqrt()

    def nearest_first(self, known: Tensor) -> Tensor:
        """`(E, V, S, 2 + F)` float32: offset of each, and what is known of it (E, S, F); equals keep their order."""
        distance, order = self.distance.sort(dim=-1, stable=True)
        copies, count = known.shape[:2]
        first = torch.arange(0, copies * count, count, device=known.device).view(-1, 1, 1)
        rows = pad(known, (2, 0)).flatten(0, 1)  # (E * S, 2 + F), with room for the offset
        features: Tensor = rows[(order + first).flatten()].unflatten(0, order.shape)
        unseen = distance.isinf()
        for axis, offset in enumerate((self._across, self._up)):
            features[..., axis] = offset.gather(2, order).masked_fill_(unseen, 0.0)
        return features
