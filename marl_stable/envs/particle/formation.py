"""What agents pay that should stand in a formation: the mean distance from their places, shared out at least distance.

Shapes: E copies, N agents and as many places.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marl_stable.envs.particle.assignment import Assignment
from marl_stable.envs.particle.geometry import length

FARTHEST = 2.0


class Formation:
    """N agents and their places."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.count = count
        self._assignment = Assignment(count, device)

    def reward(self, away: Tensor) -> Tensor:
        """`(E, N)` float32, the same for all: minus the mean distance, of which each counts up to 2.

        `away` (2NN, E) is x and y of each agent less those of each place, agent by agent.
        """
        distance = length(away.unflatten(0, (-1, 2))).unflatten(0, (self.count, self.count))
        paid = self._assignment.price(distance, distance.clamp(max=FARTHEST)) / self.count
        return -paid.to(torch.float32).unsqueeze(1).repeat(1, self.count)
