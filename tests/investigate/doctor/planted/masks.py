"""Action masks that allow nothing, have another size, or are wrong."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.investigate.doctor.planted.expected import ONE, Planted
from tests.investigate.doctor.planted.sound import NEAR, Masked, MaskInInfo, Sound


class EmptyMask(MaskInInfo):
    def mask(self, agent: str) -> Any:
        return super().mask(agent) * np.int8(self.distance(agent) > NEAR)  # arrived: nothing to do

    def move(self, agent: str, action: Any) -> None:
        Sound.move(self, agent, [action - 1, 0.3 * (action - 1)])


class EmptyMaskInObservation(Masked):
    def mask(self, agent: str) -> Any:
        return super().mask(agent) * np.int8(self.distance(agent) > NEAR)

    def move(self, agent: str, action: Any) -> None:
        Sound.move(self, agent, [action - 1, 0.3 * (action - 1)])


class ShortMask(MaskInInfo):
    def mask(self, agent: str) -> Any:
        return super().mask(agent)[:2]

    move = EmptyMask.move


class MaskOfShares(MaskInInfo):
    def mask(self, agent: str) -> Any:
        return super().mask(agent) / super().mask(agent).sum()  # a distribution


class MaskOfNumbers(Sound):
    def info(self, agent: str, action: Any) -> dict[str, Any]:
        return super().info(agent, action) | {"action_mask": np.ones(2, np.int8)}


class MaskIsWrong(MaskInInfo):
    """The mask is one step late: it allows what step refuses."""

    def info(self, agent: str, action: Any) -> dict[str, Any]:
        return Sound.info(self, agent, action) | {"action_mask": np.ones(3, np.int8)}


PLANTED: Planted = {
    "EmptyMask": ("mask_allows_nothing", "error", {}),
    "EmptyMaskInObservation": ("mask_allows_nothing", "error", {}),
    "ShortMask": ("masking_error", "error", ONE),
    "MaskOfShares": ("masking_error", "error", {}),
    "MaskOfNumbers": ("masking_error", "error", ONE),
    "MaskIsWrong": ("action_rejected", "error", {"call": "step"}),
}
