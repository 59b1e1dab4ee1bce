"""Which actions do anything: plays of one seed, alike but for one dimension of one agent's action."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from marl_stable.investigate.doctor.choosing import as_choices, changed, dimensions, mask_of
from marl_stable.investigate.doctor.comparing import Change, Recording, record, repeat, share_of
from marl_stable.investigate.doctor.findings import Notebook
from marl_stable.investigate.doctor.play import Moment, Play, PlayMaker
from marl_stable.investigate.doctor.watching import info_of

STEPS = 50  # of each play
SEEDS = (11, 22, 33)  # a dimension has no effect where it had none in any
MOST_AGENTS = 12  # of an environment; the others of an army are taken to be alike


def check_effects(make: PlayMaker, notes: Notebook, reusable: bool, until: float) -> None:
    """Look for dimensions that nothing hangs on; `reusable`: one instance may be reset again and again."""
    trials = _Trials(make, reusable, until)
    try:
        sizes = {agent: dimensions(trials.play.space("action", agent)) for agent in _some(trials.play.possible)}
        for agent, size in sizes.items():
            idle = [dimension for dimension in range(size) if trials.without_effect(agent, dimension)]
            if idle:
                _tell(notes, agent, idle, size)
    finally:
        trials.play.close()


class _Trials:
    """Plays and their repetitions with a change. What there is no time to try is not judged."""

    def __init__(self, make: PlayMaker, reusable: bool, until: float) -> None:
        self.play = make()
        self._make = make
        self._reusable = reusable
        self._until = until
        self._recordings: dict[int, Recording] = {}

    def without_effect(self, agent: str, dimension: int) -> bool:
        """Whether the action was another one in some play, and nothing that followed in any."""
        tried = _Tried()
        for by, seed in enumerate(SEEDS):
            change = _changing(agent, dimension, by, tried)
            if time.perf_counter() > self._until:
                return False
            recording = self._recorded(seed)
            self._renew()
            if repeat(self.play, recording, self._until, change) or time.perf_counter() > self._until:
                return False
        return tried.ever

    def _recorded(self, seed: int) -> Recording:
        if seed not in self._recordings:
            self._renew()
            self._recordings[seed] = record(self.play, seed, STEPS, share_of(self._until, 6))
        return self._recordings[seed]

    def _renew(self) -> None:
        if not self._reusable:
            self.play.close()
            self.play = self._make()


@dataclass
class _Tried:
    """Whether an action was in fact another one."""

    ever: bool = False


def _some(agents: list[str]) -> list[str]:
    stride = max(1, -(-len(agents) // MOST_AGENTS))
    return agents[::stride]


def _changing(agent: str, dimension: int, by: int, tried: _Tried) -> Change:
    def change(play: Play, moment: Moment, actions: dict[str, Any]) -> dict[str, Any]:
        if agent not in actions:
            return actions
        space = play.space("action", agent)
        mask = as_choices(mask_of(moment.obs.get(agent), info_of(moment, agent)), space)
        other = changed(actions[agent], space, dimension, mask, by)
        tried.ever = tried.ever or bool((other != actions[agent]).any() if hasattr(other, "any") else False)
        return actions | {agent: other}

    return change


def _tell(notes: Notebook, agent: str, found: list[int], total: int) -> None:
    whole = len(found) == total
    told = f"What {agent} does" if whole else f"Dimension {found[0] if len(found) == 1 else found} of {agent}'s action"
    what = (
        f"{told} changed no observation, reward or end of anybody, in {len(SEEDS)} plays of up to {STEPS} steps that "
        "were otherwise equal."
    )
    remedy = "Look whether it reaches the environment; else leave it out of the action space."
    where: dict[str, Any] = {"agent": agent, "dimension": found[0] if len(found) == 1 else found}
    notes.note("action_has_no_effect", "error" if whole else "warning", where, 0.0, what, remedy)
