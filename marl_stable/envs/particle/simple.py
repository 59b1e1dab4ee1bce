"""`particle/simple_v3`. Shapes: E copies; entity 0 is the agent, 1 the landmark."""

from __future__ import annotations

import torch

from marl_stable.envs.particle.geometry import differences
from marl_stable.envs.particle.world import ParticleEnv, actions
from marl_stable.types import EnvSpec, Group, PerGroup


class Simple(ParticleEnv):
    """One agent goes to a landmark, and pays the square of its distance."""

    def __init__(
        self, num_envs: int, device: torch.device, max_cycles: int = 25, continuous_actions: bool = False
    ) -> None:
        group = Group("agent", ("agent_0",), 4, actions(5, continuous_actions), "team")
        spec = EnvSpec("particle/simple_v3", group.agents, (group,))
        super().__init__(spec, num_envs, device, max_cycles, entities=2, movers=range(1))
        self._to_landmark = differences([(1, 0)], self.entities).to(device)
        self._view = torch.cat([self.sight.velocity(0), self.sight.offset(1, 0)]).to(device)

    def _begin(self) -> None:
        self._place(self._draw(2 * self.entities))

    def _advance(self, action: PerGroup) -> PerGroup:
        self._move(self._push(action["agent"]))
        missed = (self._to_landmark @ self.pos).square().sum(dim=0)  # (E,)
        return {"agent": -missed.unsqueeze(1).to(torch.float32)}

    def _observe(self) -> PerGroup:
        return {"agent": self._see(self._view, 1)}
