"""Agents that are missing from what is returned, or appear in it when they should not."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.investigate.doctor.planted.expected import ONE, OTHER, Planted
from tests.investigate.doctor.planted.sound import Sound


class NobodyThere(Sound):
    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        told = super().reset(seed, options)
        self.agents = []
        return told


class Vanishing(Sound):
    def leave(self, agents: list[str], terminated: dict[str, bool], truncated: dict[str, bool]) -> None:
        super().leave(agents, terminated, truncated)
        self.agents = [a for a in self.agents if a == "agent_0" or self.t < 10]


class MissingReward(Sound):
    def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
        obs, rewards, *rest = super().step(actions)
        if self.t == 7:
            del rewards["agent_1"]
        return obs, rewards, *rest


class MissingLastObservation(Sound):
    def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
        obs, *rest = super().step(actions)
        return {a: o for a, o in obs.items() if a in self.agents}, *rest


class MissingInfo(Sound):
    def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
        *rest, infos = super().step(actions)
        return *rest, {a: info for a, info in infos.items() if a == "agent_0"}


class ArrayAsEnd(Sound):
    def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
        obs, rewards, terminated, *rest = super().step(actions)
        return obs, rewards, {a: np.array([end]) for a, end in terminated.items()}, *rest


class Staying(Sound):
    def leave(self, agents: list[str], terminated: dict[str, bool], truncated: dict[str, bool]) -> None:
        pass


class Revived(Sound):
    """agent_1 is terminated in step 8, and back in step 12."""

    def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
        obs, rewards, terminated, truncated, infos = super().step(actions)
        if self.t == 8:
            terminated["agent_1"] = True
            self.agents = ["agent_0"]
        elif self.t == 12:
            self.agents = self.possible_agents[:]
            obs["agent_1"] = self.see("agent_1")
        return obs, rewards, terminated, truncated, infos


class Stranger(Sound):
    def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
        obs, *rest = super().step(actions)
        if self.t == 9:
            self.agents = [*self.agents, "zombie_0"]
            obs["zombie_0"] = obs["agent_0"]
        return obs, *rest


class NoPossibleAgents(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.names = self.possible_agents
        del self.possible_agents


PLANTED: Planted = {
    "NobodyThere": ("agent_vanishes", "error", {"call": "reset"}),
    "Vanishing": ("agent_vanishes", "error", OTHER),
    "MissingReward": ("agent_vanishes", "error", OTHER | {"part": "rewards"}),
    "MissingLastObservation": ("agent_vanishes", "error", ONE | {"part": "observations"}),
    "MissingInfo": ("agent_vanishes", "warning", OTHER | {"part": "infos"}),
    "ArrayAsEnd": ("agent_vanishes", "error", ONE | {"part": "termination"}),
    "Staying": ("agent_appears", "error", ONE),
    "Revived": ("agent_appears", "error", OTHER),
    "Stranger": ("agent_appears", "error", {"agent": "zombie_0"}),
    "NoPossibleAgents": ("agent_appears", "error", {"part": "possible_agents"}),
}
