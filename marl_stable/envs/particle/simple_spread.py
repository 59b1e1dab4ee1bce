"""`particle/simple_spread_v3`. Shapes: E copies, N agents and as many landmarks, P pairs of agents, O features."""

from __future__ import annotations

import torch
from torch import Tensor

from marl_stable.envs.particle.geometry import Sight, differences, length
from marl_stable.envs.particle.world import ParticleEnv, actions, require_count, require_ratio
from marl_stable.types import EnvSpec, Group, PerGroup


class SimpleSpread(ParticleEnv):
    """N agents cover N landmarks; each pays the landmarks' distances (shared) and its own collisions."""

    RADIUS = 0.15

    def __init__(
        self,
        num_envs: int,
        device: torch.device,
        N: int = 3,  # noqa: N803 - mpe2's name
        local_ratio: float = 0.5,
        max_cycles: int = 25,
        continuous_actions: bool = False,
    ) -> None:
        require_count("N", N)
        require_ratio(local_ratio)
        names = tuple(f"agent_{i}" for i in range(N))
        size = 4 + 2 * N + 4 * (N - 1)
        group = Group("agent", names, size, actions(5, continuous_actions), "team")
        spec = EnvSpec("particle/simple_spread_v3", names, (group,))
        radii = [self.RADIUS] * N
        super().__init__(spec, num_envs, device, max_cycles, entities=2 * N, movers=range(N), radii=radii)
        self.agents, self.local_ratio = N, local_ratio
        to_landmarks = [(i, N + j) for j in range(N) for i in range(N)]
        self._to_landmarks = differences(to_landmarks, 2 * N).to(device)
        self._collides = self._constant([[float(i in pair) for pair in self.contacts.pairs] for i in range(N)])
        self._view = _view(self.sight, N).to(device)

    def _begin(self) -> None:
        self._place(self._draw(4 * self.agents))

    def _advance(self, action: PerGroup) -> PerGroup:
        self._move(self._push(action["agent"]))
        return {"agent": self._reward().T.to(torch.float32)}

    def _reward(self) -> Tensor:
        """`(N, E)`."""
        n = self.agents
        distance = length((self._to_landmarks @ self.pos).unflatten(0, (n * n, 2)))  # (N * N, E)
        covered: Tensor = -distance.unflatten(0, (n, n)).amin(dim=1).sum(dim=0)  # (E,)
        collisions = self._collides @ self.contacts.touching()  # (N, E)
        return covered * (1 - self.local_ratio) - collisions * self.local_ratio

    def _observe(self) -> PerGroup:
        return {"agent": self._see(self._view, self.agents)}


def _view(sight: Sight, n: int) -> Tensor:
    """`(N * O, 6N)`: what each agent sees.

    Own velocity, own position, landmarks relative to it, other agents relative to it, and two zeros for each other
    agent's silent channel.
    """
    rows = []
    for i in range(n):
        others = [j for j in range(n) if j != i]
        rows += [sight.velocity(i), sight.position(i)]
        rows += [sight.offset(entity, i) for entity in [*range(n, 2 * n), *others]]
        rows += [sight.nothing() for _ in others]
    return torch.cat(rows)
