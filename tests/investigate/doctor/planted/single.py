"""Gymnasium environments by an old or a wrong interface."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces

from tests.investigate.doctor.planted.expected import ONE, Planted
from tests.investigate.doctor.planted.sound import Single


class OldStep(Single):
    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated or truncated, info


class OldReset(Single):
    def reset(self, **kwargs: Any) -> Any:
        return super().reset(**kwargs)[0]


class ResetTakesNoSeed(Single):
    def reset(self) -> Any:  # type: ignore[override]
        return super().reset()


class ResetTakesNoOptions(Single):
    def reset(self, seed: int | None = None) -> Any:  # type: ignore[override]
        return super().reset(seed=seed)


class NoActionSpace(Single):
    @property
    def action_space(self) -> Any:  # type: ignore[override]
        raise NotImplementedError


class StepReturnsNothing(Single):
    def step(self, action: Any) -> Any:
        super().step(action)


class WrongIndex(Single):
    observation_space = spaces.Discrete(10)  # type: ignore[assignment]

    def see(self) -> Any:
        return round((self.x + 1) * 5)  # 0 to 10


PLANTED: Planted = {
    "OldStep": ("time_limit_as_termination", "error", {"call": "step"}),
    "OldReset": ("observation_shape", "error", {"call": "reset"}),
    "ResetTakesNoSeed": ("unseeded", "error", {"call": "reset"}),
    "ResetTakesNoOptions": ("unseeded", "warning", {"call": "reset"}),
    "NoActionSpace": ("space_changes", "error", ONE | {"space": "action"}),
    "StepReturnsNothing": ("action_rejected", "error", {"call": "step"}),
    "WrongIndex": ("observation_out_of_bounds", "error", ONE),
}
