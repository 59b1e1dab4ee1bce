"""Whether anything that is seen changes within an episode: pictures that are drawn once show nothing of the play."""

from __future__ import annotations

from typing import Any

from marl_stable.investigate.doctor.comparing import digest
from marl_stable.investigate.doctor.findings import Notebook
from marl_stable.investigate.doctor.play import Moment, Play
from marl_stable.investigate.doctor.watching import Watched

FEWEST_STEPS = 20  # altogether; and episodes of one step are no play


class Moving:
    """Watches until the first observation of anybody differs from that of the episode's beginning."""

    def __init__(self, notes: Notebook) -> None:
        self._notes = notes
        self._first: dict[str, bytes] = {}
        self._moved = False
        self._steps = 0

    def begin(self, play: Play, moment: Moment) -> None:
        """An episode begins."""
        if not self._moved:
            self._first = {agent: digest(moment.obs.get(agent)) for agent in moment.agents}

    def step(self, play: Play, moment: Moment, given: dict[str, Any], kept: dict[str, Any]) -> None:
        """Agents have acted."""
        self._steps += not moment.over
        if not self._moved:
            self._moved = any(
                digest(moment.obs[agent]) != first for agent, first in self._first.items() if agent in moment.obs
            )

    def finish(self, watched: Watched) -> None:
        """Judge it."""
        told = any(finding.where.get("feature") == "(all)" for finding in self._notes.first.values())
        if self._moved or told or self._steps < FEWEST_STEPS or watched.broken:
            return
        what = f"No observation of anybody changed within any episode, in {watched.steps} steps of random play."
        remedy = "Fill observations anew in every step; where they are pictures, draw them without a render_mode too."
        self._notes.note("observation_constant", "warning", {}, watched.steps, what, remedy)
