"""Sound environments, and each of them with one planted bug of the kind that people really write.

`PLANTED` says which id the doctor must give each bug, and where. Nothing else may be found in it, and nothing at all in
the sound ones.
"""

from __future__ import annotations

import os
import time
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


class NaNReward(Untold):
    def pay(self, agent: str, action: Any) -> Any:
        with np.errstate(invalid="ignore"):
            return float(np.log(1.5 - self.distance(agent)))


class VectorReward(Untold):
    def pay(self, agent: str, action: Any) -> Any:
        return np.array([-self.distance(agent)])


class NoneReward(Untold):
    def pay(self, agent: str, action: Any) -> Any:
        if self.distance(agent) > NEAR:
            return None
        return 1.0


class EnormousReward(Untold):
    def pay(self, agent: str, action: Any) -> Any:
        return -1e12 * self.distance(agent)


class LargeReward(Untold):
    def pay(self, agent: str, action: Any) -> Any:
        return -1e5 * self.distance(agent)


class TinyReward(Untold):
    def pay(self, agent: str, action: Any) -> Any:
        return -1e-6 * self.distance(agent)


class OffsetReward(Untold):
    def pay(self, agent: str, action: Any) -> Any:
        return 1000 - self.distance(agent)


class SpikingReward(Untold):
    def pay(self, agent: str, action: Any) -> Any:
        distance = self.distance(agent)
        return -1 / (distance + 1e-3) ** 3 if distance < 0.7 * NEAR else -distance


class NoReward(Untold):
    def pay(self, agent: str, action: Any) -> Any:
        return 0.0


class OneIsNeverPaid(Untold):
    def pay(self, agent: str, action: Any) -> Any:
        return -self.distance(agent) if agent == self.possible_agents[0] else 0.0


class ForgottenTerm(Sound):
    def pay(self, agent: str, action: Any) -> Any:
        return super().pay(agent, action) - 0.1 * float(np.square(action).sum())


class VectorTerm(Sound):
    def terms(self, agent: str) -> dict[str, Any]:
        i = self.index(agent)
        return {"distance": self.place[i] - self.goal[i]}

    def pay(self, agent: str, action: Any) -> Any:
        return -self.distance(agent)


class TimeLimitTerminates(Sound):
    def terminates(self) -> bool:
        return self.t >= self.max_cycles

    def truncates(self) -> bool:
        return False


class SeldomReachedLimitTerminates(Sound):
    """Most episodes end before the limit, which only setting it shows."""

    def __init__(self, max_cycles: int = 500) -> None:
        super().__init__(max_cycles)

    def terminates(self) -> bool:
        return self.t >= self.max_cycles or (self.t > 25 and any(self.distance(a) < 3 * NEAR for a in self.agents))

    def truncates(self) -> bool:
        return False


class Endless(Sound):
    def truncates(self) -> bool:
        return False


class NobodyThere(Sound):
    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        told = super().reset(seed, options)
        self.agents = []
        return told


class LongLimitTerminates(TimeLimitTerminates):
    def __init__(self, max_cycles: int = 150) -> None:
        super().__init__(max_cycles)


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


class DeadDimension(Sound):
    def move(self, agent: str, action: Any) -> None:
        super().move(agent, [action[0], action[0]])


class DeadAgent(Sound):
    """A wrong name in a loop: agent_1 does what agent_0 does."""

    def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
        return super().step(dict.fromkeys(actions, actions["agent_0"]))


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


class Unseeded(Sound):
    def draw(self) -> Any:
        return np.random.uniform(-1, 1, (2, 2))


class GlobalGenerator(Sound):
    def begin(self, seed: int | None) -> None:
        if seed is not None:
            np.random.seed(seed)

    def move(self, agent: str, action: Any) -> None:
        super().move(agent, action + np.random.normal(0, 0.1, 2))

    def draw(self) -> Any:
        return np.random.uniform(-1, 1, (2, 2))


class FreshEntropy(Sound):
    def begin(self, seed: int | None) -> None:
        self.rng = np.random.default_rng(seed)  # also where there is no seed


class LeakyNoise(Sound):
    """Noise from a generator that reset forgets."""

    def __init__(self) -> None:
        super().__init__()
        self.noise = np.random.default_rng(0)

    def move(self, agent: str, action: Any) -> None:
        super().move(agent, action + self.noise.normal(0, 0.1, 2))


class LeakyCounter(Sound):
    """Wind every 25 steps, counted over episodes."""

    clock = 0

    def move(self, agent: str, action: Any) -> None:
        self.clock += 1
        super().move(agent, action if self.clock % 25 else -np.asarray(action))


class SecondResetFails(Sound):
    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        if getattr(self, "t", 0) > 0:
            raise RuntimeError("the simulator is still running")
        return super().reset(seed, options)


class ClipsInPlace(Sound):
    def move(self, agent: str, action: Any) -> None:
        np.clip(action, -0.5, 0.5, out=action)
        super().move(agent, action)


class PopsActions(Sound):
    def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
        first = {"agent_0": actions.pop("agent_0")}
        return super().step(first | actions)


class RejectsExtremes(Sound):
    def move(self, agent: str, action: Any) -> None:
        assert np.abs(action).max() < 0.8, "too fast"
        super().move(agent, action)


class Sluggish(Sound):
    def move(self, agent: str, action: Any) -> None:
        pause()
        super().move(agent, action)


def pause() -> None:
    time.sleep(0.015)


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


class Parts(Sound):
    """The same observation in named parts."""

    def make_observation_space(self) -> Any:
        box = spaces.Box(-2, 2, (2,), np.float32)
        return spaces.Dict({"goal": box, "place": box, "side": spaces.Discrete(2)})

    def see(self, agent: str) -> Any:
        obs = super().see(agent)
        return {"goal": obs[2:], "place": obs[:2], "side": int(obs[0] > 0)}


class PartMissing(Parts):
    def see(self, agent: str) -> Any:
        return {key: part for key, part in super().see(agent).items() if key != "place"}


class PartOutOfRange(Parts):
    def see(self, agent: str) -> Any:
        obs = super().see(agent)
        return obs | {"side": obs["side"] + 1}


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


class OldStep(Single):
    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated or truncated, info


class OldReset(Single):
    def reset(self, **kwargs: Any) -> Any:
        return super().reset(**kwargs)[0]


class ResetTakesNoSeed(Single):
    def reset(self) -> Any:  # type: ignore[override]
        return super().reset()


class ResetTakesNoOptions(Single):
    def reset(self, seed: int | None = None) -> Any:  # type: ignore[override]
        return super().reset(seed=seed)


class NoActionSpace(Single):
    @property
    def action_space(self) -> Any:  # type: ignore[override]
        raise NotImplementedError


class StepReturnsNothing(Single):
    def step(self, action: Any) -> Any:
        super().step(action)


class WrongIndex(Single):
    observation_space = spaces.Discrete(10)  # type: ignore[assignment]

    def see(self) -> Any:
        return round((self.x + 1) * 5)  # 0 to 10


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


class NeverAddedUp(Turns):
    def add_up(self) -> None:
        pass


class LateMask(Turns):
    def observe(self, agent: str) -> Any:
        return super().observe(agent) | {"action_mask": np.ones(3, np.int8)}


class VectorRewardInTurns(Turns):
    def _clear_rewards(self) -> None:
        self.rewards: dict[str, Any] = {a: np.zeros(2) for a in self.agents}

    def add_up(self) -> None:
        for agent, reward in self.rewards.items():
            self._cumulative_rewards[agent] = self._cumulative_rewards[agent] + reward


class LeakyTurns(Turns):
    games = 0

    def reset(self, seed: int | None = None, options: Any = None) -> None:
        super().reset(seed, options)
        self.games += 1
        self.stones += self.games % 2


class NeverBegins(Sound):
    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        raise RuntimeError("no simulator")


class CannotBeMade(Sound):
    def __init__(self) -> None:
        raise FileNotFoundError("no map")


class Configured(Sound):
    def __init__(self, limit: Any) -> None:
        super().__init__(limit())


class Waiting(Sound):
    """Waits for an answer that never comes, in its third step."""

    def move(self, agent: str, action: Any) -> None:
        if self.t == 3:
            wait_for_ever()
        super().move(agent, action)


def wait_for_ever() -> None:
    while True:
        pass


class Eventful(Sound):
    """The last feature tells of something rare, which does not happen to everybody."""

    def see(self, agent: str) -> Any:
        obs = super().see(agent)
        obs[3] = float(agent == "agent_0" and self.place[0].min() > 0.8)
        return obs


SOUND = ("Sound", "Eventful", "Untold", "Masked", "MaskInInfo", "Parts", "Single", "Turns", "Talkative")

ONE, OTHER = {"agent": "agent_0"}, {"agent": "agent_1"}
PLANTED: dict[str, tuple[str, str, dict[str, Any]]] = {
    # class: id, severity, part of where
    "NaNObservation": ("observation_non_finite", "error", ONE | {"feature": 1}),
    "InfiniteSensor": ("observation_non_finite", "error", {"feature": 2}),
    "OutOfBounds": ("observation_out_of_bounds", "error", {}),
    "ExtraAxis": ("observation_shape", "error", ONE),
    "ShortObservation": ("observation_shape", "error", ONE),
    "DoublePrecision": ("observation_dtype", "warning", ONE),
    "ListObservation": ("observation_dtype", "warning", ONE),
    "WordObservation": ("observation_dtype", "error", ONE),
    "Aliased": ("observation_aliased", "error", ONE),
    "AliasedView": ("observation_aliased", "error", ONE),
    "NaNReward": ("reward_non_finite", "error", {}),
    "VectorReward": ("reward_type", "error", ONE),
    "NoneReward": ("reward_type", "error", {}),
    "EnormousReward": ("reward_scale_too_large", "error", ONE),
    "LargeReward": ("reward_scale_too_large", "warning", ONE),
    "TinyReward": ("reward_scale_too_small", "warning", ONE),
    "OffsetReward": ("reward_offset", "warning", ONE),
    "SpikingReward": ("reward_outliers", "warning", {}),
    "NoReward": ("no_reward_signal", "warning", {}),
    "OneIsNeverPaid": ("no_reward_signal", "warning", OTHER),
    "ForgottenTerm": ("reward_terms_sum", "error", ONE),
    "VectorTerm": ("reward_terms_sum", "error", ONE),
    "TimeLimitTerminates": ("time_limit_as_termination", "warning", {}),
    "SeldomReachedLimitTerminates": ("time_limit_as_termination", "warning", {"argument": "max_cycles"}),
    "Endless": ("endless_episode", "error", {}),
    "LongLimitTerminates": ("time_limit_as_termination", "warning", {}),
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
    "NewSpaceEachTime": ("space_changes", "warning", ONE | {"space": "action"}),
    "GrowingSpace": ("space_changes", "error", ONE | {"space": "observation"}),
    "OtherInstanceOtherSpace": ("space_changes", "error", {"space": "observation"}),
    "SpaceMissing": ("space_changes", "error", OTHER | {"space": "action"}),
    "LowEqualsHigh": ("action_range_mismatch", "error", ONE | {"dimension": 1}),
    "InfiniteActions": ("action_range_mismatch", "error", ONE | {"dimension": 0}),
    "TextAction": ("action_range_mismatch", "error", ONE),
    "DeadDimension": ("action_has_no_effect", "warning", ONE | {"dimension": 1}),
    "DeadAgent": ("action_has_no_effect", "error", OTHER | {"dimension": [0, 1]}),
    "ConstantFeature": ("observation_constant", "warning", ONE | {"feature": 3}),
    "BlindAgent": ("observation_constant", "warning", ONE | {"feature": "(all)"}),
    "DeadSensor": ("observation_constant", "warning", OTHER | {"feature": 3}),
    "SeenOnce": ("observation_constant", "warning", {}),
    "CopiedFeature": ("observation_constant", "warning", ONE | {"feature": 3}),
    "HugeFeature": ("observation_scale", "warning", ONE | {"feature": 1}),
    "TinyFeature": ("observation_scale", "warning", ONE | {"feature": 1}),
    "Unseeded": ("unseeded", "error", ONE),
    "GlobalGenerator": ("unseeded", "error", {}),
    "FreshEntropy": ("unseeded", "warning", {"call": "reset"}),
    "LeakyNoise": ("reset_leak", "error", ONE),
    "LeakyCounter": ("reset_leak", "error", {}),
    "SecondResetFails": ("reset_leak", "error", {"call": "reset"}),
    "ClipsInPlace": ("action_mutated", "error", {}),
    "PopsActions": ("action_mutated", "error", {}),
    "RejectsExtremes": ("action_rejected", "error", {"call": "step"}),
    "Sluggish": ("slow_step", "warning", {"call": "step"}),
    "EmptyMask": ("mask_allows_nothing", "error", {}),
    "EmptyMaskInObservation": ("mask_allows_nothing", "error", {}),
    "ShortMask": ("masking_error", "error", ONE),
    "MaskOfShares": ("masking_error", "error", {}),
    "MaskOfNumbers": ("masking_error", "error", ONE),
    "MaskIsWrong": ("action_rejected", "error", {"call": "step"}),
    "PartMissing": ("observation_shape", "error", ONE | {"part": "place"}),
    "PartOutOfRange": ("observation_out_of_bounds", "error", {"part": "side"}),
    "OldStep": ("time_limit_as_termination", "error", {"call": "step"}),
    "OldReset": ("observation_shape", "error", {"call": "reset"}),
    "ResetTakesNoSeed": ("unseeded", "error", {"call": "reset"}),
    "ResetTakesNoOptions": ("unseeded", "warning", {"call": "reset"}),
    "NoActionSpace": ("space_changes", "error", ONE | {"space": "action"}),
    "StepReturnsNothing": ("action_rejected", "error", {"call": "step"}),
    "WrongIndex": ("observation_out_of_bounds", "error", ONE),
    "NeverAddedUp": ("no_reward_signal", "error", {"agent": "player_0"}),
    "LateMask": ("action_rejected", "error", {"call": "step"}),
    "VectorRewardInTurns": ("reward_type", "error", {"agent": "player_0"}),
    "LeakyTurns": ("reset_leak", "error", {"agent": "player_0"}),
}
