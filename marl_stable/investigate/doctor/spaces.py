"""Spaces that stay what they are: from call to call, episode to episode, and from one instance to the next."""

from __future__ import annotations

import copy
from typing import Any

from gymnasium import spaces

from marl_stable.investigate.doctor.findings import Notebook, short
from marl_stable.investigate.doctor.play import Moment, Play, SinglePlay
from marl_stable.investigate.doctor.watching import Watched

KINDS = ("observation", "action")
REMEDY = "Make every space once, in __init__, and return that object."
STRIDE = 20  # steps between two looks at the spaces


class Spaces:
    """Watches the spaces as they were when this was made."""

    def __init__(self, play: Play, notes: Notebook) -> None:
        self._notes = notes
        self._first: dict[tuple[str, str], Any] = {}  # copies
        self._own: dict[tuple[str, str], Any] = {}
        self._steps = 0
        for agent in play.possible:
            for kind in KINDS:
                self._meet(play, kind, agent)

    def begin(self, play: Play, moment: Moment) -> None:
        """An episode begins."""
        self._look(play, moment.agents, "reset")

    def step(self, play: Play, moment: Moment, given: dict[str, Any], kept: dict[str, Any]) -> None:
        """Agents have acted."""
        self._steps += 1
        if self._steps % STRIDE == 1:
            self._look(play, moment.agents, "step")

    def finish(self, watched: Watched) -> None:
        """Nothing is left to say."""

    def compare_with(self, other: Play) -> None:
        """Another instance of the same environment."""
        if set(other.possible) != {agent for _, agent in self._first}:
            what = f"Another instance has the agents {short(other.possible)}: instances must be alike."
            self._notes.note("space_changes", "error", {"part": "possible_agents"}, short(other.possible), what, REMEDY)
            return
        for (kind, agent), space in self._first.items():
            theirs = other.space(kind, agent)
            self._require_equal(kind, agent, space, theirs, "in another instance")
            if kind == "action" and theirs is self._own[kind, agent] and not isinstance(other, SinglePlay):
                what = (
                    f"All instances have one action space of {agent}, the same object: to seed it or to sample from it "
                    "in one is to do so in all."
                )
                self._notes.note(
                    "space_changes", "warning", {"agent": agent, "space": kind}, "shared object", what, REMEDY
                )

    def _meet(self, play: Play, kind: str, agent: str) -> None:
        space, again = play.space(kind, agent), play.space(kind, agent)
        self._first[kind, agent], self._own[kind, agent] = copy.deepcopy(space), space
        where = {"agent": agent, "space": kind}
        if not isinstance(space, spaces.Space):
            what = f"The {kind} space of {agent} is {short(space)}, which is no gymnasium.spaces.Space."
            self._notes.note("space_changes", "error", where, type(space).__name__, what, REMEDY)
        elif space != again:
            what = f"The {kind} space of {agent} is {short(str(space))}, and at the next call {short(str(again))}."
            self._notes.note("space_changes", "error", where, short(str(again)), what, REMEDY)
        elif space is not again:
            what = f"{kind}_space({agent!r}) makes a new object at every call, so that seeding it has no effect."
            self._notes.note("space_changes", "warning", where, "new object", what, REMEDY)

    def _look(self, play: Play, agents: list[str], when: str) -> None:
        for agent in agents:
            for kind in KINDS:
                if (kind, agent) in self._first:
                    self._require_equal(
                        kind, agent, self._first[kind, agent], play.space(kind, agent), f"after a {when}"
                    )

    def _require_equal(self, kind: str, agent: str, first: Any, now: Any, when: str) -> None:
        if first != now:
            what = f"The {kind} space of {agent} is {short(str(now))} {when}, and was {short(str(first))}."
            where = {"agent": agent, "space": kind}
            self._notes.note("space_changes", "error", where, short(str(now)), what, REMEDY)
