"""Spaces that change or are missing, and spaces of actions that nobody can act in."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from tests.investigate.doctor.planted.expected import ONE, OTHER, Planted
from tests.investigate.doctor.planted.sound import Sound


class NewSpaceEachTime(Sound):
    def action_space(self, agent: str) -> Any:
        return self.make_action_space()


class GrowingSpace(Sound):
    """The bounds follow what was seen so far."""

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        self.bound += 0.5
        self.observation_spaces = {a: self.make_observation_space() for a in self.possible_agents}
        return super().reset(seed, options)


class OtherInstanceOtherSpace(Sound):
    made = 0

    def make_observation_space(self) -> Any:
        type(self).made += 1
        self.bound = 2.0 + type(self).made // 2
        return super().make_observation_space()


class SpaceMissing(Sound):
    def __init__(self) -> None:
        super().__init__()
        del self.action_spaces["agent_1"]


class LowEqualsHigh(Sound):
    low = (-1.0, 1.0)


class InfiniteActions(Sound):
    low, high = (-np.inf, -1.0), (np.inf, 1.0)


class TextAction(Sound):
    def make_action_space(self) -> Any:
        return spaces.Tuple([spaces.Discrete(3), spaces.Discrete(3)])


PLANTED: Planted = {
    "NewSpaceEachTime": ("space_changes", "warning", ONE | {"space": "action"}),
    "GrowingSpace": ("space_changes", "error", ONE | {"space": "observation"}),
    "OtherInstanceOtherSpace": ("space_changes", "error", {"space": "observation"}),
    "SpaceMissing": ("space_changes", "error", OTHER | {"space": "action"}),
    "LowEqualsHigh": ("action_range_mismatch", "error", ONE | {"dimension": 1}),
    "InfiniteActions": ("action_range_mismatch", "error", ONE | {"dimension": 0}),
    "TextAction": ("action_range_mismatch", "error", ONE),
}
