"""An environment in Python that goes wrong once, when it is told to; without torch, for it runs in workers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

LENGTH, CHOICES = 25, 3


class Lamps:
    """Two agents, each before three lamps, one of which is lit: a point for the action of its number.

    Where the file `token` exists, the copy that comes upon it first takes it away and raises, or hangs if `token` is
    called `hang`.
    """

    metadata: dict[str, Any] = {"name": "lamps"}  # noqa: RUF012 - PettingZoo's own form

    def __init__(self, token: str | None = None) -> None:
        self.possible_agents = ["agent_0", "agent_1"]
        self.agents: list[str] = []
        self.token = Path(token) if token else None

    def observation_space(self, agent: str) -> spaces.Box:
        """The lamps."""
        return spaces.Box(0.0, 1.0, (CHOICES,), np.float32)

    def action_space(self, agent: str) -> spaces.Discrete[np.int64]:
        """Their numbers."""
        return spaces.Discrete(CHOICES)

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin an episode."""
        self.random = np.random.default_rng(seed)
        self.agents, self.steps = list(self.possible_agents), 0
        return self.lit(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
        """Pay, and light other lamps."""
        if self.token is not None and self.token.exists():
            self.go_wrong(self.token)
        acting = list(self.agents)
        rewards = {agent: float(actions[agent] == lamp) for agent, lamp in zip(acting, self.lamps, strict=True)}
        self.steps += 1
        over = self.steps >= LENGTH
        self.agents = [] if over else acting
        return self.lit(), rewards, dict.fromkeys(acting, False), dict.fromkeys(acting, over), {}

    def lit(self) -> dict[str, NDArray[np.float32]]:
        """What everybody sees."""
        self.lamps = self.random.integers(CHOICES, size=len(self.possible_agents))
        return {
            agent: np.eye(CHOICES, dtype=np.float32)[lamp]
            for agent, lamp in zip(self.possible_agents, self.lamps, strict=True)
        }

    def go_wrong(self, token: Path) -> None:
        """Once: where another copy was faster, nothing happens."""
        try:
            token.unlink()
        except FileNotFoundError:
            return
        if token.name == "hang":
            time.sleep(3_600)
        raise RuntimeError("a fuse has blown")

    def close(self) -> None:
        """Nothing to release."""
