"""`particle/simple_world_comm_v3`. Shapes: E copies, N agents (adversaries first), G good ones, K food, F forests.

Entities: adversaries, of which the first leads, good agents, obstacles, food, forests. Food and forests touch nothing.
Everybody sees all landmarks, but of agents only those whom forests do not hide; the leader sees everybody, and the
other adversaries hear what it says.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from marl_stable.envs.particle.chase import beyond, catches
from marl_stable.envs.particle.forests import Eyes, Forests
from marl_stable.envs.particle.geometry import differences, length
from marl_stable.envs.particle.world import ParticleEnv, actions, move_and_word, moves_and_words, require_count
from marl_stable.types import EnvSpec, Group, PerGroup

WORDS = 4


class SimpleWorldComm(ParticleEnv):
    """Slow adversaries, told by a leader who sees everything, chase faster good agents, which want food."""

    REMEMBERED = ("word",)
    RADII = (0.075, 0.045, 0.2)  # of an adversary, a good agent, an obstacle
    FOOD = 0.03  # its radius
    ACCEL: ClassVar = {"adversary": 3.0, "agent": 4.0}
    MAX_SPEED = (1.0, 1.3)

    def __init__(
        self,
        num_envs: int,
        device: torch.device,
        num_good: int = 2,
        num_adversaries: int = 4,
        num_obstacles: int = 1,
        num_food: int = 2,
        max_cycles: int = 25,
        num_forests: int = 2,
        continuous_actions: bool = False,
    ) -> None:
        for key, count in (("num_good", num_good), ("num_adversaries", num_adversaries), ("num_food", num_food)):
            require_count(key, count)
        require_count("num_obstacles", num_obstacles, least=0)
        require_count("num_forests", num_forests, least=0)
        counts = (num_adversaries, num_good, num_obstacles)
        radii = [radius for radius, count in zip(self.RADII, counts, strict=True) for _ in range(count)]
        agents = num_adversaries + num_good
        landmarks = num_obstacles + num_food + num_forests
        entities = agents + landmarks
        size = 4 + 2 * landmarks + 2 * (agents - 1) + 2 * num_good + num_forests + WORDS
        super().__init__(
            _spec(num_adversaries, num_good, size, continuous_actions),
            num_envs,
            device,
            max_cycles,
            entities=entities,
            movers=range(agents),
            radii=radii,
            max_speed=[speed for speed, count in zip(self.MAX_SPEED, counts, strict=False) for _ in range(count)],
        )
        self.adversaries, self.good, self.food = num_adversaries, num_good, num_food
        self._catches = self._constant(catches(self.contacts.pairs, num_adversaries, agents))
        good = range(num_adversaries, agents)
        food = range(len(radii), len(radii) + num_food)
        self._to_good = differences([(i, j) for i in range(num_adversaries) for j in good], entities).to(device)
        self._to_food = differences([(i, j) for i in good for j in food], entities).to(device)
        self._forests = Forests(radii[:agents], range(food.stop, entities), entities, device)
        viewers = {"leadadversary": range(1), "adversary": range(1, num_adversaries), "agent": good}
        self._eyes = {g.name: Eyes(viewers[g.name], good, agents, self.sight, device) for g in self.spec.groups}
        self.word = torch.zeros(num_envs, 1, WORDS, device=device)

    def _begin(self) -> None:
        pos = self._draw(2 * self.entities)
        pos[2 * len(self.movers) :] *= 0.9  # landmarks lie a little inside
        self.word = torch.zeros_like(self.word)
        self._place(pos)

    def _advance(self, action: PerGroup) -> PerGroup:
        move, self.word = move_and_word(action["leadadversary"], WORDS)
        moves = action | {"leadadversary": move}
        self._move(torch.cat([self._push(moves[g.name], self.ACCEL[g.team]) for g in self.spec.groups]))
        reward = 5 * (self._catches @ self.contacts.touching())  # (N, E)
        reward[: self.adversaries] -= 0.1 * self._distances(self._to_good, self.good).amin(dim=1)
        reward[self.adversaries :] += self._foraging()
        rewards = reward.T.to(torch.float32)
        return {name: rewards[:, eyes.viewers] for name, eyes in self._eyes.items()}

    def _foraging(self) -> Tensor:
        """`(G, E)`: good agents are paid for touching food, and pay for its distance and for leaving the square."""
        distance = self._distances(self._to_food, self.food)  # (G, K, E)
        touched = (distance < self.RADII[1] + self.FOOD).to(torch.float64).sum(dim=1)
        left = beyond(self.pos[2 * self.adversaries : 2 * len(self.movers)])
        paid: Tensor = 2 * touched - 0.05 * distance.amin(dim=1) - 2 * left
        return paid

    def _distances(self, between: Tensor, targets: int) -> Tensor:
        """`(A, targets, E)` of the differences that the constant `between` (2 * A * targets, 2M) makes."""
        distance: Tensor = length((between @ self.pos).unflatten(0, (-1, 2))).unflatten(0, (-1, targets))
        return distance

    def _observe(self) -> PerGroup:
        inside = self._forests.inside(self.pos)  # (N, F, E)
        visible = self._forests.visible(inside)
        visible[0] = True  # the leader's
        veil = visible.flatten(0, 1).to(torch.float32)  # (N * N, E)
        hidden_in = inside.permute(2, 0, 1).to(torch.float32) * 2 - 1  # (E, N, F)
        return {group.name: self._observe_as(group, veil, hidden_in) for group in self.spec.groups}

    def _observe_as(self, group: Group, veil: Tensor, hidden_in: Tensor) -> Tensor:
        """`(E, A, O)`: the state behind the veil, the forests each is in, and for adversaries the leader's word."""
        eyes, agents = self._eyes[group.name], len(group.agents)
        seen = self._see(eyes.view, agents) * veil[eyes.about].T.unflatten(1, (agents, -1))
        places, velocities = seen.tensor_split([eyes.moving], dim=-1)
        forests = hidden_in[:, eyes.viewers]
        if group.team == "agent":
            return torch.cat([places, forests, velocities], dim=-1)
        return torch.cat([places, velocities, forests, self.word.expand(-1, agents, -1)], dim=-1)


def _spec(adversaries: int, good: int, size: int, continuous: bool) -> EnvSpec:
    """Of adversaries, who see `size` features, and good agents, who see neither a word nor their own velocity twice."""
    followers = tuple(f"adversary_{i}" for i in range(adversaries - 1))
    chased = tuple(f"agent_{i}" for i in range(good))
    action = actions(5, continuous)
    groups = (
        Group("leadadversary", ("leadadversary_0",), size, moves_and_words(WORDS, continuous), "adversary"),
        Group("adversary", followers, size, action, "adversary"),
        Group("agent", chased, size - WORDS - 2, action, "agent"),
    )
    existing = tuple(group for group in groups if group.agents)
    return EnvSpec("particle/simple_world_comm_v3", ("leadadversary_0", *followers, *chased), existing)
