"""`particle/simple_reference_v3`. Shapes: E copies, L landmarks, W words.

Entities: two agents, the landmarks, and two goals, each at the place of a landmark. The first agent knows the goal of
the second and says where it is, and the other way round.
"""

from __future__ import annotations

import torch

from marl_stable.envs.particle.geometry import differences, length
from marl_stable.envs.particle.world import ParticleEnv, chosen, move_and_word, moves_and_words, require_ratio
from marl_stable.types import EnvSpec, Group, PerGroup

LANDMARKS = 3
WORDS = 10


class SimpleReference(ParticleEnv):
    """Each of two agents knows where the other should go, and both speak and move at once.

    An action is a move and a word: `move + 5 * word`, or five numbers that push and one per word.
    """

    REMEMBERED = ("goal", "word")

    def __init__(
        self,
        num_envs: int,
        device: torch.device,
        local_ratio: float = 0.5,
        max_cycles: int = 25,
        continuous_actions: bool = False,
    ) -> None:
        require_ratio(local_ratio)
        names = ("agent_0", "agent_1")
        size = 2 + 2 * LANDMARKS + 3 + WORDS
        group = Group("agent", names, size, moves_and_words(WORDS, continuous_actions), "team")
        spec = EnvSpec("particle/simple_reference_v3", names, (group,))
        super().__init__(spec, num_envs, device, max_cycles, entities=2 + LANDMARKS + 2, movers=range(2))
        self.local_ratio = local_ratio
        first_goal = 2 + LANDMARKS
        self._missed = differences([(1, first_goal), (0, first_goal + 1)], self.entities).to(device)
        sight = self.sight
        seen = [[sight.velocity(i), *(sight.offset(2 + j, i) for j in range(LANDMARKS))] for i in range(2)]
        self._view = torch.cat([*seen[0], *seen[1]]).to(device)
        self._colours = torch.full((LANDMARKS, 3), 0.25, device=device).fill_diagonal_(0.75)
        self.goal = torch.zeros(2, num_envs, dtype=torch.int64, device=device)
        self.word = torch.zeros(num_envs, 2, WORDS, device=device)

    def _begin(self) -> None:
        pos = self._draw(2 * (2 + LANDMARKS))
        self.goal = torch.randint(LANDMARKS, self.goal.shape, generator=self.generator, device=self.device)
        self.word = torch.zeros_like(self.word)
        self._place(torch.cat([pos, chosen(pos[4:], self.goal)]))

    def _advance(self, action: PerGroup) -> PerGroup:
        move, self.word = move_and_word(action["agent"], WORDS)
        self._move(self._push(move))
        own = -length((self._missed @ self.pos).unflatten(0, (2, 2)))  # (2, E): how far the one told is from the goal
        reward = own.mean(dim=0) * (1 - self.local_ratio) + own * self.local_ratio
        return {"agent": reward.T.to(torch.float32)}

    def _observe(self) -> PerGroup:
        """Own velocity, landmarks relative to it, the colour of the other's goal, the other's last word."""
        parts = [self._see(self._view, 2), self._colours[self.goal.T], self.word.flip(1)]
        return {"agent": torch.cat(parts, dim=-1)}
