"""`particle/simple_tag_v3`. Shapes: E copies, N agents (adversaries first), L obstacles, P pairs that can touch."""

from __future__ import annotations

import torch
from torch import Tensor

from marl_stable.envs.particle.chase import beyond, catches
from marl_stable.envs.particle.world import ParticleEnv, actions, require_count
from marl_stable.types import EnvSpec, Group, PerGroup


class SimpleTag(ParticleEnv):
    """Slow adversaries chase faster good agents between obstacles; good agents pay for leaving the square, too."""

    RADII = (0.075, 0.05, 0.2)  # of an adversary, a good agent, an obstacle
    ACCEL = (3.0, 4.0)
    MAX_SPEED = (1.0, 1.3)
    CATCH = 10.0

    def __init__(
        self,
        num_envs: int,
        device: torch.device,
        num_good: int = 1,
        num_adversaries: int = 3,
        num_obstacles: int = 2,
        max_cycles: int = 25,
        continuous_actions: bool = False,
    ) -> None:
        require_count("num_good", num_good)
        require_count("num_adversaries", num_adversaries)
        require_count("num_obstacles", num_obstacles, least=0)
        counts = (num_adversaries, num_good, num_obstacles)
        agents = num_adversaries + num_good
        chasers = tuple(f"adversary_{i}" for i in range(num_adversaries))
        chased = tuple(f"agent_{i}" for i in range(num_good))
        size = 4 + 2 * num_obstacles + 2 * (agents - 1) + 2 * num_good
        action = actions(5, continuous_actions)
        groups = (
            Group("adversary", chasers, size, action, "adversary"),
            Group("agent", chased, size - 2, action, "agent"),  # its own velocity is not one of the others'
        )
        super().__init__(
            EnvSpec("particle/simple_tag_v3", chasers + chased, groups),
            num_envs,
            device,
            max_cycles,
            entities=agents + num_obstacles,
            movers=range(agents),
            radii=[radius for radius, count in zip(self.RADII, counts, strict=True) for _ in range(count)],
            max_speed=[speed for speed, count in zip(self.MAX_SPEED, counts, strict=False) for _ in range(count)],
        )
        self.adversaries, self.agents = num_adversaries, agents
        self._catches = self._constant(catches(self.contacts.pairs, num_adversaries, agents)) * self.CATCH
        self._views = {
            "adversary": self._view(range(num_adversaries)).to(device),
            "agent": self._view(range(num_adversaries, agents)).to(device),
        }

    def _begin(self) -> None:
        pos = self._draw(2 * self.entities)
        pos[2 * self.agents :] *= 0.9  # obstacles lie a little inside
        self._place(pos)

    def _advance(self, action: PerGroup) -> PerGroup:
        pushes = [self._push(action[g.name], accel) for g, accel in zip(self.spec.groups, self.ACCEL, strict=True)]
        self._move(torch.cat(pushes))
        reward = self._catches @ self.contacts.touching()  # (N, E)
        reward[self.adversaries :] -= beyond(self.pos[2 * self.adversaries : 2 * self.agents])
        chasing, chased = reward.T.to(torch.float32).tensor_split([self.adversaries], dim=1)
        return {"adversary": chasing, "agent": chased}

    def _observe(self) -> PerGroup:
        return {group.name: self._see(self._views[group.name], len(group.agents)) for group in self.spec.groups}

    def _view(self, viewers: range) -> Tensor:
        """`(A * O, 2N + 2M)`: own velocity and position, obstacles and others relative to it, good others' velocity."""
        rows = []
        for i in viewers:
            others = [j for j in range(self.agents) if j != i]
            rows += [self.sight.velocity(i), self.sight.position(i)]
            rows += [self.sight.offset(entity, i) for entity in [*range(self.agents, self.entities), *others]]
            rows += [self.sight.velocity(j) for j in others if j >= self.adversaries]
        return torch.cat(rows)
