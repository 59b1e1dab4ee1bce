"""Sound environments of every kind, in which the doctor may find nothing. Needs nothing else of the tests."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from pettingzoo import AECEnv, ParallelEnv  # type: ignore[import-untyped]
from pettingzoo.utils import AgentSelector  # type: ignore[import-untyped]

LIMIT = 16
NEAR = 0.12  # to the goal: an agent that comes as near has arrived


class Sound(ParallelEnv):  # type: ignore[misc]
    """Two agents walk to goals of their own on a square. Observations: position and goal; actions: a velocity."""

    metadata: ClassVar[dict[str, Any]] = {"name": "sound", "render_modes": []}
    render_mode = None
    bound = 2.0
    low, high = (-1.0, -1.0), (1.0, 1.0)

    def __init__(self, max_cycles: int = LIMIT) -> None:
        self.max_cycles = max_cycles
        self.possible_agents = ["agent_0", "agent_1"]
        self.agents: list[str] = []
        self.observation_spaces = {a: self.make_observation_space() for a in self.possible_agents}
        self.action_spaces = {a: self.make_action_space() for a in self.possible_agents}
        self.rng = np.random.default_rng(0)

    def make_observation_space(self) -> Any:
        return spaces.Box(-self.bound, self.bound, (4,), np.float32)

    def make_action_space(self) -> Any:
        return spaces.Box(np.array(self.low, np.float32), np.array(self.high, np.float32))

    def observation_space(self, agent: str) -> Any:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Any:
        return self.action_spaces[agent]

    def begin(self, seed: int | None) -> None:
        if seed is not None:
            self.rng = np.random.default_rng(seed)

    def draw(self) -> Any:
        return self.rng.uniform(-1, 1, (2, 2))

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        self.begin(seed)
        self.agents = self.possible_agents[:]
        self.t = 0
        self.place, self.goal = self.draw(), self.draw()
        return {a: self.see(a) for a in self.agents}, {a: self.info(a, None) for a in self.agents}

    def index(self, agent: str) -> int:
        return self.possible_agents.index(agent)

    def see(self, agent: str) -> Any:
        i = self.index(agent)
        return np.concatenate([self.place[i], self.goal[i]]).astype(np.float32)

    def distance(self, agent: str) -> float:
        i = self.index(agent)
        return float(np.linalg.norm(self.place[i] - self.goal[i]))

    def move(self, agent: str, action: Any) -> None:
        i = self.index(agent)
        self.place[i] = np.clip(self.place[i] + 0.2 * np.asarray(action, float), -1, 1)

    def terms(self, agent: str) -> dict[str, Any]:
        return {"distance": -self.distance(agent), "arrival": float(self.distance(agent) < NEAR)}

    def pay(self, agent: str, action: Any) -> Any:
        return float(sum(self.terms(agent).values()))

    def info(self, agent: str, action: Any) -> dict[str, Any]:
        return {} if action is None else {"reward_terms": self.terms(agent)}

    def terminates(self) -> bool:
        return False

    def truncates(self) -> bool:
        return self.t >= self.max_cycles

    def leave(self, agents: list[str], terminated: dict[str, bool], truncated: dict[str, bool]) -> None:
        self.agents = [a for a in agents if not (terminated[a] or truncated[a])]

    def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
        self.t += 1
        acting = list(self.agents)
        for agent in acting:
            self.move(agent, actions[agent])
        obs = {a: self.see(a) for a in acting}
        rewards = {a: self.pay(a, actions[a]) for a in acting}
        infos = {a: self.info(a, actions[a]) for a in acting}
        terminated = dict.fromkeys(acting, self.terminates())
        truncated = dict.fromkeys(acting, self.truncates())
        self.leave(acting, terminated, truncated)
        return obs, rewards, terminated, truncated, infos


class Untold(Sound):
    """The same without reward terms."""

    def info(self, agent: str, action: Any) -> dict[str, Any]:
        return {}


class Talkative(Sound):
    """Sound, but that it prints, from Python and below it."""

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        print("hello from Python")  # noqa: T201
        os.write(1, b"hello from below\n")
        return super().reset(seed, options)


class Masked(Sound):
    """Agents step left, right or not at all along a line, and not over its ends."""

    def make_action_space(self) -> Any:
        return spaces.Discrete(3)

    def make_observation_space(self) -> Any:
        features = spaces.Box(-self.bound, self.bound, (4,), np.float32)
        return spaces.Dict({"observation": features, "action_mask": spaces.Box(0, 1, (3,), np.int8)})

    def see(self, agent: str) -> Any:
        return {"observation": super().see(agent), "action_mask": self.mask(agent)}

    def mask(self, agent: str) -> Any:
        x = self.place[self.index(agent), 0]
        return np.array([x > -0.8, 1, x < 0.8], np.int8)

    def move(self, agent: str, action: Any) -> None:
        assert self.mask(agent)[action], "over the end"
        super().move(agent, [action - 1, 0.3 * (action - 1)])


class MaskInInfo(Masked):
    def make_observation_space(self) -> Any:
        return Sound.make_observation_space(self)

    def see(self, agent: str) -> Any:
        return Sound.see(self, agent)

    def info(self, agent: str, action: Any) -> dict[str, Any]:
        return super().info(agent, action) | {"action_mask": self.mask(agent)}


class Parts(Sound):
    """The same observation in named parts."""

    def make_observation_space(self) -> Any:
        box = spaces.Box(-2, 2, (2,), np.float32)
        return spaces.Dict({"goal": box, "place": box, "side": spaces.Discrete(2)})

    def see(self, agent: str) -> Any:
        obs = super().see(agent)
        return {"goal": obs[2:], "place": obs[:2], "side": int(obs[0] > 0)}


class Single(gymnasium.Env[Any, Any]):
    """A `gymnasium.Env`: one agent walks to a goal on a line."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        self.x, self.goal = self.np_random.uniform(-1, 1, 2)
        return self.see(), {}

    def see(self) -> Any:
        return np.array([self.x, self.goal], np.float32)

    def step(self, action: Any) -> Any:
        self.t += 1
        self.x = float(np.clip(self.x + 0.1 * (action - 1), -1, 1))
        there = abs(self.x - self.goal) < 0.05
        return self.see(), -abs(self.x - self.goal), there, self.t >= LIMIT, {}


class Turns(AECEnv):  # type: ignore[misc]
    """Two players take turns to take one to three of eleven stones; the last to take any wins."""

    metadata: ClassVar[dict[str, Any]] = {"name": "turns", "is_parallelizable": False, "render_modes": []}
    render_mode = None

    def __init__(self) -> None:
        super().__init__()
        self.possible_agents = ["player_0", "player_1"]
        self.action_spaces = {a: spaces.Discrete(3) for a in self.possible_agents}
        seen: dict[str, Any] = {"observation": spaces.Box(0, 20, (2,), np.int8)}
        seen["action_mask"] = spaces.Box(0, 1, (3,), np.int8)
        self.observation_spaces = {a: spaces.Dict(seen) for a in self.possible_agents}

    def observation_space(self, agent: str) -> Any:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Any:
        return self.action_spaces[agent]

    def observe(self, agent: str) -> Any:
        mask = np.array([self.stones > i for i in range(3)], np.int8)
        return {"observation": np.array([self.stones, self.start], np.int8), "action_mask": mask}

    def reset(self, seed: int | None = None, options: Any = None) -> None:
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.agents = self.possible_agents[:]
        self.start = self.stones = int(self.rng.integers(8, 20))
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos: dict[str, dict[str, Any]] = {a: {} for a in self.agents}
        self.selector = AgentSelector(self.agents)
        self.agent_selection = self.selector.next()

    def step(self, action: Any) -> None:
        if self.terminations[self.agent_selection]:
            self.leave(action)
            return
        actor = self.agent_selection
        self._cumulative_rewards[actor] = 0.0
        self._clear_rewards()
        self.stones -= int(action) + 1
        assert self.stones >= 0, "more than there are"
        if self.stones == 0:
            self.rewards = {a: 1.0 if a == actor else -1.0 for a in self.agents}
            self.terminations = dict.fromkeys(self.agents, True)
        self.agent_selection = self.selector.next()
        self.add_up()

    def leave(self, action: Any) -> None:
        self._was_dead_step(action)

    def add_up(self) -> None:
        self._accumulate_rewards()


class Eventful(Sound):
    """The last feature tells of something rare, which does not happen to everybody."""

    def see(self, agent: str) -> Any:
        obs = super().see(agent)
        obs[3] = float(agent == "agent_0" and self.place[0].min() > 0.8)
        return obs


SOUND = ("Sound", "Eventful", "Untold", "Masked", "MaskInInfo", "Parts", "Single", "Turns", "Talkative")
