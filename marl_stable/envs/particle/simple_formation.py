"""`particle/simple_formation_v1`. Shapes: E copies, N agents and as many places; the landmark is entity N."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from marl_stable.envs.particle.formation import FormationEnv
from marl_stable.envs.particle.geometry import differences


class SimpleFormation(FormationEnv):
    """N agents spread evenly on a circle around the landmark, begun at the one with the smallest angle."""

    NAME = "simple_formation_v1"
    RADIUS = 0.05
    LANDMARKS = 1
    CIRCLE = 0.5

    def _prepare(self) -> None:
        n = self.agents
        self._from_landmark = differences([(i, n) for i in range(n)], self.entities).to(self.device)
        self._angles = self._constant([[i * 2 * math.pi / n] for i in range(n)])  # (N, 1)

    def _begin(self) -> None:
        pos = self._draw(2 * self.entities)
        pos[2 * self.agents :] *= 0.5  # the landmark lies near the middle
        self._place(pos)

    def _away(self) -> Tensor:
        offset = (self._from_landmark @ self.pos).unflatten(0, (self.agents, 1, 2))  # (N, 1, 2, E)
        away: Tensor = offset - self._places(offset[:, 0])  # (N, N, 2, E)
        return away.flatten(0, 2)

    def _places(self, offset: Tensor) -> Tensor:
        """`(N, 2, E)`: where agents should be, relative to the landmark as `offset` (N, 2, E) is."""
        angle = torch.atan2(offset[:, 1], offset[:, 0]).remainder(2 * math.pi)  # (N, E)
        angles = angle.amin(dim=0) + self._angles
        return torch.stack([angles.cos(), angles.sin()], dim=1) * self.CIRCLE
