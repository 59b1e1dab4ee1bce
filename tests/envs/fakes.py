"""Small environments whose every number is known, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from pettingzoo import AECEnv  # type: ignore[import-untyped]

from marl_stable.types import PerGroup


class Unsaved:
    """The part of a batched environment that a test without checkpoints has no use for."""

    def state_dict(self) -> dict[str, Any]:
        raise NotImplementedError

    def load_state_dict(self, state: dict[str, Any]) -> PerGroup:
        raise NotImplementedError

    def close(self) -> None:
        pass


class Walk:
    """A ParallelEnv whose observations are a random walk: they depend on the seed and on every action so far.

    Agent `i` observes `(steps, walk_i)` in float64 and is rewarded by its own action's sum.
    """

    metadata: dict[str, Any] = {"name": "walk"}  # noqa: RUF012 - PettingZoo's own form

    def __init__(self, agents: int = 2, length: int = 5, action: Any = None) -> None:
        self.possible_agents = [f"agent_{i}" for i in range(agents)]
        self.agents: list[str] = []
        self.length = length
        self.action = spaces.Discrete(3) if action is None else action
        self.received: list[dict[str, Any]] = []

    def observation_space(self, agent: str) -> Any:
        return spaces.Box(-np.inf, np.inf, (2,), np.float64)

    def action_space(self, agent: str) -> Any:
        return self.action

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        self.rng = np.random.default_rng(seed)
        self.steps = 0
        self.agents = list(self.possible_agents)
        self.walk = self.rng.normal(size=len(self.agents))
        return self.observations(), {agent: {} for agent in self.agents}

    def observations(self) -> dict[str, Any]:
        return {agent: np.array([self.steps, x]) for agent, x in zip(self.possible_agents, self.walk, strict=True)}

    def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
        acting = list(self.agents)
        assert list(actions) == acting
        self.received.append(actions)
        self.steps += 1
        rewards = {agent: float(np.sum(actions[agent])) for agent in acting}
        self.walk = self.walk + self.rng.normal(size=len(self.possible_agents)) + sum(rewards.values())
        over = self.steps >= self.length
        if over:
            self.agents = []
        return self.observations(), rewards, dict.fromkeys(acting, False), dict.fromkeys(acting, over), {}

    def close(self) -> None:
        pass


class Bystander(Walk):
    """The second agent has nothing to choose from."""

    def action_space(self, agent: str) -> Any:
        return spaces.Discrete(1) if agent == "agent_1" else self.action


class Scripted(Walk):
    """A ParallelEnv that plays back `script`: per step what `step` returns and the `env.agents` it leaves behind."""

    def __init__(self, script: list[tuple[Any, list[str]]], agents: int = 2) -> None:
        super().__init__(agents)
        self.script = script

    def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
        self.received.append(actions)
        result, self.agents = self.script[self.steps]
        self.steps += 1
        return result  # type: ignore[no-any-return]


class Turn(NamedTuple):
    """What one turn of `Turns` brings; `mask` is that of the agent who is next (None: all of its actions)."""

    rewards: dict[str, float] = {}  # noqa: RUF012 - never changed
    terminated: str = ""  # names in one text
    truncated: str = ""
    gone: str = ""  # leaves without a word
    mask: Any = None


class Turns(AECEnv):  # type: ignore[misc]
    """An AECEnv of agents in a circle: turn k brings what `script[k]` says.

    Every agent observes (turn, its number); the last entry of the script repeats. `masks` says where masks are given:
    "observation", "info" or nowhere. `dead_first`: the dead are next at once, as in most environments of PettingZoo.
    """

    metadata: dict[str, Any] = {"name": "turns", "is_parallelizable": False}  # noqa: RUF012 - PettingZoo's own form

    def __init__(self, script: Sequence[Turn], agents: int = 3, masks: str = "", dead_first: bool = True) -> None:
        super().__init__()
        self.possible_agents = [f"agent_{i}" for i in range(agents)]
        self.script, self.masks, self.dead_first = script, masks, dead_first
        self.received: list[tuple[str, Any]] = []

    def observation_space(self, agent: str) -> Any:
        plain = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        mask = spaces.Box(0, 1, (3,), np.int8)
        return spaces.Dict(observation=plain, action_mask=mask) if self.masks == "observation" else plain

    def action_space(self, agent: str) -> Any:
        return spaces.Discrete(3)

    def reset(self, seed: int | None = None, options: Any = None) -> None:
        self.turn = 0
        self.agents = list(self.possible_agents)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos: dict[str, Any] = {agent: {} for agent in self.agents} | {"common": {"action_mask": "a stranger"}}
        self.agent_selection = self.agents[0]
        self._skip_agent_selection = None
        self.mask: Any = np.array([1, 1, 1], np.int8)
        self._inform()

    def observe(self, agent: str) -> Any:
        plain = np.array([self.turn, self.possible_agents.index(agent)], np.float64)
        return {"action_mask": self._mask(agent), "observation": plain} if self.masks == "observation" else plain

    def step(self, action: Any) -> None:
        actor = self.agent_selection
        if self.terminations[actor] or self.truncations[actor]:
            order = self._after(actor)
            self._was_dead_step(action)
            if not self.dead_first and self.agents:
                self.agent_selection = next(agent for agent in order if agent in self.agents)
            return
        self.received.append((actor, action))
        happens = self.script[min(self.turn, len(self.script) - 1)]
        self.turn += 1
        self._cumulative_rewards[actor] = 0
        self.rewards = {agent: happens.rewards.get(agent, 0.0) for agent in self.agents}
        self._accumulate_rewards()
        order = self._after(actor)
        for agent in list(self.agents):
            self.terminations[agent] |= agent in happens.terminated
            self.truncations[agent] |= agent in happens.truncated
            if agent in happens.gone:
                self.agents.remove(agent)
                del self._cumulative_rewards[agent]
        left = [agent for agent in order if agent in self.agents]
        living = [agent for agent in left if not (self.terminations[agent] or self.truncations[agent])]
        self.agent_selection = (living if living and self.dead_first else left or [actor])[0]
        self.mask = np.array([1, 1, 1], np.int8) if happens.mask is None else happens.mask
        self._inform()
        if self.dead_first:
            self._deads_step_first()

    def _after(self, agent: str) -> list[str]:
        """The circle as it goes on after `agent`, who comes last."""
        place = self.agents.index(agent) + 1
        return self.agents[place:] + self.agents[:place]

    def _mask(self, agent: str) -> Any:
        return self.mask if agent == self.agent_selection else np.zeros(3, np.int8)

    def _inform(self) -> None:
        for agent in self.agents if self.masks == "info" else ():
            self.infos[agent] = {"action_mask": self.mask, "other": 1}
