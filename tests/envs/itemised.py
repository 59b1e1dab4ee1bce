"""Environments that report the terms of their rewards; without torch, for they run in workers."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from tests.envs.fakes import Walk

BONUS_FROM = 3


class Itemised(Walk):
    """A `Walk` rewarded by the own action, by the walk, and from the third step on by a bonus of 1.

    `odd` is reported instead from step `odd_from` on; episodes are then longer. From the step `rare_from` of all
    episodes together on there is another term, which is not heard of before.
    """

    drag = False

    def __init__(
        self, report: bool = True, odd_from: int | None = None, odd: Any = None, rare_from: int | None = None
    ) -> None:
        super().__init__(length=5 if odd_from is None else 40)
        self.rare_from, self.ever = rare_from, 0
        self.report, self.odd_from, self.odd = report, odd_from, odd

    def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
        obs, rewards, terminated, truncated, _ = super().step(actions)
        infos = {}
        self.ever += 1
        for i, agent in enumerate(rewards):
            terms = {"own": float(np.sum(actions[agent])), "walk": float(self.walk[i])}
            if self.steps >= BONUS_FROM:
                terms["bonus"] = 1.0
            if self.drag and agent == self.possible_agents[1]:
                terms["drag"] = -1.0
            if self.rare_from is not None and self.ever >= self.rare_from:
                terms["rare"] = 10.0
            rewards[agent] = sum(terms.values())
            odd = self.odd_from is not None and self.steps >= self.odd_from
            infos[agent] = {"reward_terms": self.odd if odd else terms} if self.report else {}
        return obs, rewards, terminated, truncated, infos


class Breaking(Itemised):
    """Raises in the third step of its second episode."""

    def __init__(self) -> None:
        super().__init__()
        self.episodes = 0

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        self.episodes += 1
        return super().reset(seed)

    def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
        if self.episodes == 3 and self.steps == 2:
            raise ValueError("the door is stuck")
        return super().step(actions)


class Apart(Itemised):
    """Two agents of different teams, of which the second has one term more."""

    drag = True

    def __init__(self) -> None:
        super().__init__()
        self.possible_agents = ["lead_0", "wing_0"]
        self.teams = {"lead": ["lead_0"], "wing": ["wing_0"]}


class Alone(gymnasium.Env[Any, Any]):
    """Pays for pushing, and charges for it."""

    observation_space = spaces.Box(-1, 1, (1,))
    action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        terms = {"push": float(action), "cost": -0.5 * float(action) ** 2}
        return np.zeros(1, np.float32), sum(terms.values()), False, False, {"reward_terms": terms}
