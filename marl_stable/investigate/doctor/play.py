"""One environment as the doctor plays it: agents at once, in turns, or a single one, all as steps of one form.

Nothing is converted, checked or forgiven, but for what leaves no way to go on: that raises a Fault.
"""

from __future__ import annotations

import importlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from marl_stable.envs.gymnasium import AGENT, SingleAgent
from marl_stable.investigate.doctor.findings import Fault, Finding, reason, short
from marl_stable.investigate.doctor.turns import Ledger

FIVE = "(observations, rewards, terminations, truncations, infos)"


@dataclass
class Moment:
    """What a reset or a step brought. The values are the environment's own objects."""

    obs: Mapping[str, Any]
    agents: list[str]  # afterwards
    infos: Mapping[str, Any] = field(default_factory=dict)
    acted: list[str] = field(default_factory=list)
    rewards: Mapping[str, Any] = field(default_factory=dict)
    terminated: Mapping[str, Any] = field(default_factory=dict)
    truncated: Mapping[str, Any] = field(default_factory=dict)
    over: bool = False


class Play(ABC):
    """An environment being played. Exceptions of the environment come out as Fault."""

    turn_based = False
    last_call = 0.0
    """When an environment was last called, by `time.perf_counter`."""

    def __init__(self, env: Any) -> None:
        self.env = env

    @property
    @abstractmethod
    def possible(self) -> list[str]:
        """Every agent that there can be."""

    @abstractmethod
    def deciding(self) -> list[str]:
        """The agents that act next."""

    def space(self, kind: str, agent: str) -> Any:
        """The agent's space; `kind` is "observation" or "action"."""
        try:
            return self._space(f"{kind}_space", agent)
        except Exception as error:
            what = f"The {kind} space of {agent} is not there: {reason(error)}."
            raise Fault(_fault("space_changes", {"agent": agent, "space": kind}, "none", what, SPACES)) from error

    def reset(self, seed: int | None) -> Moment:
        """Begin an episode."""
        Play.last_call = time.perf_counter()
        try:
            return self._reset(seed)
        except Fault:
            raise
        except Exception as error:
            raise Fault(_of_reset(error)) from error

    def step(self, actions: dict[str, Any]) -> Moment:
        """Act: an action for each agent that decides."""
        Play.last_call = time.perf_counter()
        try:
            return self._step(actions)
        except Fault:
            raise
        except Exception as error:
            given = {agent: short(action) for agent, action in list(actions.items())[:1]}
            what = f"step raises {reason(error)} on actions of their spaces, such as {given}."
            raise Fault(_fault("action_rejected", {"call": "step"}, short(given), what, REJECTED)) from error

    def slips(self) -> list[Finding]:
        """What was noticed on the way, beside what watchers see."""
        return []

    def close(self) -> None:
        """Close the environment; whether that works is no concern here."""
        try:
            self.env.close()
        except Exception:  # it has been examined by now
            return

    def _space(self, name: str, agent: str) -> Any:
        return getattr(self.env, name)(agent)

    @abstractmethod
    def _reset(self, seed: int | None) -> Moment: ...

    @abstractmethod
    def _step(self, actions: dict[str, Any]) -> Moment: ...


SPACES = "Give every agent of possible_agents both spaces, the same object at every call."
REJECTED = "Make step take every action of the action space, or narrow the space (or the mask) to what it takes."
FORM = "Return what PettingZoo's or Gymnasium's documentation says."


class ParallelPlay(Play):
    """A PettingZoo `ParallelEnv`."""

    @property
    def possible(self) -> list[str]:
        """Every agent that there can be."""
        return list(self.env.possible_agents)

    def deciding(self) -> list[str]:
        """The agents that act next."""
        return list(self.env.agents)

    def _reset(self, seed: int | None) -> Moment:
        result = self.env.reset(seed=seed)
        if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[0], Mapping):
            what = f"reset returns {short(result)} instead of (observations, infos)."
            raise Fault(_fault("observation_shape", {"call": "reset"}, type(result).__name__, what, FORM))
        return Moment(result[0], list(self.env.agents), result[1])

    def _step(self, actions: dict[str, Any]) -> Moment:
        acted = list(self.env.agents)
        result = _five(self.env.step(actions))
        for name, values in zip(("observations", "rewards", "terminations", "truncations"), result[:4], strict=True):
            if not isinstance(values, Mapping):
                what = f"step returns {short(values)} as {name}, which must be a dictionary by agent."
                id = "observation_shape" if name == "observations" else "reward_type"
                raise Fault(_fault(id, {"call": "step"}, type(values).__name__, what, FORM))
        obs, rewards, terminated, truncated, infos = result
        agents = list(self.env.agents)
        going = [agent for agent in agents if not (_is(terminated, agent) or _is(truncated, agent))]
        return Moment(obs, agents, infos, acted, rewards, terminated, truncated, not going)


class SinglePlay(Play):
    """A `gymnasium.Env`; its only agent is `agent_0`."""

    over = True

    @property
    def possible(self) -> list[str]:
        """The one agent."""
        return [AGENT]

    def deciding(self) -> list[str]:
        """The one agent, until the episode is over."""
        return [] if self.over else [AGENT]

    def _space(self, name: str, agent: str) -> Any:
        return getattr(self.env, name)

    def _reset(self, seed: int | None) -> Moment:
        result = self.env.reset(seed=seed)
        if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], Mapping):
            what = f"reset returns {short(result)} instead of (observation, info)."
            raise Fault(_fault("observation_shape", {"call": "reset"}, type(result).__name__, what, FORM))
        self.over = False
        return Moment({AGENT: result[0]}, [AGENT], {AGENT: result[1]})

    def _step(self, actions: dict[str, Any]) -> Moment:
        obs, reward, terminated, truncated, info = _five(self.env.step(actions[AGENT]))
        self.over = bool(terminated) or bool(truncated)
        rewards, ends, cuts = ({AGENT: part} for part in (reward, terminated, truncated))
        agents = [] if self.over else [AGENT]
        return Moment({AGENT: obs}, agents, {AGENT: info}, [AGENT], rewards, ends, cuts, self.over)


class TurnPlay(Play):
    """A PettingZoo `AECEnv`: a step is one turn. A reward is what an agent gained in it, as `env.last()` adds them up.

    `paid` and `told`: whether any of `env.rewards`, and of what `env.last()` reports, was not 0.
    """

    turn_based = True

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.paid = self.told = False
        self._totals: dict[str, Any] = {}
        self._ledger = Ledger()

    @property
    def possible(self) -> list[str]:
        """Every agent that there can be."""
        return list(self.env.possible_agents)

    def deciding(self) -> list[str]:
        """The agent whose turn it is."""
        return [self.env.agent_selection] if self._going() else []

    def _going(self) -> list[str]:
        env = self.env
        return [agent for agent in env.agents if not (_is(env.terminations, agent) or _is(env.truncations, agent))]

    def _reset(self, seed: int | None) -> Moment:
        self.env.reset(seed=seed)
        self._ledger.begin(self.env)
        self._totals = {}
        agents = list(self.env.agents)
        return Moment({agent: self.env.observe(agent) for agent in agents}, agents, dict(self.env.infos))

    def _step(self, actions: dict[str, Any]) -> Moment:
        actor = self.env.agent_selection
        self._act(actions[actor])
        rewards = self._gained(actor)
        present = list(self.env.agents)
        terminated, truncated = dict(self.env.terminations), dict(self.env.truncations)
        obs = {agent: self.env.observe(agent) for agent in present}
        infos = dict(self.env.infos)
        while self._going() and self.env.agent_selection not in self._going():
            self._take_away(self.env.agent_selection)
        agents, over = list(self.env.agents), not self._going()
        if over:
            self._empty()
        return Moment(obs, agents, infos, [actor], rewards, terminated, truncated, over)

    def slips(self) -> list[Finding]:
        """Promises of the turn-based interface that were broken; where nothing is ever told as reward, that says it."""
        silent = self.paid and not self.told
        return [slip for slip in self._ledger.slips.values() if not (silent and slip.where.get("call") == "last")]

    def _act(self, action: Any) -> None:
        there = list(self.env.agents)
        self._ledger.before(self.env)
        self._ledger.after(self.env, there, self.env.step(action))

    def _empty(self) -> None:
        """Give everybody who is left the turn that takes it away."""
        for _ in range(len(self.env.agents)):
            if left := list(self.env.agents):
                self._act(None)
                if set(left) == set(self.env.agents):
                    self._ledger.stay(left[0])
                    return

    def _gained(self, actor: str) -> dict[str, Any]:
        """What each agent gained; where that is no number, what `env.rewards` says."""
        immediate = dict(self.env.rewards)
        try:
            paid = [float(reward) for reward in immediate.values()]
            totals = {agent: float(total) for agent, total in self.env._cumulative_rewards.items()}
        except (TypeError, ValueError):
            return immediate
        self.paid = self.paid or any(paid)
        self.told = self.told or any(totals.values())
        before, self._totals = self._totals, totals
        return {agent: total - (0.0 if agent == actor else before.get(agent, 0.0)) for agent, total in totals.items()}

    def _take_away(self, dead: str) -> None:
        self._act(None)
        self._totals = dict(self.env._cumulative_rewards)
        if dead in self.env.agents:
            what = f"{dead} has ended, but step(None) does not take it out of env.agents."
            remedy = "Call self._was_dead_step(action) where the selected agent has ended."
            raise Fault(_fault("agent_appears", {"agent": dead}, "step(None)", what, remedy))


def play_of(made: Any) -> Play:
    """The way to play what `catalog.make_single` returned."""
    if isinstance(made, SingleAgent):
        return SinglePlay(made.env)
    turn_based = isinstance(made, importlib.import_module("pettingzoo").AECEnv)
    return TurnPlay(made) if turn_based else ParallelPlay(made)


PlayMaker = Callable[[], Play]
"""Makes one more of the same environment at every call."""


def _five(result: Any) -> tuple[Any, ...]:
    """What a step returns, in five parts."""
    if isinstance(result, tuple) and len(result) == 5:
        return result
    if isinstance(result, tuple) and len(result) == 4:
        what = "step returns four values, the old form whose `done` does not tell a time limit from a true end."
        remedy = f"Return {FIVE}."
        raise Fault(_fault("time_limit_as_termination", {"call": "step"}, 4, what, remedy))
    what = f"step returns {short(result)} instead of {FIVE}."
    raise Fault(_fault("action_rejected", {"call": "step"}, type(result).__name__, what, FORM))


def _is(ends: Mapping[str, Any], agent: str) -> bool:
    """Whether an end is told of an agent; what is no truth value is judged elsewhere."""
    try:
        return bool(ends.get(agent, False))
    except (TypeError, ValueError):
        return False


def _of_reset(error: Exception) -> Finding:
    if isinstance(error, TypeError) and "seed" in str(error):
        what = f"reset(seed=...) raises {reason(error)}."
        return _fault(
            "unseeded", {"call": "reset"}, "seed", what, "Give reset the arguments seed=None and options=None."
        )
    what = f"reset raises {reason(error)}."
    return _fault("reset_leak", {"call": "reset"}, type(error).__name__, what, "Make reset work at any time.")


def _fault(id: str, where: dict[str, Any], value: Any, what: str, remedy: str) -> Finding:
    return Finding(id, "error", where, value, what, remedy)
