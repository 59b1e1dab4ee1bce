"""Environments that PettingZoo's own tests refuse, each for one reason of their list, planted in the sound ones.

`REFUSED` says which of those tests refuses each, and what the doctor must say of it.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from gymnasium import spaces

from tests.investigate.doctor.planted.expected import ONE
from tests.investigate.doctor.planted.sound import Sound, Turns

SERIAL = itertools.count()


class ObservationsInAList(Sound):
    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        obs, infos = super().reset(seed, options)
        return list(obs.values()), infos


class NoOptions(Sound):
    def reset(self, seed: int | None = None) -> Any:  # type: ignore[override]
        return super().reset(seed)


class NoInfos(Sound):
    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed, options)[0], {}


class InfosOfNobody(Sound):
    def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
        return *super().step(actions)[:4], []


class OneUnseen(Sound):
    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        obs, infos = super().reset(seed, options)
        del obs["agent_1"]
        return obs, infos


class RewardsInAList(Sound):
    def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
        obs, rewards, *rest = super().step(actions)
        return obs, list(rewards.values()), *rest


class BackFromTheDead(Sound):
    def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
        obs, rewards, terminated, truncated, infos = super().step(actions)
        if self.t == 3:
            terminated["agent_1"] = True
            self.agents = ["agent_0"]
        elif self.t == 5:
            self.agents = self.possible_agents[:]
            obs["agent_1"] = self.see("agent_1")
        return obs, rewards, terminated, truncated, infos


class NeverLeaves(Sound):
    def leave(self, agents: list[str], terminated: dict[str, bool], truncated: dict[str, bool]) -> None:
        pass

    def truncates(self) -> bool:
        return self.t == 9


class LeavesEarly(Sound):
    def leave(self, agents: list[str], terminated: dict[str, bool], truncated: dict[str, bool]) -> None:
        super().leave(agents, terminated, truncated)
        self.agents = self.agents[: 1 if self.t > 4 else 2]


class Unlisted(Sound):
    def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
        told = super().step({a: actions.get(a, np.zeros(2, np.float32)) for a in self.agents})
        if self.t == 4:
            self.agents = [*self.agents, "agent_2"]
        return told

    def observation_space(self, agent: str) -> Any:
        return self.observation_spaces["agent_0"]

    def action_space(self, agent: str) -> Any:
        return self.action_spaces["agent_0"]


class SpaceAnew(Sound):
    def action_space(self, agent: str) -> Any:
        return self.make_action_space()


class SpaceOfAll(Sound):
    """Every instance has the same space: to sample one is to advance the others."""

    shared = spaces.Box(-1, 1, (2,), np.float32)

    def make_action_space(self) -> Any:
        return self.shared


class OtherStarts(Sound):
    def begin(self, seed: int | None) -> None:
        self.rng = np.random.default_rng()


class OtherRewards(Sound):
    def pay(self, agent: str, action: Any) -> Any:
        return super().pay(agent, action)

    def terms(self, agent: str) -> dict[str, Any]:
        return super().terms(agent) | {"weather": float(np.random.default_rng().normal())}


class OtherInfos(Sound):
    def info(self, agent: str, action: Any) -> dict[str, Any]:
        return super().info(agent, action) | {"serial": next(SERIAL)}


class NeverCleared(Turns):
    """What an agent was paid before stays in what `last` tells."""

    def step(self, action: Any) -> None:
        actor = self.agent_selection
        before = self._cumulative_rewards[actor]
        ended = self.terminations[actor]
        super().step(action)
        if not ended:
            self._cumulative_rewards[actor] += before

    def _clear_rewards(self) -> None:
        self.rewards = dict.fromkeys(self.agents, 0.125)


class NotAddedUp(Turns):
    def add_up(self) -> None:
        pass


class RewardsOfTheGone(Turns):
    def leave(self, action: Any) -> None:
        gone = self.agent_selection
        super().leave(action)
        self.rewards[gone] = 0.0


class InfosOfTheGone(Turns):
    def leave(self, action: Any) -> None:
        gone = self.agent_selection
        super().leave(action)
        self.infos[gone] = {}


class GoneAtOnce(Turns):
    """Agents leave in the step that ends them, and not in a turn of their own."""

    def step(self, action: Any) -> None:
        super().step(action)
        if all(self.terminations.values()):
            self.agents = []


class StaysForEver(Turns):
    def leave(self, action: Any) -> None:
        self.agent_selection = self.selector.next()


class NumPyEnds(Turns):
    def step(self, action: Any) -> None:
        super().step(action)
        self.terminations: dict[str, Any] = {a: np.bool_(end) for a, end in self.terminations.items()}


class EndedAtTheStart(Turns):
    def reset(self, seed: int | None = None, options: Any = None) -> None:
        super().reset(seed, options)
        self.terminations = dict.fromkeys(self.agents, True)


class StepReturns(Turns):
    def step(self, action: Any) -> Any:
        super().step(action)
        return self.stones


class SeenOutOfBounds(Turns):
    def observe(self, agent: str) -> Any:
        told = super().observe(agent)
        return told | {"observation": told["observation"] + np.int8(13)}


class SeenInDoubles(Turns):
    def observe(self, agent: str) -> Any:
        told = super().observe(agent)
        return told | {"observation": told["observation"].astype(np.float64)}


class PairsAsReward(Turns):
    def _clear_rewards(self) -> None:
        self.rewards: dict[str, Any] = {a: np.zeros(2) for a in self.agents}

    def add_up(self) -> None:
        for agent, reward in self.rewards.items():
            self._cumulative_rewards[agent] = self._cumulative_rewards[agent] + reward


class NothingToSee(Turns):
    def __init__(self) -> None:
        super().__init__()
        self.observation_spaces: dict[str, Any] = dict.fromkeys(
            self.possible_agents, spaces.Box(0, 1, (0,), np.float32)
        )

    def observe(self, agent: str) -> Any:
        return np.zeros(0, np.float32)

    def reset(self, seed: int | None = None, options: Any = None) -> None:
        super().reset(seed, options)
        self.infos = {a: {"action_mask": Turns.observe(self, a)["action_mask"]} for a in self.agents}

    def step(self, action: Any) -> None:
        super().step(action)
        self.infos = {a: {"action_mask": Turns.observe(self, a)["action_mask"]} for a in self.agents}


class OtherFirst(Turns):
    """Who begins is not drawn from the seed."""

    def reset(self, seed: int | None = None, options: Any = None) -> None:
        super().reset(seed, options)
        if next(SERIAL) % 2:
            self.agent_selection = self.selector.next()


PARALLEL, PARALLEL_SEED, TURNS, TURNS_SEED = "parallel_api_test", "parallel_seed_test", "api_test", "seed_test"
REFUSED: dict[str, tuple[str, str, dict[str, Any]]] = {
    # class: test that refuses it, id, part of where
    "ObservationsInAList": (PARALLEL, "observation_shape", {"call": "reset"}),
    "NoOptions": (PARALLEL, "unseeded", {"call": "reset"}),
    "NoInfos": (PARALLEL, "agent_vanishes", ONE | {"part": "infos"}),
    "InfosOfNobody": (PARALLEL, "agent_vanishes", ONE | {"part": "infos"}),
    "OneUnseen": (PARALLEL, "agent_vanishes", {"agent": "agent_1", "part": "observations"}),
    "RewardsInAList": (PARALLEL, "reward_type", {"call": "step"}),
    "BackFromTheDead": (PARALLEL, "agent_appears", {"agent": "agent_1"}),
    "NeverLeaves": (PARALLEL, "agent_appears", ONE),
    "LeavesEarly": (PARALLEL, "agent_vanishes", {"agent": "agent_1"}),
    "Unlisted": (PARALLEL, "agent_appears", {"agent": "agent_2"}),
    "SpaceAnew": (PARALLEL, "space_changes", ONE | {"space": "action"}),
    "SpaceOfAll": (PARALLEL_SEED, "space_changes", ONE | {"space": "action"}),
    "OtherStarts": (PARALLEL_SEED, "unseeded", ONE),
    "OtherRewards": (PARALLEL_SEED, "unseeded", ONE),
    "OtherInfos": (PARALLEL_SEED, "unseeded", ONE | {"part": "info"}),
    "NeverCleared": (TURNS, "reward_type", {"call": "last"}),
    "NotAddedUp": (TURNS, "no_reward_signal", {"agent": "player_0"}),
    "RewardsOfTheGone": (TURNS, "agent_appears", {"part": "rewards"}),
    "InfosOfTheGone": (TURNS, "agent_appears", {"part": "infos"}),
    "GoneAtOnce": (TURNS, "agent_vanishes", {}),
    "StaysForEver": (TURNS, "agent_appears", {}),
    "NumPyEnds": (TURNS, "agent_vanishes", {"part": "termination"}),
    "EndedAtTheStart": (TURNS, "agent_vanishes", {"call": "reset"}),
    "StepReturns": (TURNS, "action_rejected", {"call": "step"}),
    "SeenOutOfBounds": (TURNS, "observation_out_of_bounds", {}),
    "SeenInDoubles": (TURNS, "observation_dtype", {}),
    "PairsAsReward": (TURNS, "reward_type", {}),
    "NothingToSee": (TURNS, "observation_constant", {}),
    "OtherFirst": (TURNS_SEED, "unseeded", {}),
}
