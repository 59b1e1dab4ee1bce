"""One copy of a PettingZoo `ParallelEnv` as arrays by group. NumPy only, so that a process without torch can run it.

Shapes: A agents of one group, O observation features, D action features.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Set
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marl_stable.envs.groups import groups_of, teams_of
from marl_stable.envs.spaces import Decoder, Writer, action_decoder, observation_writer
from marl_stable.types import EnvironmentFailure, EnvSpec, UsageError

MAX_AGENTS = 200


class Arrays(NamedTuple):
    """What a copy writes, one array per group; a leading axis of copies where several write side by side."""

    obs: dict[str, NDArray[np.float32]]  # (A, O)
    reward: dict[str, NDArray[np.float32]]  # (A,)
    terminated: dict[str, NDArray[np.bool_]]  # (A,)
    truncated: dict[str, NDArray[np.bool_]]  # (A,)
    alive: dict[str, NDArray[np.bool_]]  # (A,): the agent acted in this step

    @classmethod
    def zeros(cls, spec: EnvSpec, *leading: int) -> Arrays:
        """Arrays for the groups of `spec`, with `leading` axes before the agents."""
        rows = {group.name: (*leading, len(group.agents)) for group in spec.groups}
        return cls(
            {group.name: np.zeros((*rows[group.name], group.obs_size), np.float32) for group in spec.groups},
            {name: np.zeros(shape, np.float32) for name, shape in rows.items()},
            *({name: np.zeros(shape, np.bool_) for name, shape in rows.items()} for _ in range(3)),
        )

    def at(self, copy: int) -> Arrays:
        """Views of one copy's part."""
        return Arrays(*({name: array[copy] for name, array in kind.items()} for kind in self))


class CopyStep(NamedTuple):
    """One step of one copy. The arrays are the copy's own: its next `step` or `reset` overwrites them."""

    obs: dict[str, NDArray[np.float32]]  # (A, O): what the action led to, also at an episode's end
    reward: dict[str, NDArray[np.float32]]  # (A,)
    terminated: dict[str, NDArray[np.bool_]]  # (A,)
    truncated: dict[str, NDArray[np.bool_]]  # (A,): never together with terminated
    alive: dict[str, NDArray[np.bool_]]  # (A,)
    done: bool


class _Seat(NamedTuple):
    """One agent's place in the arrays."""

    row: int
    write: Writer
    obs: NDArray[np.float32]  # (O,), a view
    reward: NDArray[np.float32]  # (A,)
    terminated: NDArray[np.bool_]  # (A,)
    truncated: NDArray[np.bool_]  # (A,)
    alive: NDArray[np.bool_]  # (A,)


class ParallelCopy:
    """Adapts one `ParallelEnv`.

    An agent that is absent or dead has an observation of zeros, no reward and `alive` False. An agent that leaves
    `env.agents` without having been terminated or truncated counts as terminated. The episode is over once no
    agent is left that is neither. Non-finite observations and rewards are passed on as they are.

    Raises UsageError at construction for an environment that is not supported, and EnvironmentFailure where one
    breaks the PettingZoo interface later.
    """

    def __init__(self, env: Any, env_id: str) -> None:
        self.env = env
        agents = _possible_agents(env, env_id)
        observation_spaces = {agent: _stable_space(env.observation_space, agent, "observation") for agent in agents}
        action_spaces = {agent: _stable_space(env.action_space, agent, "action") for agent in agents}
        groups = groups_of(agents, observation_spaces, action_spaces, teams_of(env_id, env, agents))
        self.spec = EnvSpec(env_id, agents, groups)
        self.spaces = {agent: (observation_spaces[agent], action_spaces[agent]) for agent in agents}
        self._writers = {agent: observation_writer(space) for agent, space in observation_spaces.items()}
        self._decoders: list[tuple[str, tuple[str, ...], Decoder]] = [
            (group.name, group.agents, action_decoder(action_spaces[group.agents[0]])) for group in groups
        ]
        self._ended: set[str] = set()
        self.write_into(Arrays.zeros(self.spec))

    def write_into(self, arrays: Arrays) -> None:
        """Write all further results into `arrays` (such as one copy's part of a larger batch)."""
        self._arrays = arrays
        self._flat = [array for kind in arrays for array in kind.values()]
        self._seats = {
            agent: _Seat(
                row,
                self._writers[agent],
                arrays.obs[group.name][row],
                arrays.reward[group.name],
                arrays.terminated[group.name],
                arrays.truncated[group.name],
                arrays.alive[group.name],
            )
            for group in self.spec.groups
            for row, agent in enumerate(group.agents)
        }

    def reset(self, seed: int) -> dict[str, NDArray[np.float32]]:
        """Begin an episode; the first observations, `(A, O)` per group."""
        result = self.env.reset(seed=seed)
        if not isinstance(result, tuple) or len(result) != 2:
            raise EnvironmentFailure("reset must return (observations, infos)")
        self._ended = set()
        self._clear()
        present = set(self.env.agents)
        if not present:
            raise EnvironmentFailure("reset left env.agents empty")
        with np.errstate(over="ignore"):
            self._observe(present, result[0])
        return self._arrays.obs

    def step(self, actions: Mapping[str, NDArray[Any]]) -> CopyStep:
        """Advance by one step. `actions`: `(A,)` int64 or `(A, D)` float32 per group."""
        acting = list(self.env.agents)
        result = self.env.step(self._moves(acting, actions))
        if not isinstance(result, tuple) or len(result) != 5:
            raise EnvironmentFailure("step must return (observations, rewards, terminations, truncations, infos)")
        present = set(self.env.agents)
        self._clear()
        with np.errstate(over="ignore"):  # a float64 too large for float32 becomes inf, for the guard to judge
            ended = {agent for agent in acting if agent not in self._ended and self._record(agent, present, result)}
            self._observe(present.difference(acting), result[0])
        self._ended = (self._ended | ended) & present  # who leaves env.agents may come back to a new life
        return CopyStep(*self._arrays, done=self._ended == present)

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def _moves(self, acting: Iterable[str], actions: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        every: dict[str, Any] = {}
        for name, agents, decode in self._decoders:
            every.update(zip(agents, decode(actions[name]), strict=True))
        return {agent: every[agent] for agent in acting}

    def _record(self, agent: str, present: Set[str], result: tuple[Any, ...]) -> bool:
        """Write what the step brought to an agent that acted in it; whether its life ended."""
        observations, rewards, terminations, truncations, _ = result
        try:
            reward, terminated, truncated = rewards[agent], bool(terminations[agent]), bool(truncations[agent])
        except KeyError:
            raise EnvironmentFailure(f"{agent} acted but is missing from {_lacking(agent, result)}") from None
        if not truncated and agent not in present:
            terminated = True
        row, _, _, rewards_of, terminated_of, truncated_of, alive_of = self._seats[agent]
        alive_of[row] = True
        rewards_of[row] = reward if type(reward) is float else _number(reward, agent)
        if terminated:
            terminated_of[row] = True
        elif truncated:
            truncated_of[row] = True
        if not terminated or observations.get(agent) is not None:  # of the dead alone no last observation is asked
            self._write(agent, observations)
        return terminated or truncated

    def _clear(self) -> None:
        for array in self._flat:
            array.fill(0)

    def _observe(self, agents: Iterable[str], observations: Mapping[str, Any]) -> None:
        for agent in agents:
            if agent not in self._seats:
                raise EnvironmentFailure(f"env.agents holds {agent!r}, which is not in possible_agents")
            self._write(agent, observations)
        self._refuse_strangers(observations)

    def _write(self, agent: str, observations: Mapping[str, Any]) -> None:
        if agent not in observations:
            raise EnvironmentFailure(f"{agent} is missing from the observations")
        _, write, row, *_ = self._seats[agent]
        try:
            write(row, observations[agent])
        except EnvironmentFailure as error:
            raise EnvironmentFailure(f"the observation of {agent} {error}") from None
        except (TypeError, ValueError, KeyError, IndexError) as error:
            raise EnvironmentFailure(f"the observation of {agent} does not fit its space: {error}") from error

    def _refuse_strangers(self, observations: Mapping[str, Any]) -> None:
        if not observations.keys() <= self._seats.keys():
            strangers = ", ".join(map(repr, observations.keys() - self._seats.keys()))
            raise EnvironmentFailure(f"the observations hold {strangers}, not in possible_agents")


def _possible_agents(env: Any, env_id: str) -> tuple[str, ...]:
    try:
        agents = tuple(env.possible_agents)
    except AttributeError:
        raise UsageError(
            f"{env_id} does not say which agents it can have; give it an attribute possible_agents before reset."
        ) from None
    if not agents or len(agents) > MAX_AGENTS:
        raise UsageError(f"{env_id} has {len(agents)} agents; for now from 1 to {MAX_AGENTS} are supported.")
    if not all(isinstance(agent, str) for agent in agents):
        raise UsageError(f"{env_id} names its agents {list(agents[:3])}; agent names must be text such as agent_0.")
    if len(set(agents)) != len(agents):
        raise UsageError(f"{env_id} has possible_agents {list(agents)}; every name must appear once.")
    return agents


def _stable_space(space_of: Any, agent: str, kind: str) -> Any:
    with warnings.catch_warnings():  # PettingZoo warns where the method is left to its own default
        warnings.simplefilter("ignore")
        space, again = space_of(agent), space_of(agent)
    if space != again:
        raise UsageError(
            f"the {kind} space of {agent} changes between calls ({space}, then {again}); it must be fixed."
        )
    return space


def _lacking(agent: str, result: tuple[Any, ...]) -> str:
    names = ("rewards", "terminations", "truncations")
    return " and ".join(name for name, values in zip(names, result[1:4], strict=True) if agent not in values)


def _number(value: Any, agent: str) -> float:
    if isinstance(value, int | float) or getattr(value, "ndim", None) == 0:
        return float(value)
    raise EnvironmentFailure(f"the reward of {agent} is {value!r}; it must be one number")
