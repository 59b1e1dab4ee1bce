"""Environments in turns."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.investigate.doctor.planted.expected import Planted
from tests.investigate.doctor.planted.sound import Turns


class NeverAddedUp(Turns):
    def add_up(self) -> None:
        pass


class LateMask(Turns):
    def observe(self, agent: str) -> Any:
        return super().observe(agent) | {"action_mask": np.ones(3, np.int8)}


class VectorRewardInTurns(Turns):
    def _clear_rewards(self) -> None:
        self.rewards: dict[str, Any] = {a: np.zeros(2) for a in self.agents}

    def add_up(self) -> None:
        for agent, reward in self.rewards.items():
            self._cumulative_rewards[agent] = self._cumulative_rewards[agent] + reward


class LeakyTurns(Turns):
    games = 0

    def reset(self, seed: int | None = None, options: Any = None) -> None:
        super().reset(seed, options)
        self.games += 1
        self.stones += self.games % 2


PLANTED: Planted = {
    "NeverAddedUp": ("no_reward_signal", "error", {"agent": "player_0"}),
    "LateMask": ("action_rejected", "error", {"call": "step"}),
    "VectorRewardInTurns": ("reward_type", "error", {"agent": "player_0"}),
    "LeakyTurns": ("reset_leak", "error", {"agent": "player_0"}),
}
