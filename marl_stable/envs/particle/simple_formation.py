"""`particle/simple_formation_v1`. Shapes: E copies, N agents and as many places; the landmark is entity N."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from marl_stable.envs.particle.assignment import MOST
from marl_stable.envs.particle.formation import Formation
from marl_stable.envs.particle.geometry import differences
from marl_stable.envs.particle.world import ParticleEnv, actions, require_count
from marl_stable.types import EnvSpec, Group, PerGroup


class SimpleFormation(ParticleEnv):
    """N agents spread evenly on a circle around the landmark, begun at the one with the smallest angle."""

    AGENT = 0.05
    CIRCLE = 0.5

    def __init__(
        self,
        num_envs: int,
        device: torch.device,
        N: int = 4,  # noqa: N803 - mpe2's name
        max_cycles: int = 25,
        continuous_actions: bool = False,
    ) -> None:
        require_count("N", N, most=MOST, more="; mpe2/simple_formation_v1 takes more")
        names = tuple(f"agent_{i}" for i in range(N))
        group = Group("agent", names, 6, actions(5, continuous_actions), "team")
        spec = EnvSpec("particle/simple_formation_v1", names, (group,))
        radii = [self.AGENT] * N
        super().__init__(spec, num_envs, device, max_cycles, entities=N + 1, movers=range(N), radii=radii)
        self.agents, self._formation = N, Formation(N, device)
        self._from_landmark = differences([(i, N) for i in range(N)], self.entities).to(device)
        self._angles = self._constant([[i * 2 * math.pi / N] for i in range(N)])  # (N, 1)
        sight = self.sight
        rows = [row for i in range(N) for row in (sight.velocity(i), sight.position(i), sight.offset(N, i))]
        self._view = torch.cat(rows).to(device)

    def _begin(self) -> None:
        pos = self._draw(2 * self.entities)
        pos[2 * self.agents :] *= 0.5  # the landmark lies near the middle
        self._place(pos)

    def _advance(self, action: PerGroup) -> PerGroup:
        self._move(self._push(action["agent"]))
        offset = (self._from_landmark @ self.pos).unflatten(0, (self.agents, 1, 2))  # (N, 1, 2, E)
        away = offset - self._places(offset[:, 0])  # (N, N, 2, E)
        return {"agent": self._formation.reward(away.flatten(0, 2))}

    def _places(self, offset: Tensor) -> Tensor:
        """`(N, 2, E)`: where agents should be, relative to the landmark as `offset` (N, 2, E) is."""
        angle = torch.atan2(offset[:, 1], offset[:, 0]).remainder(2 * math.pi)  # (N, E)
        angles = angle.amin(dim=0) + self._angles
        return torch.stack([angles.cos(), angles.sin()], dim=1) * self.CIRCLE

    def _observe(self) -> PerGroup:
        return {"agent": self._see(self._view, self.agents)}
