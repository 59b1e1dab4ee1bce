"""Steps that take long, and in which functions."""

from __future__ import annotations

import cProfile
import pstats
import time
from pathlib import Path

import numpy as np

from marl_stable.investigate.doctor.findings import Fault, Notebook
from marl_stable.investigate.doctor.play import Play
from marl_stable.investigate.doctor.watching import Watched, choose

SLOW_STEP, SLOW_RESET = 0.02, 1.0  # seconds: a million such steps take 5.6 hours
FAST = 20  # percentile
FEWEST_STEPS, PROFILED_SECONDS = 5, 1.0
LINES = 3


def check_speed(play: Play, watched: Watched, notes: Notebook, seed: int) -> None:
    """Judge the fast steps and the fast resets of a play: the others may have waited for other programs."""
    if len(watched.seconds) >= FEWEST_STEPS and (step := float(np.percentile(watched.seconds, FAST))) > SLOW_STEP:
        hours = f"a million of them {1e6 * step / 3600:,.1f} hours"
        what = f"Steps take {1000 * step:.0f} ms or more, {hours}{_where(play, seed)}."
        remedy = "Make that cheaper, or step copies in parallel with --env.workers."
        notes.note("slow_step", "warning", {"call": "step"}, step, what, remedy)
    if watched.reset_seconds and (reset := float(np.percentile(watched.reset_seconds, FAST))) > SLOW_RESET:
        what = f"A reset takes {reset:.1f} s."
        remedy = "Keep what does not change between episodes, such as files and simulators."
        notes.note("slow_step", "warning", {"call": "reset"}, reset, what, remedy)


def _where(play: Play, seed: int) -> str:
    """The functions in which the time goes, by a profile."""
    profile = cProfile.Profile()
    rng = np.random.default_rng(seed)
    try:
        moment = play.reset(seed)
        until = time.perf_counter() + PROFILED_SECONDS
        while not moment.over and play.deciding() and time.perf_counter() < until:
            actions = choose(play, moment, rng)
            profile.enable()
            moment = play.step(actions)
            profile.disable()
    except (Fault, ValueError):  # ValueError: somebody else profiles
        return ""
    stats = pstats.Stats(profile)
    own = {place: figures[2] for place, figures in stats.stats.items()}  # type: ignore[attr-defined]
    total = sum(own.values()) or 1.0
    slowest = sorted(own, key=lambda place: -own[place])[:LINES]
    lines = [f"{_place(*place)} {100 * own[place] / total:.0f}%" for place in slowest]
    return f", in {', '.join(lines)}" if lines else ""


def _place(file: str, line: int, name: str) -> str:
    return name.strip("<>") if file == "~" else f"{Path(file).name}:{line} {name}"
