"""`particle/simple_line_v1`. Shapes: E copies, N agents and as many places, C directions.

Entities: the agents, and the two landmarks that are the ends of the line.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from marl_stable.envs.particle.formation import FormationEnv
from marl_stable.envs.particle.geometry import Sight


class SimpleLine(FormationEnv):
    """N agents spread evenly on the line between two landmarks, ends included."""

    NAME = "simple_line_v1"
    RADIUS = 0.03
    LANDMARKS = 2
    LINE = 1.25

    def _prepare(self) -> None:
        self._from_places = _from_places(self.agents).to(self.device)
        self._turns = self._constant([[math.radians(5 * i)] for i in range(72)])  # (C, 1)

    def _begin(self) -> None:
        pos = self._draw(2 * self.entities)
        agents, first, angle = pos.split([2 * self.agents, 2, 2])
        first = first * 0.25  # near the middle
        self._place(torch.cat([agents, first, self._other_end(first, angle[0] * math.pi)]))

    def _other_end(self, first: Tensor, angle: Tensor) -> Tensor:
        """`(2, E)`: the end of a line from `first` (2, E) at an `angle` (E,), turned by 5 degrees until inside."""
        angles = angle + self._turns
        ends = first + torch.stack([angles.cos(), angles.sin()], dim=1) * self.LINE  # (C, 2, E)
        inside = (ends.abs() < 1).all(dim=1)  # (C, E)
        which = inside.to(torch.int64).argmax(dim=0)  # the first of them
        found: Tensor = ends.gather(0, which.expand(1, 2, -1))[0]
        return found

    def _away(self) -> Tensor:
        return self._from_places @ self.pos


def _from_places(n: int) -> Tensor:
    """`(2NN, 2M)`, to multiply `pos` with: each agent less each place between the landmarks."""
    sight, rows = Sight(range(0), n + 2), []
    parts = [place / max(n - 1, 1) for place in range(n)]  # of the way from the first landmark to the other
    for agent in range(n):
        for part in parts:
            place = (1 - part) * sight.position(n) + part * sight.position(n + 1)
            rows.append(sight.position(agent) - place)
    return torch.cat(rows)
