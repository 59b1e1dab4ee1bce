"""One copy of a Python environment as arrays by group: what `pettingzoo.py` and `aec.py` share.

NumPy only, so that a process without torch can run it. Shapes: A agents of one group, O observation features, D action
features, C choices, K reward terms, n actions of a Discrete space.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from gymnasium.spaces import Discrete as DiscreteSpace
from numpy.typing import NDArray

from marl_stable.envs.decoding import Decoder, action_decoder
from marl_stable.envs.groups import agents_of, groups_of, teams_of
from marl_stable.envs.spaces import MASK, Writer, fixed_space, holds_mask, observation_writer, write_mask
from marl_stable.types import Discrete, EnvironmentFailure, EnvSpec


class Arrays(NamedTuple):
    """What a copy writes, one array per group; a leading axis of copies where several write side by side."""

    obs: dict[str, NDArray[np.float32]]  # (A, O)
    reward: dict[str, NDArray[np.float32]]  # (A,)
    terminated: dict[str, NDArray[np.bool_]]  # (A,)
    truncated: dict[str, NDArray[np.bool_]]  # (A,)
    alive: dict[str, NDArray[np.bool_]]  # (A,): the agent acted in this step
    terms: dict[str, NDArray[np.float32]]  # (A, K): `reward` by term, of groups that have terms

    @classmethod
    def zeros(cls, spec: EnvSpec, *leading: int) -> Arrays:
        """Arrays for the groups of `spec`, with `leading` axes before the agents."""
        rows = {group.name: (*leading, len(group.agents)) for group in spec.groups}
        terminated, truncated, alive = ({g: np.zeros(shape, np.bool_) for g, shape in rows.items()} for _ in range(3))
        return cls(
            {group.name: np.zeros((*rows[group.name], group.obs_size), np.float32) for group in spec.groups},
            {name: np.zeros(shape, np.float32) for name, shape in rows.items()},
            terminated,
            truncated,
            alive,
            {g.name: np.zeros((*rows[g.name], len(g.terms)), np.float32) for g in spec.groups if g.terms},
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
    terms: dict[str, NDArray[np.float32]]  # (A, K), of groups that have terms
    done: bool


class _Seat(NamedTuple):
    """One agent's place in the arrays."""

    row: int
    write: Writer
    obs: NDArray[np.float32]  # (O,), a view; without the mask where that comes from the info
    reward: NDArray[np.float32]  # (A,)
    terminated: NDArray[np.bool_]  # (A,)
    truncated: NDArray[np.bool_]  # (A,)
    alive: NDArray[np.bool_]  # (A,)
    terms: NDArray[np.float32] | None  # (K,), a view; None where the group has no terms
    columns: dict[str, int]  # of the terms


class Copy(ABC):
    """What copies of either kind share: the groups, and every agent's place in the arrays.

    An agent that is absent or dead has an observation of zeros. Non-finite observations and rewards are passed on as
    they are. Raises UsageError at construction for an environment that is not supported, and EnvironmentFailure where
    one breaks the PettingZoo interface later.
    """

    turn_based: ClassVar[bool] = False

    def __init__(self, env: Any, env_id: str) -> None:
        self.env = env
        agents = agents_of(env, env_id)
        observed = {agent: fixed_space(env.observation_space, agent, "observation") for agent in agents}
        action_spaces = {agent: fixed_space(env.action_space, agent, "action") for agent in agents}
        itself = {agent for agent in agents if holds_mask(observed[agent], action_spaces[agent], agent)}
        others = {agent for agent in agents if isinstance(action_spaces[agent], DiscreteSpace)} - itself
        by_info = others & self._masked_by_info() if others else others
        if self.turn_based and by_info:  # an info has the mask of who is to move: the others' come with their turns
            by_info = others
        groups = groups_of(agents, observed, action_spaces, teams_of(env_id, env, agents), by_info)
        self.spec = EnvSpec(env_id, agents, groups, self.turn_based)
        self.spaces = {agent: (observed[agent], action_spaces[agent]) for agent in agents}
        self._by_info = {agent for group in groups if group.masked for agent in group.agents} - itself
        self._writers = {agent: observation_writer(space) for agent, space in observed.items()}
        self._decoders: list[tuple[str, tuple[str, ...], Decoder]] = [
            (group.name, group.agents, action_decoder(group.action)) for group in groups
        ]
        self.write_into(Arrays.zeros(self.spec))

    def name_terms(self, names: Mapping[str, tuple[str, ...]]) -> None:
        """From now on write the reward terms that `names` has of each group; `write_into` must be called after this."""
        groups = tuple(group._replace(terms=tuple(names.get(group.name, ()))) for group in self.spec.groups)
        self.spec = self.spec._replace(groups=groups)

    def write_into(self, arrays: Arrays) -> None:
        """Write all further results into `arrays` (such as one copy's part of a larger batch)."""
        self._arrays = arrays
        self._flat = [array for kind in arrays for array in kind.values()]
        self._seats: dict[str, _Seat] = {}
        self._masks: dict[str, NDArray[np.float32]] = {}  # (n,), views of the rows of masked agents
        for group in self.spec.groups:
            columns = {term: column for column, term in enumerate(group.terms)}
            for row, agent in enumerate(group.agents):
                obs = arrays.obs[group.name][row]
                if group.masked:
                    assert isinstance(group.action, Discrete)
                    features, mask = obs[: -group.action.n], obs[-group.action.n :]
                    self._masks[agent] = mask
                    obs = features if agent in self._by_info else obs
                self._seats[agent] = _Seat(
                    row,
                    self._writers[agent],
                    obs,
                    arrays.reward[group.name],
                    arrays.terminated[group.name],
                    arrays.truncated[group.name],
                    arrays.alive[group.name],
                    arrays.terms[group.name][row] if columns else None,
                    columns,
                )

    @abstractmethod
    def reset(self, seed: int) -> dict[str, NDArray[np.float32]]:
        """Begin an episode; the first observations, `(A, O)` per group."""

    @abstractmethod
    def step(self, actions: Mapping[str, NDArray[Any]]) -> CopyStep:
        """Advance by one step. `actions`: `(A,)` or `(A, C)` int64 or `(A, D)` float32 per group."""

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    @abstractmethod
    def infos(self) -> Any:
        """The infos of the last step."""

    @abstractmethod
    def _first_infos(self) -> Any:
        """The infos of a reset."""

    def _masked_by_info(self) -> set[str]:
        """The agents whose info holds a mask, which nothing tells before a reset."""
        try:
            infos = self._first_infos()
        except Exception:  # the first reset of the training will say so, with its seed
            return set()
        return {agent for agent in infos if _mask_of(agent, infos) is not None} if isinstance(infos, Mapping) else set()

    def _clear(self) -> None:
        for array in self._flat:
            array.fill(0)

    def _write(self, agent: str, observation: Any, infos: Any) -> None:
        _, write, row, *_ = self._seats[agent]
        try:
            write(row, observation)
        except EnvironmentFailure as error:
            raise EnvironmentFailure(f"the observation of {agent} {error}") from None
        except (TypeError, ValueError, KeyError, IndexError) as error:
            raise EnvironmentFailure(f"the observation of {agent} does not fit its space: {error}") from error
        mask = _mask_of(agent, infos)
        if agent in self._by_info:
            self._write_mask(agent, mask)
        elif mask is not None and agent not in self._masks:
            raise EnvironmentFailure(f"the info of {agent} holds an {MASK}, {self._why_not_masked(agent)}")

    def _why_not_masked(self, agent: str) -> str:
        if not isinstance(self.spaces[agent][1], DiscreteSpace):
            return f"and its action space is {self.spaces[agent][1]}; masks are supported for Discrete actions only"
        return "and that of the first reset held none; it must have one from the first on, all 1 where all is legal"

    def _write_mask(self, agent: str, mask: Any) -> None:
        if mask is None:  # a step in which everything is legal
            self._masks[agent].fill(1)
            return
        try:
            write_mask(self._masks[agent], mask)
        except EnvironmentFailure as error:
            raise EnvironmentFailure(f"the info of {agent} {error}") from None

    def _require_choice(self, agents: Iterable[str]) -> None:
        """Refuse a mask that leaves an agent who is to act next no action."""
        for agent in agents:
            if agent in self._masks and not self._masks[agent].any():
                raise EnvironmentFailure(f"{agent} is to act next, but its action mask allows nothing")


def _mask_of(agent: str, infos: Any) -> Any:
    """The action mask in the agent's info, None where there is none. Infos may hold anything else besides."""
    info = infos.get(agent) if isinstance(infos, Mapping) else None
    return info.get(MASK) if isinstance(info, Mapping) else None


def single_number(value: Any, agent: str) -> float:
    """A reward as a float; EnvironmentFailure where it is no single number."""
    if isinstance(value, int | float) or getattr(value, "ndim", None) == 0:
        return float(value)
    raise EnvironmentFailure(f"the reward of {agent} is {value!r}; it must be one number")
