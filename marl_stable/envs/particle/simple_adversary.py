"""`particle/simple_adversary_v3`. Shapes: E copies, N good agents and as many landmarks, O features.

Entities: the adversary, the good agents, the landmarks, and the goal, which lies where the chosen landmark does: so
that what is relative to the goal needs no look-up in each copy.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marl_stable.envs.particle.geometry import differences, length
from marl_stable.envs.particle.world import ParticleEnv, actions, chosen, require_count
from marl_stable.types import EnvSpec, Group, PerGroup


class SimpleAdversary(ParticleEnv):
    """Good agents go to the goal, of which one is enough, and mislead the adversary, which does not know it."""

    def __init__(
        self,
        num_envs: int,
        device: torch.device,
        N: int = 2,  # noqa: N803 - mpe2's name
        max_cycles: int = 25,
        continuous_actions: bool = False,
    ) -> None:
        require_count("N", N)
        good = tuple(f"agent_{i}" for i in range(N))
        action = actions(5, continuous_actions)
        groups = (
            Group("adversary", ("adversary_0",), 4 * N, action, "adversary"),
            Group("agent", good, 4 * N + 2, action, "agent"),
        )
        spec = EnvSpec("particle/simple_adversary_v3", ("adversary_0", *good), groups)
        super().__init__(spec, num_envs, device, max_cycles, entities=2 * N + 2, movers=range(N + 1))
        self.good, self._goal = N, 2 * N + 1
        self._to_goal = differences([(i, self._goal) for i in range(N + 1)], self.entities).to(device)
        self._views = {
            "adversary": torch.cat(self._others(0)).to(device),
            "agent": self._good_view().to(device),
        }

    def _begin(self) -> None:
        pos = self._draw(2 * self._goal)
        landmarks = pos[2 * (self.good + 1) :]
        goal = torch.randint(self.good, (1, self.num_envs), generator=self.generator, device=self.device)
        self._place(torch.cat([pos, chosen(landmarks, goal)]))

    def _advance(self, action: PerGroup) -> PerGroup:
        self._move(torch.cat([self._push(action["adversary"]), self._push(action["agent"])]))
        distance = length((self._to_goal @ self.pos).unflatten(0, (-1, 2)))  # (1 + N, E)
        adversary, nearest = distance[:1], distance[1:].amin(dim=0, keepdim=True)  # (1, E)
        good = (adversary - nearest).T.to(torch.float32)
        return {"adversary": -adversary.T.to(torch.float32), "agent": good.repeat(1, self.good)}

    def _observe(self) -> PerGroup:
        return {group.name: self._see(self._views[group.name], len(group.agents)) for group in self.spec.groups}

    def _good_view(self) -> Tensor:
        """`(N * O, 2V + 2M)`: the goal, the landmarks and the other agents, relative to each good agent."""
        rows = []
        for i in range(1, self.good + 1):
            rows += [self.sight.offset(self._goal, i), *self._others(i)]
        return torch.cat(rows)

    def _others(self, viewer: int) -> list[Tensor]:
        """Landmarks and other agents, relative to the viewer."""
        others = [j for j in range(self.good + 1) if j != viewer]
        return [self.sight.offset(entity, viewer) for entity in [*range(self.good + 1, self._goal), *others]]
