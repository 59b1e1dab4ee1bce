"""Who is there from step to step, and whether everybody is told what there is to tell."""

from __future__ import annotations

from typing import Any

import numpy as np

from marl_stable.investigate.doctor.findings import Fault, Finding, Notebook, listed, short
from marl_stable.investigate.doctor.play import Moment, Play
from marl_stable.investigate.doctor.watching import Watched

PARTS = ("observations", "rewards", "terminations", "truncations", "infos")


class Presence:
    """Watches agents come and go."""

    def __init__(self, notes: Notebook) -> None:
        self._notes = notes
        self._before: list[str] = []
        self._gone: set[str] = set()
        self._age = 0

    def begin(self, play: Play, moment: Moment) -> None:
        """An episode begins."""
        self._age = 0
        self._gone = set()
        self._before = list(moment.agents)
        self._check_known(play, moment.agents)
        if not moment.agents:
            what = "reset leaves env.agents empty: there is nobody to act."
            self._vanished({"call": "reset"}, 0, what, "Fill self.agents in reset, as in self.possible_agents[:].")
        self._require(moment.agents, {"observations": moment.obs, "infos": moment.infos})

    def step(self, play: Play, moment: Moment, given: dict[str, Any], kept: dict[str, Any]) -> None:
        """Agents have acted."""
        self._age += 1
        self._check_known(play, moment.agents)
        if not play.turn_based:
            told = (moment.obs, moment.rewards, moment.terminated, moment.truncated, moment.infos)
            self._require(moment.acted, dict(zip(PARTS, told, strict=True)))
            self._check_newcomers(moment)
        self._check_leavers(play, moment)
        self._before = list(moment.agents)

    def finish(self, watched: Watched) -> None:
        """Nothing is left to say."""

    def _check_known(self, play: Play, agents: list[str]) -> None:
        if strangers := [agent for agent in agents if agent not in play.possible]:
            what = f"env.agents holds {listed(strangers)}, who is not in possible_agents {listed(play.possible)}."
            remedy = "List every agent that there can ever be in possible_agents."
            raise Fault(Finding("agent_appears", "error", {"agent": strangers[0]}, short(strangers[0]), what, remedy))
        if len(set(agents)) < len(agents):
            what = f"env.agents names somebody twice: {short(agents)}."
            self._notes.note("agent_appears", "error", {}, short(agents), what, "List every agent once.")

    def _check_newcomers(self, moment: Moment) -> None:
        for agent in moment.agents:
            if agent in self._gone:
                what = f"{agent} is in env.agents after its end, in step {self._age} of an episode."
                remedy = "Take agents out of env.agents in the step that terminates or truncates them, for good."
                self._notes.note("agent_appears", "error", {"agent": agent}, self._age, what, remedy)
        self._gone |= {agent for agent in moment.acted if self._ended(agent, moment)}
        if staying := [agent for agent in moment.agents if agent in self._gone and self._ended(agent, moment)]:
            what = f"{staying[0]} stays in env.agents in the step that ends it (step {self._age} of an episode)."
            remedy = "Take agents out of env.agents in the step that terminates or truncates them."
            self._notes.note("agent_appears", "error", {"agent": staying[0]}, self._age, what, remedy)

    def _check_leavers(self, play: Play, moment: Moment) -> None:
        present = set(moment.agents)
        for agent in self._before:
            if agent not in present and not self._ended(agent, moment):
                what = f"{agent} left env.agents in step {self._age} without having been terminated or truncated."
                self._vanished({"agent": agent}, self._age, what, "Set its termination or truncation in that step.")

    def _ended(self, agent: str, moment: Moment) -> bool:
        return any(self._truth(agent, values, name) for values, name in self._of_ends(moment))

    def _of_ends(self, moment: Moment) -> list[tuple[Any, str]]:
        return [(moment.terminated, "termination"), (moment.truncated, "truncation")]

    def _truth(self, agent: str, values: Any, name: str) -> bool:
        if agent not in values:
            return False
        value = values[agent]
        if isinstance(value, bool | int | np.bool_ | np.integer) or (isinstance(value, np.ndarray) and value.ndim == 0):
            return bool(value)
        what = f"The {name} of {agent} is {short(value)}; it must be True or False."
        self._vanished({"agent": agent, "part": name}, short(value), what, "Return a bool for every agent.")
        try:
            return bool(value)
        except ValueError:
            return False

    def _require(self, agents: list[str], told: dict[str, Any]) -> None:
        for name, values in told.items():
            try:
                missing = [agent for agent in agents if agent not in values]
            except TypeError:
                missing = list(agents)
            for agent in missing:
                what = f"{agent} is missing from the {name} in step {self._age} of an episode."
                remedy = "Return a value for every agent that was in env.agents before, also in its last step."
                severity = "warning" if name == "infos" else "error"
                where = {"agent": agent, "part": name}
                self._notes.note("agent_vanishes", severity, where, self._age, what, remedy)  # type: ignore[arg-type]

    def _vanished(self, where: dict[str, Any], value: Any, what: str, remedy: str) -> None:
        self._notes.note("agent_vanishes", "error", where, value, what, remedy)
