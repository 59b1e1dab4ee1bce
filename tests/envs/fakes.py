"""Small environments whose every number is known, for the tests of this folder."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces


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
