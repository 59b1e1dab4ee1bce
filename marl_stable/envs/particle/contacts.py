"""Collisions of the particle world: entities that overlap push each other apart.

Shapes: E copies, V movers, M entities, P pairs of entities that can touch.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from marl_stable.envs.particle.geometry import differences, length

FORCE = 100.0
MARGIN = 1e-3


class Contacts:
    """The pairs that can touch, and how far apart they were when last measured.

    `radii` are those of the first entities; the others touch nothing. Of a pair that touches, the movers are pushed.
    One measurement serves the collisions that a step is rewarded for and the forces of the next step.
    """

    def __init__(
        self, radii: Sequence[float], movers: range, entities: int, num_envs: int, device: torch.device
    ) -> None:
        pairs = combinations(range(len(radii)), 2)
        self.pairs = tuple(pair for pair in pairs if pair[0] in movers or pair[1] in movers)
        self._difference = differences(self.pairs, entities).to(device)  # (2P, 2M)
        self._push = self._difference[:, 2 * movers.start : 2 * movers.stop].T  # (2V, 2P)
        reach = [radii[first] + radii[second] for first, second in self.pairs]
        self._reach = torch.tensor(reach, dtype=torch.float64, device=device).unsqueeze(1)  # (P, 1)
        self._apart = torch.zeros(len(self.pairs), 2, num_envs, dtype=torch.float64, device=device)
        self._gap = self._apart[:, 0]

    def measure(self, pos: Tensor) -> None:
        """Take the differences (P, 2, E) and distances (P, E) of all pairs at the places `(2M, E)`."""
        if not self.pairs:
            return
        self._apart = (self._difference @ pos).unflatten(0, (len(self.pairs), 2))
        self._gap = length(self._apart)

    def touching(self) -> Tensor:
        """`(P, E)` float64: 1 where a pair overlaps, else 0."""
        return (self._gap < self._reach).to(torch.float64)

    def add_to(self, force: Tensor) -> Tensor:
        """`force` on the movers `(2V, E)` and that of the contacts: as good as none until a pair overlaps."""
        if not self.pairs:
            return force
        depth = softplus((self._reach - self._gap) / MARGIN, threshold=500) * MARGIN
        contact = self._apart * (FORCE * depth / self._gap).unsqueeze(1)  # (P, 2, E)
        return torch.addmm(force, self._push, contact.flatten(0, 1))
