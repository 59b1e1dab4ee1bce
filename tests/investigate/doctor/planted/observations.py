"""Observations that are not what their spaces say, or tell nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from tests.investigate.doctor.planted.expected import ONE, OTHER, Planted
from tests.investigate.doctor.planted.sound import Parts, Sound


class NaNObservation(Sound):
    def see(self, agent: str) -> Any:
        obs = super().see(agent)
        with np.errstate(invalid="ignore"):
            obs[1] = np.sqrt(obs[1])  # of a number that may be below 0
        return obs


class InfiniteSensor(Sound):
    bound = np.inf

    def see(self, agent: str) -> Any:
        obs = super().see(agent)
        obs[2] = obs[2] if self.distance(agent) < 1 else np.inf  # nothing in range
        return obs


class OutOfBounds(Sound):
    bound = 0.9


class ExtraAxis(Sound):
    def see(self, agent: str) -> Any:
        return super().see(agent)[None]


class ShortObservation(Sound):
    def see(self, agent: str) -> Any:
        return super().see(agent)[:3]


class DoublePrecision(Sound):
    def see(self, agent: str) -> Any:
        return super().see(agent).astype(np.float64)


class ListObservation(Sound):
    def see(self, agent: str) -> Any:
        return super().see(agent).tolist()


class WordObservation(Sound):
    def see(self, agent: str) -> Any:
        return np.array(["near" if self.distance(agent) < 1 else "far"] * 4)


class GradientObservation(Sound):
    def see(self, agent: str) -> Any:
        return torch.tensor(super().see(agent), requires_grad=True)


class Aliased(Sound):
    def see(self, agent: str) -> Any:
        buffers: dict[str, Any] = self.__dict__.setdefault("buffers", {})
        buffer = buffers.setdefault(agent, np.zeros(4, np.float32))
        buffer[:] = super().see(agent)
        return buffer


class AliasedView(Sound):
    def make_observation_space(self) -> Any:
        return spaces.Box(-2, 2, (2,), np.float64)

    def see(self, agent: str) -> Any:
        return self.place[self.index(agent)]

    def move(self, agent: str, action: Any) -> None:
        place = self.place[self.index(agent)]
        place += 0.2 * action
        np.clip(place, -1, 1, out=place)


class ConstantFeature(Sound):
    def see(self, agent: str) -> Any:
        obs = super().see(agent)
        obs[3] = 0.5  # a battery that nobody drains
        return obs


class BlindAgent(Sound):
    def see(self, agent: str) -> Any:
        return np.zeros(4, np.float32)


class DeadSensor(Sound):
    """That of one agent; the other's works."""

    def see(self, agent: str) -> Any:
        obs = super().see(agent)
        obs[3] = 0.0 if agent == "agent_1" else obs[3]
        return obs


class SeenOnce(Sound):
    """Observations are made in reset alone."""

    def see(self, agent: str) -> Any:
        if self.t == 0:
            self.__dict__.setdefault("seen", {})[agent] = super().see(agent)
        return self.seen[agent].copy()


class CopiedFeature(Sound):
    def see(self, agent: str) -> Any:
        obs = super().see(agent)
        obs[3] = obs[2]  # should be another index
        return obs


class HugeFeature(Sound):
    bound = 1e6

    def see(self, agent: str) -> Any:
        return super().see(agent) * np.array([1, 1e4, 1, 1], np.float32)  # metres and tenths of millimetres


class TinyFeature(Sound):
    def see(self, agent: str) -> Any:
        return super().see(agent) * np.array([1, 1e-4, 1, 1], np.float32)


class PartMissing(Parts):
    def see(self, agent: str) -> Any:
        return {key: part for key, part in super().see(agent).items() if key != "place"}


class PartOutOfRange(Parts):
    def see(self, agent: str) -> Any:
        obs = super().see(agent)
        return obs | {"side": obs["side"] + 1}


PLANTED: Planted = {
    "NaNObservation": ("observation_non_finite", "error", ONE | {"feature": 1}),
    "InfiniteSensor": ("observation_non_finite", "error", {"feature": 2}),
    "OutOfBounds": ("observation_out_of_bounds", "error", {}),
    "ExtraAxis": ("observation_shape", "error", ONE),
    "ShortObservation": ("observation_shape", "error", ONE),
    "DoublePrecision": ("observation_dtype", "warning", ONE),
    "ListObservation": ("observation_dtype", "warning", ONE),
    "WordObservation": ("observation_dtype", "error", ONE),
    "GradientObservation": ("observation_dtype", "error", ONE),
    "Aliased": ("observation_aliased", "error", ONE),
    "AliasedView": ("observation_aliased", "error", ONE),
    "ConstantFeature": ("observation_constant", "warning", ONE | {"feature": 3}),
    "BlindAgent": ("observation_constant", "warning", ONE | {"feature": "(all)"}),
    "DeadSensor": ("observation_constant", "warning", OTHER | {"feature": 3}),
    "SeenOnce": ("observation_constant", "warning", {}),
    "CopiedFeature": ("observation_constant", "warning", ONE | {"feature": 3}),
    "HugeFeature": ("observation_scale", "warning", ONE | {"feature": 1}),
    "TinyFeature": ("observation_scale", "warning", ONE | {"feature": 1}),
    "PartMissing": ("observation_shape", "error", ONE | {"part": "place"}),
    "PartOutOfRange": ("observation_out_of_bounds", "error", {"part": "side"}),
}
