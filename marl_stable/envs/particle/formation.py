"""What tasks share in which agents should stand in a formation: who takes part, what all see, and what they pay.

Shapes: E copies, N agents and as many places, L landmarks that say where the places are. Landmarks are the entities
from N on.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from marl_stable.envs.particle.assignment import MOST, Assignment
from marl_stable.envs.particle.geometry import length
from marl_stable.envs.particle.world import ParticleEnv, actions, require_count
from marl_stable.types import EnvSpec, Group, PerGroup

FARTHEST = 2.0


class FormationEnv(ParticleEnv):
    """N agents, who each pay their mean distance from the places, shared out so that it is least; up to 2 for each."""

    NAME: ClassVar[str]
    RADIUS: ClassVar[float]  # of an agent
    LANDMARKS: ClassVar[int]

    def __init__(
        self,
        num_envs: int,
        device: torch.device,
        N: int = 4,  # noqa: N803 - mpe2's name
        max_cycles: int = 25,
        continuous_actions: bool = False,
    ) -> None:
        require_count("N", N, most=MOST, more=f"; mpe2/{self.NAME} takes more")
        names = tuple(f"agent_{i}" for i in range(N))
        group = Group("agent", names, 4 + 2 * self.LANDMARKS, actions(5, continuous_actions), "team")
        spec = EnvSpec(f"particle/{self.NAME}", names, (group,))
        entities, radii = N + self.LANDMARKS, [self.RADIUS] * N
        super().__init__(spec, num_envs, device, max_cycles, entities=entities, movers=range(N), radii=radii)
        self.agents = N
        self._assignment = Assignment(N, device)
        sight, landmarks = self.sight, range(N, entities)
        rows = [
            row
            for i in range(N)
            for row in (sight.velocity(i), sight.position(i), *(sight.offset(landmark, i) for landmark in landmarks))
        ]
        self._view = torch.cat(rows).to(device)
        self._prepare()

    @abstractmethod
    def _prepare(self) -> None:
        """Compute the constants of the places."""

    @abstractmethod
    def _away(self) -> Tensor:
        """`(2NN, E)`: x and y of each agent less those of each place, agent by agent."""

    def _advance(self, action: PerGroup) -> PerGroup:
        self._move(self._push(action["agent"]))
        distance = length(self._away().unflatten(0, (-1, 2))).unflatten(0, (self.agents, self.agents))
        paid = self._assignment.price(distance, distance.clamp(max=FARTHEST)) / self.agents
        return {"agent": -paid.to(torch.float32).unsqueeze(1).repeat(1, self.agents)}

    def _observe(self) -> PerGroup:
        return {"agent": self._see(self._view, self.agents)}
