"""Plays episodes of random legal actions and shows every moment to those who watch for something."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from marl_stable.investigate.doctor.choosing import as_choices, mask_of, sample
from marl_stable.investigate.doctor.findings import Fault, Notebook
from marl_stable.investigate.doctor.play import Moment, Play
from marl_stable.investigate.doctor.timing import seconds_between, stamp

ENOUGH_EPISODES, ENOUGH_STEPS = 25, 1_500  # both, or MOST_STEPS with an episode's end
MOST_STEPS, PATIENCE = 4_000, 10_000  # steps; the second where no episode has ended at all
FAULTS = 3  # broken episodes after which there is nothing more to learn
RESETS = 12  # beginnings that are looked at, whatever episodes cost


class Watcher(Protocol):
    """Looks at a play as it goes on, and writes down what it finds."""

    def begin(self, play: Play, moment: Moment) -> None:
        """An episode begins."""

    def step(self, play: Play, moment: Moment, given: dict[str, Any], kept: dict[str, Any]) -> None:
        """Agents have acted: `given` is what the environment was handed, `kept` a copy made before."""

    def finish(self, watched: Watched) -> None:
        """The play is over."""


@dataclass
class Watched:
    """What a whole play came to."""

    lengths: list[int] = field(default_factory=list)  # of episodes that ended, in steps
    steps: int = 0
    seconds: list[float] = field(default_factory=list)  # of each step, in the environment alone
    reset_seconds: list[float] = field(default_factory=list)
    broken: int = 0  # episodes that a Fault ended


def watch(play: Play, watchers: Sequence[Watcher], notes: Notebook, seed: int, until: float, found: Watched) -> None:
    """Play until enough was seen, or until the clock `time.perf_counter` says `until`; `found` grows meanwhile."""
    rng = np.random.default_rng(seed)
    try:
        _begin_often(play, watchers, notes, seed, found, until)
        while not _enough(found, until):
            try:
                _episode(play, watchers, seed + len(found.reset_seconds), rng, found, until)
            except Fault as fault:
                notes.write(fault.finding)
                found.broken += 1
    finally:  # also where a step that hangs is ended from outside
        for watcher in watchers:
            watcher.finish(found)


def _begin_often(
    play: Play, watchers: Sequence[Watcher], notes: Notebook, seed: int, found: Watched, until: float
) -> None:
    """Look at beginnings with other seeds: what is constant within an episode may differ between them."""
    share = time.perf_counter() + (until - time.perf_counter()) / 4
    try:
        for i in range(RESETS):
            _reset(play, watchers, seed + 1_000 + i, found)
            if time.perf_counter() > share:
                return
    except Fault as fault:
        notes.write(fault.finding)
        found.broken += 1


def _enough(found: Watched, until: float) -> bool:
    if time.perf_counter() > until or found.broken >= FAULTS:
        return True
    if not found.lengths:
        return found.steps >= PATIENCE
    return found.steps >= MOST_STEPS or (len(found.lengths) >= ENOUGH_EPISODES and found.steps >= ENOUGH_STEPS)


def _reset(play: Play, watchers: Sequence[Watcher], seed: int, found: Watched) -> Moment:
    began = stamp()
    moment = play.reset(seed)
    found.reset_seconds.append(seconds_between(began, stamp()))
    for watcher in watchers:
        watcher.begin(play, moment)
    return moment


def _episode(
    play: Play, watchers: Sequence[Watcher], seed: int, rng: np.random.Generator, found: Watched, until: float
) -> None:
    moment = _reset(play, watchers, seed, found)
    length = 0
    while not moment.over and play.deciding():
        given = choose(play, moment, rng)
        kept = copy.deepcopy(given)
        began = stamp()
        moment = play.step(given)
        now = stamp()
        found.seconds.append(seconds_between(began, now))
        found.steps += 1
        length += 1
        for watcher in watchers:
            watcher.step(play, moment, given, kept)
        if found.steps >= (MOST_STEPS if found.lengths else PATIENCE) or now.wall > until:
            break
    if moment.over:
        found.lengths.append(length)
    elif length == 0:  # nobody is there
        found.broken += 1


def choose(play: Play, moment: Moment, rng: np.random.Generator) -> dict[str, Any]:
    """A random legal action for each agent that decides."""
    actions = {}
    for agent in play.deciding():
        space = play.space("action", agent)
        mask = as_choices(mask_of(moment.obs.get(agent), info_of(moment, agent)), space)
        actions[agent] = sample(space, mask, rng)
    return actions


def info_of(moment: Moment, agent: str) -> Any:
    """The agent's info, None where there is none."""
    infos: Any = moment.infos
    try:
        return infos.get(agent)
    except AttributeError:
        return None
