"""How episodes end: by a limit that is told as a true end, or not at all."""

from __future__ import annotations

from typing import Any

from marl_stable.investigate.doctor.features import Features
from marl_stable.investigate.doctor.findings import Notebook, Severity
from marl_stable.investigate.doctor.play import Moment, Play
from marl_stable.investigate.doctor.watching import PATIENCE, Watched

FEWEST_ENDS, SHORTEST_LIMIT = 4, 10  # episodes, steps; shorter games have a last round, and no limit
LONG_LIMIT = 100  # steps after which two episodes do not end at once by chance
LONG = 3_000  # steps without an end, before it is told
LIMIT_NAMES = ("max_cycles", "max_steps", "max_episode_steps", "episode_length", "horizon", "time_limit")
LIMIT_REMEDY = (
    "Report the limit as truncation, or train with --env.time-limit-as truncation: else values are cut off at it."
)


class Ends:
    """Watches how each episode ends."""

    def __init__(self, notes: Notebook, features: Features) -> None:
        self._notes = notes
        self._features = features
        self._ends: list[tuple[int, bool]] = []  # steps, whether terminated rather than truncated
        self._age = 0
        self._play: Play | None = None

    def begin(self, play: Play, moment: Moment) -> None:
        """An episode begins."""
        self._age = 0
        self._play = play

    def step(self, play: Play, moment: Moment, given: dict[str, Any], kept: dict[str, Any]) -> None:
        """Agents have acted."""
        self._age += 1
        if moment.over:
            self._ends.append((self._age, terminated(moment)))

    def finish(self, watched: Watched) -> None:
        """Judge the ends."""
        play = self._play
        if play is None:
            return
        if not watched.lengths and not watched.broken and _known_limit(play.env) < watched.steps >= LONG:
            severity: Severity = "error" if watched.steps >= PATIENCE else "warning"
            what = f"No episode ended within {watched.steps:,} steps of random play."
            remedy = "Truncate episodes at a limit: without an end no return is ever known."
            self._notes.note("endless_episode", severity, {}, watched.steps, what, remedy)
        ends = [length for length, by_termination in self._ends if by_termination]
        if len(ends) < len(self._ends) or len(set(ends)) != 1 or play.turn_based or self._features.has_clock():
            return
        if ends[0] >= SHORTEST_LIMIT and len(ends) >= (2 if ends[0] >= LONG_LIMIT else FEWEST_ENDS):
            what = f"All of {len(ends)} episodes were terminated after exactly {ends[0]} steps, which nobody sees."
            self._notes.note("time_limit_as_termination", "warning", {}, ends[0], what, LIMIT_REMEDY)


def terminated(moment: Moment) -> bool:
    """Whether an episode's last moment tells a termination, and no truncation; what is no truth value counts as no."""
    ended, cut_off = (any(map(_is_true, told.values())) for told in (moment.terminated, moment.truncated))
    return ended and not cut_off


def _is_true(value: Any) -> bool:
    try:
        return bool(value)
    except ValueError:  # an array, of which others tell
        return False


def _known_limit(env: Any) -> float:
    """The longest limit that the environment says it has; 0 where it says none."""
    limits = [0.0]
    inner = getattr(env, "unwrapped", None)
    for holder in (env, inner, getattr(inner, "env", None), getattr(env, "spec", None)):
        found = (getattr(holder, name, None) for name in LIMIT_NAMES)
        limits += [float(value) for value in found if isinstance(value, int | float)]
    return max(limits)
