"""One copy of a PettingZoo `ParallelEnv` as arrays by group. NumPy only, so that a process without torch can run it.

Shapes: A agents of one group, O observation features, D action features, C choices.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marl_stable.envs.copies import Copy, CopyStep, single_number
from marl_stable.envs.terms import terms_in, write_terms
from marl_stable.types import EnvironmentFailure


class ParallelCopy(Copy):
    """Adapts one `ParallelEnv`.

    An agent that is absent or dead has no reward, and `alive` is False. An agent that leaves `env.agents` without
    having been terminated or truncated counts as terminated. The episode is over once no agent is left that is neither.
    """

    def __init__(self, env: Any, env_id: str) -> None:
        self._ended: set[str] = set()
        self._infos: Any = {}
        super().__init__(env, env_id)

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
            self._observe(present, *result)
        if self._masks:
            self._require_choice(present)
        return self._arrays.obs

    def step(self, actions: Mapping[str, NDArray[Any]]) -> CopyStep:
        """Advance by one step. `actions`: `(A,)` or `(A, C)` int64 or `(A, D)` float32 per group."""
        acting = list(self.env.agents)
        result = self.env.step(self._moves(acting, actions))
        if not isinstance(result, tuple) or len(result) != 5:
            raise EnvironmentFailure("step must return (observations, rewards, terminations, truncations, infos)")
        self._infos = result[4]
        present = set(self.env.agents)
        self._clear()
        with np.errstate(over="ignore"):  # a float64 too large for float32 becomes inf, for the guard to judge
            ended = {agent for agent in acting if agent not in self._ended and self._record(agent, present, result)}
            self._observe(present.difference(acting), result[0], result[4])
        self._ended = (self._ended | ended) & present  # who leaves env.agents may come back to a new life
        if self._masks:
            self._require_choice(present - self._ended)
        return CopyStep(*self._arrays, done=self._ended == present)

    def infos(self) -> Any:
        """The infos of the last step."""
        return self._infos

    def _first_infos(self) -> Any:
        return self.env.reset(seed=0)[1]

    def _moves(self, acting: Iterable[str], actions: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        every: dict[str, Any] = {}
        for name, agents, decode in self._decoders:
            every.update(zip(agents, decode(actions[name]), strict=True))
        return {agent: every[agent] for agent in acting}

    def _record(self, agent: str, present: Set[str], result: tuple[Any, ...]) -> bool:
        """Write what the step brought to an agent that acted in it; whether its life ended."""
        observations, rewards, terminations, truncations, infos = result
        try:
            reward, terminated, truncated = rewards[agent], bool(terminations[agent]), bool(truncations[agent])
        except KeyError:
            raise EnvironmentFailure(f"{agent} acted but is missing from {_lacking(agent, result)}") from None
        if not truncated and agent not in present:
            terminated = True
        row, _, _, rewards_of, terminated_of, truncated_of, alive_of, terms, columns = self._seats[agent]
        alive_of[row] = True
        rewards_of[row] = reward if type(reward) is float else single_number(reward, agent)
        if terms is not None:
            write_terms(terms, columns, terms_in(infos, agent))
        if terminated:
            terminated_of[row] = True
        elif truncated:
            truncated_of[row] = True
        if not terminated or observations.get(agent) is not None:  # of the dead alone no last observation is asked
            self._see(agent, observations, infos)
        return terminated or truncated

    def _observe(self, agents: Iterable[str], observations: Mapping[str, Any], infos: Any) -> None:
        for agent in agents:
            if agent not in self._seats:
                raise EnvironmentFailure(f"env.agents holds {agent!r}, which is not in possible_agents")
            self._see(agent, observations, infos)

    def _see(self, agent: str, observations: Mapping[str, Any], infos: Any) -> None:
        if agent not in observations:
            raise EnvironmentFailure(f"{agent} is missing from the observations")
        self._write(agent, observations[agent], infos)


def _lacking(agent: str, result: tuple[Any, ...]) -> str:
    names = ("rewards", "terminations", "truncations")
    return " and ".join(name for name, values in zip(names, result[1:4], strict=True) if agent not in values)
