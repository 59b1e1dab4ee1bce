"""One copy of a turn-based PettingZoo `AECEnv` as arrays by group. NumPy only, for a process without torch to run it.

Shapes: A agents of one group, O observation features, D action features, C choices, K reward terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from marl_stable.envs.copies import Copy, CopyStep, single_number
from marl_stable.envs.terms import add_up, terms_in, write_terms
from marl_stable.types import EnvironmentFailure


class TurnCopy(Copy):
    """Adapts one `AECEnv`: a step is one turn, in which only `env.agent_selection` acts and is `alive`.

    Every agent is observed after every turn. A step's reward is what each agent gained in it, whoever acted: over an
    episode they add up to what `env.last()` would have told. Terms may be reported as parts of that gain, or of all
    that the agent gained since its last turn, beside which `env.last()` has them. An agent that ends when it is not its
    turn is marked in the step in which it ends. The steps that PettingZoo asks for to take the dead away are made
    inside, and are no turns. An agent that leaves without having been terminated or truncated counts as terminated.
    """

    turn_based: ClassVar[bool] = True

    def __init__(self, env: Any, env_id: str) -> None:
        self._ended: set[str] = set()  # and still in env.agents
        self._totals: dict[str, float] = {}  # each agent's reward since its last turn, as of the last look
        self._parts: dict[str, NDArray[np.float32]] = {}  # the same by term: (K,)
        super().__init__(env, env_id)
        self._deciders = {
            agent: (name, row, decode) for name, agents, decode in self._decoders for row, agent in enumerate(agents)
        }

    def reset(self, seed: int) -> dict[str, NDArray[np.float32]]:
        """Begin an episode; the first observations, `(A, O)` per group."""
        self.env.reset(seed=seed)
        self._clear()
        self._ended, self._totals, self._parts = set(), {}, {}
        if not self.env.agents:
            raise EnvironmentFailure("reset left env.agents empty")
        self._refuse_strangers()
        self._look_around()
        return self._arrays.obs

    def step(self, actions: Mapping[str, NDArray[Any]]) -> CopyStep:
        """Play one turn. `actions`: `(A,)` or `(A, C)` int64 or `(A, D)` float32 per group; the actor's row counts."""
        actor, before = self.env.agent_selection, list(self.env.agents)
        name, row, decode = self._deciders[actor]
        self.env.step(decode(actions[name][row : row + 1])[0])
        self._clear()
        self._seats[actor].alive[row] = True
        self._record(actor, before)
        while not self._over() and self._is_dead(self.env.agent_selection):
            self._take_away(self.env.agent_selection)
        if not self._over():
            self._look_around()
        return CopyStep(*self._arrays, done=self._over())

    def infos(self) -> Any:
        """The infos of the last turn."""
        return self.env.infos

    def _first_infos(self) -> Any:
        self.env.reset(seed=0)
        return self.env.infos

    def _over(self) -> bool:
        return self._ended >= set(self.env.agents)

    def _is_dead(self, agent: str) -> bool:
        return bool(self.env.terminations[agent] or self.env.truncations[agent])

    def _take_away(self, dead: str) -> None:
        before = list(self.env.agents)
        self.env.step(None)
        if dead in self.env.agents:
            raise EnvironmentFailure(f"{dead} has ended, but step(None) does not take it out of env.agents")
        self._record(None, before)

    def _record(self, actor: str | None, before: list[str]) -> None:
        """Write what a step brought to the agents: rewards, ends, and the last observations of those it ended.

        In the order of the environment, since to observe may be to draw random numbers.
        """
        self._refuse_strangers()
        present = set(self.env.agents)
        with np.errstate(over="ignore"):  # a float64 too large for float32 becomes inf, for the guard to judge
            self._pay(actor)
        for agent in before:
            if agent in self._ended:
                continue
            terminated = agent not in present or bool(self.env.terminations[agent])
            if terminated or self.env.truncations[agent]:
                seat = self._seats[agent]
                (seat.terminated if terminated else seat.truncated)[seat.row] = True
                self._ended.add(agent)
                if agent in present:
                    self._look(agent, terminated)
        self._ended &= present  # who leaves env.agents may come back to a new life

    def _refuse_strangers(self) -> None:
        if strangers := set(self.env.agents) - self._seats.keys():
            raise EnvironmentFailure(f"env.agents holds {min(strangers)!r}, which is not in possible_agents")

    def _pay(self, actor: str | None) -> None:
        """Write what each agent gained since the last look. The actor's total began anew with its turn."""
        totals = {agent: single_number(total, agent) for agent, total in self.env._cumulative_rewards.items()}
        for agent, total in totals.items():
            seat = self._seats[agent]
            gain = total - (0.0 if agent == actor else self._totals.get(agent, 0.0))
            seat.reward[seat.row] += gain
            if seat.terms is not None:
                if agent == actor:
                    self._parts.pop(agent, None)
                self._itemise(agent, seat.terms, seat.columns, gain, total)
        self._totals = totals

    def _itemise(
        self, agent: str, row: NDArray[np.float32], columns: dict[str, int], gain: float, total: float
    ) -> None:
        """Add to `row (K,)` the terms of what `agent` gained, out of the `total` since its last turn."""
        told = np.zeros_like(row)
        write_terms(told, columns, terms_in(self.env.infos, agent))
        before = self._parts.get(agent, np.zeros_like(row))
        if not add_up(told, gain):
            if add_up(told, total):
                told -= before
            elif gain == 0:  # an info of an earlier turn that was left where it is
                told[...] = 0
        self._parts[agent] = before + told
        row += told

    def _look_around(self) -> None:
        """Write what every agent sees that goes on; the mask of the agent to act must allow something."""
        for agent in self.env.agents:
            if agent not in self._ended:
                self._look(agent)
        self._require_choice([self.env.agent_selection])

    def _look(self, agent: str, terminated: bool = False) -> None:
        observation = self.env.observe(agent)
        if observation is not None or not terminated:  # of the dead alone no last observation is asked
            with np.errstate(over="ignore"):
                self._write(agent, observation, self.env.infos)
