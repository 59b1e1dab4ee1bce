"""Randomness that no seed governs, and what is left over from an episode."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.investigate.doctor.planted.expected import ONE, Planted
from tests.investigate.doctor.planted.sound import Sound


class Unseeded(Sound):
    def draw(self) -> Any:
        return np.random.uniform(-1, 1, (2, 2))


class GlobalGenerator(Sound):
    def begin(self, seed: int | None) -> None:
        if seed is not None:
            np.random.seed(seed)

    def move(self, agent: str, action: Any) -> None:
        super().move(agent, action + np.random.normal(0, 0.1, 2))

    def draw(self) -> Any:
        return np.random.uniform(-1, 1, (2, 2))


class FreshEntropy(Sound):
    def begin(self, seed: int | None) -> None:
        self.rng = np.random.default_rng(seed)  # also where there is no seed


class LeakyNoise(Sound):
    """Noise from a generator that reset forgets."""

    def __init__(self) -> None:
        super().__init__()
        self.noise = np.random.default_rng(0)

    def move(self, agent: str, action: Any) -> None:
        super().move(agent, action + self.noise.normal(0, 0.1, 2))


class LeakyCounter(Sound):
    """Wind every 25 steps, counted over episodes."""

    clock = 0

    def move(self, agent: str, action: Any) -> None:
        self.clock += 1
        super().move(agent, action if self.clock % 25 else -np.asarray(action))


class SecondResetFails(Sound):
    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        if getattr(self, "t", 0) > 0:
            raise RuntimeError("the simulator is still running")
        return super().reset(seed, options)


PLANTED: Planted = {
    "Unseeded": ("unseeded", "error", ONE),
    "GlobalGenerator": ("unseeded", "error", {}),
    "FreshEntropy": ("unseeded", "warning", {"call": "reset"}),
    "LeakyNoise": ("reset_leak", "error", ONE),
    "LeakyCounter": ("reset_leak", "error", {}),
    "SecondResetFails": ("reset_leak", "error", {"call": "reset"}),
}
