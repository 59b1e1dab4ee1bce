"""Forests hide agents: who is in which, who sees whom, and which features of an observation that concerns.

Shapes: E copies, N agents, A of one group, F forests, O observation features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from marl_stable.envs.particle.geometry import Sight, differences, length

RADIUS = 0.3


class Forests:
    """The forests `places` among the entities, and the agents, of these `radii`, that come first among them."""

    def __init__(self, radii: Sequence[float], places: range, entities: int, device: torch.device) -> None:
        self.agents, self.count = len(radii), len(places)
        pairs = [(agent, place) for agent in range(self.agents) for place in places]
        self._differences = differences(pairs, entities).to(device)
        self._reach = torch.tensor(radii, dtype=torch.float64, device=device).view(-1, 1, 1) + RADIUS

    def inside(self, pos: Tensor) -> Tensor:
        """`(N, F, E)`: whether each agent is in each forest."""
        away = (self._differences @ pos).unflatten(0, (self.agents * self.count, 2))
        apart: Tensor = length(away).unflatten(0, (self.agents, self.count))  # (N, F, E)
        return apart.lt(self._reach)

    def visible(self, inside: Tensor) -> Tensor:
        """`(N, N, E)`: whether each agent (first) sees each other: in the same forest, or both in none."""
        together = (inside.unsqueeze(1) & inside.unsqueeze(0)).any(dim=2)
        outside = ~inside.any(dim=1)  # (N, E)
        return together | (outside.unsqueeze(1) & outside.unsqueeze(0))


class Eyes:
    """What the `viewers`, agents of one group, would see without forests, and whom each feature is about.

    `view` (A * O, 2V + 2M) makes the features of the state: own velocity and position, landmarks and others relative to
    the viewer, and from number `moving` on the velocities of good others. `about` (A * O,) says for each feature which
    pair of viewer and seen it is about, as a place in `Forests.visible`, flattened; everybody sees itself.
    """

    def __init__(self, viewers: range, good: range, agents: int, sight: Sight, device: torch.device) -> None:
        rows: list[Tensor] = []
        about: list[int] = []
        for i in viewers:
            others = [j for j in range(agents) if j != i]
            seen = [(sight.velocity(i), i), (sight.position(i), i)]
            seen += [(sight.offset(landmark, i), i) for landmark in range(agents, sight.entities)]
            seen += [(sight.offset(j, i), j) for j in others]
            seen += [(sight.velocity(j), j) for j in others if j in good]
            rows += [row for row, _ in seen]
            about += [i * agents + j for _, j in seen for _ in range(2)]
        self.viewers = slice(viewers.start, viewers.stop)
        self.view = torch.cat(rows).to(device)
        self.about = torch.tensor(about, device=device)
        self.moving = 2 * (2 + sight.entities - 1)  # after velocity and position, and offsets of all but the viewer
