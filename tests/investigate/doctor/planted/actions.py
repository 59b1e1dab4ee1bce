"""Actions that have no effect, are refused, changed in place, or slow."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from tests.investigate.doctor.planted.expected import ONE, OTHER, Planted
from tests.investigate.doctor.planted.sound import Sound


class DeadDimension(Sound):
    def move(self, agent: str, action: Any) -> None:
        super().move(agent, [action[0], action[0]])


class DeadAgent(Sound):
    """A wrong name in a loop: agent_1 does what agent_0 does."""

    def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
        return super().step(dict.fromkeys(actions, actions["agent_0"]))


class ClipsInPlace(Sound):
    def move(self, agent: str, action: Any) -> None:
        np.clip(action, -0.5, 0.5, out=action)
        super().move(agent, action)


class PopsActions(Sound):
    def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
        first = {"agent_0": actions.pop("agent_0")}
        return super().step(first | actions)


class RejectsExtremes(Sound):
    def move(self, agent: str, action: Any) -> None:
        assert np.abs(action).max() < 0.8, "too fast"
        super().move(agent, action)


class Sluggish(Sound):
    def move(self, agent: str, action: Any) -> None:
        pause()
        super().move(agent, action)


def pause() -> None:
    time.sleep(0.015)


PLANTED: Planted = {
    "DeadDimension": ("action_has_no_effect", "warning", ONE | {"dimension": 1}),
    "DeadAgent": ("action_has_no_effect", "error", OTHER | {"dimension": [0, 1]}),
    "ClipsInPlace": ("action_mutated", "error", {}),
    "PopsActions": ("action_mutated", "error", {}),
    "RejectsExtremes": ("action_rejected", "error", {"call": "step"}),
    "Sluggish": ("slow_step", "warning", {"call": "step"}),
}
