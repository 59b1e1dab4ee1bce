"""Rewards that are no numbers, of a size that nobody learns from, or not the sum of their terms."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.investigate.doctor.planted.expected import ONE, OTHER, Planted
from tests.investigate.doctor.planted.sound import NEAR, Sound, Untold


class NaNReward(Untold):
    def pay(self, agent: str, action: Any) -> Any:
        with np.errstate(invalid="ignore"):
            return float(np.log(1.5 - self.distance(agent)))


class VectorReward(Untold):
    def pay(self, agent: str, action: Any) -> Any:
        return np.array([-self.distance(agent)])


class NoneReward(Untold):
    def pay(self, agent: str, action: Any) -> Any:
        if self.distance(agent) > NEAR:
            return None
        return 1.0


class EnormousReward(Untold):
    def pay(self, agent: str, action: Any) -> Any:
        return -1e12 * self.distance(agent)


class LargeReward(Untold):
    def pay(self, agent: str, action: Any) -> Any:
        return -1e5 * self.distance(agent)


class TinyReward(Untold):
    def pay(self, agent: str, action: Any) -> Any:
        return -1e-6 * self.distance(agent)


class OffsetReward(Untold):
    def pay(self, agent: str, action: Any) -> Any:
        return 1000 - self.distance(agent)


class SpikingReward(Untold):
    def pay(self, agent: str, action: Any) -> Any:
        distance = self.distance(agent)
        return -1 / (distance + 1e-3) ** 3 if distance < 0.7 * NEAR else -distance


class NoReward(Untold):
    def pay(self, agent: str, action: Any) -> Any:
        return 0.0


class OneIsNeverPaid(Untold):
    def pay(self, agent: str, action: Any) -> Any:
        return -self.distance(agent) if agent == self.possible_agents[0] else 0.0


class ForgottenTerm(Sound):
    def pay(self, agent: str, action: Any) -> Any:
        return super().pay(agent, action) - 0.1 * float(np.square(action).sum())


class VectorTerm(Sound):
    def terms(self, agent: str) -> dict[str, Any]:
        i = self.index(agent)
        return {"distance": self.place[i] - self.goal[i]}

    def pay(self, agent: str, action: Any) -> Any:
        return -self.distance(agent)


PLANTED: Planted = {
    "NaNReward": ("reward_non_finite", "error", {}),
    "VectorReward": ("reward_type", "error", ONE),
    "NoneReward": ("reward_type", "error", {}),
    "EnormousReward": ("reward_scale_too_large", "error", ONE),
    "LargeReward": ("reward_scale_too_large", "warning", ONE),
    "TinyReward": ("reward_scale_too_small", "warning", ONE),
    "OffsetReward": ("reward_offset", "warning", ONE),
    "SpikingReward": ("reward_outliers", "warning", {}),
    "NoReward": ("no_reward_signal", "warning", {}),
    "OneIsNeverPaid": ("no_reward_signal", "warning", OTHER),
    "ForgottenTerm": ("reward_terms_sum", "error", ONE),
    "VectorTerm": ("reward_terms_sum", "error", ONE),
}
