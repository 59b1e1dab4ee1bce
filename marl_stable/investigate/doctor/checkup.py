"""The whole examination of one environment, within a minute."""

from __future__ import annotations

import importlib
import time
import warnings
from dataclasses import dataclass
from typing import Any

from marl_stable.envs import catalog
from marl_stable.envs.gymnasium import SingleAgent
from marl_stable.investigate.doctor.actions import Actions, check_ranges
from marl_stable.investigate.doctor.effects import check_effects
from marl_stable.investigate.doctor.ends import Ends
from marl_stable.investigate.doctor.features import Features
from marl_stable.investigate.doctor.findings import Fault, Finding, Notebook, reason, short
from marl_stable.investigate.doctor.importing import check_import
from marl_stable.investigate.doctor.limits import try_limits
from marl_stable.investigate.doctor.moving import Moving
from marl_stable.investigate.doctor.observing import Observing
from marl_stable.investigate.doctor.patience import TimeUp, within
from marl_stable.investigate.doctor.play import ParallelPlay, Play, SinglePlay
from marl_stable.investigate.doctor.presence import Presence
from marl_stable.investigate.doctor.rewards import Rewards
from marl_stable.investigate.doctor.seeding import check_arguments, leak_free, seeded
from marl_stable.investigate.doctor.spaces import Spaces
from marl_stable.investigate.doctor.speed import check_speed
from marl_stable.investigate.doctor.turn_play import TurnPlay
from marl_stable.investigate.doctor.watching import Watched, Watcher, watch
from marl_stable.report.aside import prints_aside
from marl_stable.types import UsageError

SEED = 1
BATCHED = ("vmas/", "particle/")  # trained in batches: what one copy costs says nothing
PLAY, SEEDING, LEAK, EFFECTS, LIMITS = 11.0, 6.0, 6.0, 8.0, 3.0  # seconds at most, and the call under way
WHOLE = 55.0  # seconds at most of all of them, calls under way included


@dataclass
class Checkup:
    """What was found in one environment, and by how much play."""

    env: str
    findings: list[Finding]
    steps: int
    episodes: int
    seconds: float

    def played(self) -> str:
        """By how much play it was found, in words."""
        return f"{self.episodes} episodes, {self.steps:,} steps, {self.seconds:.1f} s"

    def as_dict(self) -> dict[str, Any]:
        """What `check --json` prints."""
        passed = all(finding.severity != "error" for finding in self.findings)
        return {"env": self.env, "passed": passed, "findings": [finding.as_dict() for finding in self.findings]}


def examine(env_id: str, kwargs: dict[str, Any]) -> Checkup:
    """Look for everything that the doctor knows. What the environment prints goes to standard error.

    Raises UsageError where the environment cannot be made, or not even once begun.
    """
    began = time.perf_counter()
    notes = Notebook()
    with prints_aside(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        watched = _Examination(env_id, kwargs, notes).run()
    seconds = time.perf_counter() - began
    return Checkup(env_id, notes.findings(), watched.steps, len(watched.lengths), seconds)


class _Examination:
    """The checks in their order: what an earlier one finds can make a later one meaningless."""

    def __init__(self, env_id: str, kwargs: dict[str, Any], notes: Notebook) -> None:
        self.env_id = env_id
        self.kwargs = kwargs
        self.notes = notes

    def run(self) -> Watched:
        """Make the environment, play it, and ask it the questions that take plays of their own."""
        watched = Watched()
        try:
            with within(WHOLE):
                self._play(watched)
        except TimeUp as up:
            self._tell_time_up(up.place, time.perf_counter() - Play.last_call)
            return watched
        check_import(self.env_id, self.kwargs, self.notes)
        return watched

    def _play(self, watched: Watched) -> None:
        play = self._make()
        try:
            if self._has_agents(play):
                self._watch(play, watched)
        finally:
            play.close()

    def _tell_time_up(self, place: str, seconds: float) -> None:
        if seconds > WHOLE / 5:
            what = f"A reset or a step did not come back within {seconds:.1f} s; it is in {place}."
            remedy = "Look there for something that waits, or for a loop that does not end."
            self.notes.note("slow_step", "error", {"place": place}, seconds, what, remedy)
        else:
            what = f"The examination was not over after {WHOLE:g} s; the last was in {place}."
            remedy = "Make that cheaper; what was not looked at is not known."
            self.notes.note("slow_step", "warning", {"place": place}, WHOLE, what, remedy)

    def _watch(self, play: Play, watched: Watched) -> None:
        notes = self.notes
        self._require_beginning(play)
        try:
            seen = Spaces(play, notes)
            check_ranges(play, notes)
            check_arguments(play, notes)
        except Fault as fault:
            notes.write(fault.finding)
            return
        features = Features(notes)
        watchers: list[Watcher] = [Presence(notes), seen, Observing(notes), features, Rewards(notes), Actions(notes)]
        watchers += [Moving(notes), Ends(notes, features)]
        watch(play, watchers, notes, SEED, _in(PLAY), watched)
        for slip in play.slips():
            notes.write(slip)
        if not self.env_id.startswith(BATCHED):
            check_speed(play, watched, notes, SEED)
        if watched.broken == 0:
            self._replay(seen, features, play.turn_based)

    def _replay(self, seen: Spaces, features: Features, turn_based: bool) -> None:
        """Plays of the same actions again, and under a limit."""
        notes = self.notes
        try:
            other = self._make()
            seen.compare_with(other)
            other.close()
            if seeded(self._make, notes, _in(SEEDING)):
                clean = leak_free(self._make, notes, _in(LEAK))
                check_effects(self._make, notes, clean, _in(EFFECTS))
            if not (turn_based or features.has_clock() or notes.has("time_limit_as_termination")):
                try_limits(self._make_limited, notes, _in(LIMITS))
        except Fault as fault:
            notes.write(fault.finding)

    def _make(self) -> Play:
        try:
            return _play_of(catalog.make_single(self.env_id, self.kwargs))
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(f"{self.env_id} cannot be made with env.kwargs {self.kwargs}: {reason(error)}") from error

    def _make_limited(self, argument: str, limit: int) -> Play | None:
        if argument == "max_episode_steps" and self.env_id.startswith("gymnasium/"):
            return None  # Gymnasium's own wrapper, which truncates
        try:
            return _play_of(catalog.make_single(self.env_id, self.kwargs | {argument: limit}))
        except Exception:  # it takes no such argument, or not this value
            return None

    def _has_agents(self, play: Play) -> bool:
        """Whether it says who can ever play; else nothing more can be asked."""
        try:
            agents: Any = play.possible
        except (AttributeError, TypeError):
            agents = []
        names = [agent for agent in agents if isinstance(agent, str)]
        if names and len(names) == len(agents) == len(set(names)):
            return True
        what = f"possible_agents is {short(agents) if agents else 'missing'}; it must name every agent there can be."
        remedy = "Set self.possible_agents in __init__, to a list of names such as agent_0 that are all different."
        self.notes.note("agent_appears", "error", {"part": "possible_agents"}, short(agents), what, remedy)
        return False

    def _require_beginning(self, play: Play) -> None:
        """An environment that never begins is refused like one that cannot be made."""
        try:
            play.reset(SEED)
        except Fault as fault:
            if fault.finding.id == "reset_leak":
                raise UsageError(f"{self.env_id} cannot be played: {fault.finding.explanation}") from fault


def _play_of(made: Any) -> Play:
    """The way to play what `catalog.make_single` returned."""
    if isinstance(made, SingleAgent):
        return SinglePlay(made.env)
    turn_based = isinstance(made, importlib.import_module("pettingzoo").AECEnv)
    return TurnPlay(made) if turn_based else ParallelPlay(made)


def _in(seconds: float) -> float:
    return time.perf_counter() + seconds
