"""One environment as the doctor plays it: agents at once, in turns, or a single one, all as steps of one form.

Nothing is converted, checked or forgiven, but for what leaves no way to go on: that raises a Fault.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from marl_stable.envs.gymnasium import AGENT
from marl_stable.investigate.doctor.findings import Fault, Finding, reason, short

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
            raise Fault(fault("space_changes", {"agent": agent, "space": kind}, "none", what, SPACES)) from error

    def reset(self, seed: int | None) -> Moment:
        """Begin an episode."""
        Play.last_call = time.perf_counter()
        try:
            return self._reset(seed)
        except Fault:
            raise
        except (Exception, SystemExit) as error:
            raise Fault(_of_reset(error)) from error

    def step(self, actions: dict[str, Any]) -> Moment:
        """Act: an action for each agent that decides."""
        Play.last_call = time.perf_counter()
        try:
            return self._step(actions)
        except Fault:
            raise
        except (Exception, SystemExit) as error:
            given = {agent: short(action) for agent, action in list(actions.items())[:1]}
            what = f"step raises {reason(error)} on actions of their spaces, such as {given}."
            raise Fault(fault("action_rejected", {"call": "step"}, short(given), what, REJECTED)) from error

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
            raise Fault(fault("observation_shape", {"call": "reset"}, type(result).__name__, what, FORM))
        return Moment(result[0], list(self.env.agents), result[1])

    def _step(self, actions: dict[str, Any]) -> Moment:
        acted = list(self.env.agents)
        result = _five(self.env.step(actions))
        for name, values in zip(("observations", "rewards", "terminations", "truncations"), result[:4], strict=True):
            if not isinstance(values, Mapping):
                what = f"step returns {short(values)} as {name}, which must be a dictionary by agent."
                id = "observation_shape" if name == "observations" else "reward_type"
                raise Fault(fault(id, {"call": "step"}, type(values).__name__, what, FORM))
        obs, rewards, terminated, truncated, infos = result
        agents = list(self.env.agents)
        going = [agent for agent in agents if not (tells_end(terminated, agent) or tells_end(truncated, agent))]
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
            raise Fault(fault("observation_shape", {"call": "reset"}, type(result).__name__, what, FORM))
        self.over = False
        return Moment({AGENT: result[0]}, [AGENT], {AGENT: result[1]})

    def _step(self, actions: dict[str, Any]) -> Moment:
        obs, reward, terminated, truncated, info = _five(self.env.step(actions[AGENT]))
        self.over = bool(terminated) or bool(truncated)
        rewards, ends, cuts = ({AGENT: part} for part in (reward, terminated, truncated))
        agents = [] if self.over else [AGENT]
        return Moment({AGENT: obs}, agents, {AGENT: info}, [AGENT], rewards, ends, cuts, self.over)


PlayMaker = Callable[[], Play]
"""Makes one more of the same environment at every call."""


def _five(result: Any) -> tuple[Any, ...]:
    """What a step returns, in five parts."""
    if isinstance(result, tuple) and len(result) == 5:
        return result
    if isinstance(result, tuple) and len(result) == 4:
        what = "step returns four values, the old form whose `done` does not tell a time limit from a true end."
        remedy = f"Return {FIVE}."
        raise Fault(fault("time_limit_as_termination", {"call": "step"}, 4, what, remedy))
    what = f"step returns {short(result)} instead of {FIVE}."
    raise Fault(fault("action_rejected", {"call": "step"}, type(result).__name__, what, FORM))


def tells_end(ends: Mapping[str, Any], agent: str) -> bool:
    """Whether an end is told of an agent; what is no truth value is judged elsewhere."""
    try:
        return bool(ends.get(agent, False))
    except (TypeError, ValueError):
        return False


def _of_reset(error: BaseException) -> Finding:
    if isinstance(error, TypeError) and "seed" in str(error):
        what = f"reset(seed=...) raises {reason(error)}."
        return fault(
            "unseeded", {"call": "reset"}, "seed", what, "Give reset the arguments seed=None and options=None."
        )
    what = f"reset raises {reason(error)}."
    return fault("reset_leak", {"call": "reset"}, type(error).__name__, what, "Make reset work at any time.")


def fault(id: str, where: dict[str, Any], value: Any, what: str, remedy: str) -> Finding:
    """An error, by its parts."""
    return Finding(id, "error", where, value, what, remedy)
