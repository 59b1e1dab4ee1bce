"""`particle/simple_speaker_listener_v4`. Shapes: E copies, L landmarks; entity 0 speaks, 1 listens, then landmarks."""

from __future__ import annotations

import torch

from marl_stable.envs.particle.geometry import differences
from marl_stable.envs.particle.world import ParticleEnv, actions, said
from marl_stable.types import EnvSpec, Group, PerGroup

LANDMARKS = 3


class SimpleSpeakerListener(ParticleEnv):
    """The speaker sees which landmark is the goal and says one of three words; the listener must go there."""

    REMEMBERED = ("goal", "word")

    def __init__(
        self, num_envs: int, device: torch.device, max_cycles: int = 25, continuous_actions: bool = False
    ) -> None:
        speaker = Group("speaker", ("speaker_0",), 3, actions(LANDMARKS, continuous_actions), "team")
        listener = Group("listener", ("listener_0",), 11, actions(5, continuous_actions), "team")
        spec = EnvSpec("particle/simple_speaker_listener_v4", ("speaker_0", "listener_0"), (speaker, listener))
        super().__init__(spec, num_envs, device, max_cycles, entities=2 + LANDMARKS, movers=range(1, 2))
        self._to_landmarks = differences([(2 + j, 1) for j in range(LANDMARKS)], self.entities).to(device)
        self._colours = torch.full((LANDMARKS, 3), 0.15, device=device).fill_diagonal_(0.65)
        self.goal = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self.word = torch.zeros(num_envs, LANDMARKS, device=device)

    def _begin(self) -> None:
        self.goal = torch.randint(LANDMARKS, (self.num_envs,), generator=self.generator, device=self.device)
        self.word = torch.zeros_like(self.word)
        self._place(self._draw(2 * self.entities))

    def _advance(self, action: PerGroup) -> PerGroup:
        self.word = said(action["speaker"], LANDMARKS)[:, 0]
        self._move(self._push(action["listener"]))
        away = (self._to_landmarks @ self.pos).unflatten(0, (LANDMARKS, 2))  # (L, 2, E)
        missed = away.square().sum(dim=1).gather(0, self.goal.unsqueeze(0))  # (1, E)
        reward = -missed.T.to(torch.float32)
        return {"speaker": reward, "listener": reward}

    def _observe(self) -> PerGroup:
        away = self._to_landmarks @ self.pos  # (2L, E)
        seen = torch.cat([self.vel, away]).T.to(torch.float32)  # (E, 8)
        listener = torch.cat([seen, self.word], dim=1).unsqueeze(1)
        return {"speaker": self._colours[self.goal].unsqueeze(1), "listener": listener}
