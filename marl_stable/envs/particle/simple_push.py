"""`particle/simple_push_v3`. Shapes: E copies, L landmarks.

Entities: the adversary, the good agent, the landmarks, and the goal, which lies where the chosen landmark does. The
colours of landmarks are the same in every episode; the good agent's own names the goal.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marl_stable.envs.particle.geometry import differences, length
from marl_stable.envs.particle.world import ParticleEnv, actions, chosen
from marl_stable.types import EnvSpec, Group, PerGroup

LANDMARKS = 2
RADIUS = 0.05


class SimplePush(ParticleEnv):
    """The good agent goes to the goal; the adversary, which does not know it, pushes it away and gets there itself."""

    REMEMBERED = ("goal",)

    def __init__(
        self, num_envs: int, device: torch.device, max_cycles: int = 25, continuous_actions: bool = False
    ) -> None:
        action = actions(5, continuous_actions)
        groups = (
            Group("adversary", ("adversary_0",), 8, action, "adversary"),
            Group("agent", ("agent_0",), 19, action, "agent"),
        )
        spec = EnvSpec("particle/simple_push_v3", ("adversary_0", "agent_0"), groups)
        entities, radii = 2 + LANDMARKS + 1, [RADIUS] * 2
        super().__init__(spec, num_envs, device, max_cycles, entities=entities, movers=range(2), radii=radii)
        goal = entities - 1
        self._to_goal = differences([(0, goal), (1, goal)], entities).to(device)
        self._adversary_view = torch.cat([self.sight.velocity(0), *self._others(0)]).to(device)
        to_goal = self.sight.offset(goal, 1)
        self._agent_view = torch.cat([self.sight.velocity(1), to_goal, *self._others(1)]).to(device)
        self._own_colours = torch.tensor([[0.25, 0.75, 0.25], [0.25, 0.25, 0.75]], device=device)
        self._colours = torch.tensor([0.1, 0.9, 0.1, 0.1, 0.1, 0.9], device=device).expand(num_envs, -1)
        self.goal = torch.zeros(1, num_envs, dtype=torch.int64, device=device)

    def _begin(self) -> None:
        pos = self._draw(2 * (2 + LANDMARKS))
        self.goal = torch.randint(LANDMARKS, self.goal.shape, generator=self.generator, device=self.device)
        self._place(torch.cat([pos, chosen(pos[4:], self.goal)]))

    def _advance(self, action: PerGroup) -> PerGroup:
        self._move(torch.cat([self._push(action["adversary"]), self._push(action["agent"])]))
        adversary, good = length((self._to_goal @ self.pos).unflatten(0, (2, 2))).unsqueeze(2)  # each (E, 1)
        return {"adversary": (good - adversary).to(torch.float32), "agent": -good.to(torch.float32)}

    def _observe(self) -> PerGroup:
        seen = self._see(self._agent_view, 1)[:, 0]  # (E, 10): velocity, goal, landmarks, the adversary
        velocity_and_goal, landmarks, adversary = seen.split([4, 2 * LANDMARKS, 2], dim=1)
        own = self._own_colours[self.goal[0]]
        agent = torch.cat([velocity_and_goal, own, landmarks, self._colours, adversary], dim=1)
        return {"adversary": self._see(self._adversary_view, 1), "agent": agent.unsqueeze(1)}

    def _others(self, viewer: int) -> list[Tensor]:
        """Landmarks and the other agent, relative to the viewer."""
        return [self.sight.offset(entity, viewer) for entity in [*range(2, 2 + LANDMARKS), 1 - viewer]]
