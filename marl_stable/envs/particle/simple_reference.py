"""`particle/simple_reference_v3`. Shapes: E copies, L landmarks, W words.

Entities: two agents, the landmarks, and two goals, each at the place of a landmark. The first agent knows the goal of
the second and says where it is, and the other way round.
"""

from __future__ import annotations

from typing import Any

import torch

from marl_stable.envs.particle.geometry import differences, length
from marl_stable.envs.particle.world import ParticleEnv, actions, chosen, require_ratio, said
from marl_stable.types import EnvSpec, Group, PerGroup

LANDMARKS = 3
WORDS = 10
MOVES = 5


class SimpleReference(ParticleEnv):
    """Each of two agents knows where the other should go, and both speak and move at once.

    An action is a move and a word: `move + 5 * word`, or five numbers that push and one per word.
    """

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
        action = actions(MOVES + WORDS if continuous_actions else MOVES * WORDS, continuous_actions)
        group = Group("agent", names, 2 + 2 * LANDMARKS + 3 + WORDS, action, "team")
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

    def state_dict(self) -> dict[str, Any]:
        """The world's state, the goals and the last words."""
        return super().state_dict() | {"goal": self.goal.clone(), "word": self.word.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> PerGroup:
        """Go on where `state_dict` was taken."""
        self.goal, self.word = state["goal"].to(self.device), state["word"].to(self.device)
        return super().load_state_dict(state)

    def _advance(self, action: PerGroup) -> PerGroup:
        act = action["agent"]
        if act.dtype == torch.int64:
            move, word = act % MOVES, act // MOVES
        else:
            move, word = act[..., :MOVES], act[..., MOVES:]
        self.word = said(word, WORDS)
        self._move(self._push(move))
        own = -length((self._missed @ self.pos).unflatten(0, (2, 2)))  # (2, E): how far the one told is from the goal
        reward = own.mean(dim=0) * (1 - self.local_ratio) + own * self.local_ratio
        return {"agent": reward.T.to(torch.float32)}

    def _observe(self) -> PerGroup:
        """Own velocity, landmarks relative to it, the colour of the other's goal, the other's last word."""
        parts = [self._see(self._view, 2), self._colours[self.goal.T], self.word.flip(1)]
        return {"agent": torch.cat(parts, dim=-1)}
