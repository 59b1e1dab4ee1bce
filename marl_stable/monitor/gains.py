"""What a run has gained so far: its return against play without learning, and whether it is on its way up."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from marl_stable.monitor import calibration, curves
from marl_stable.monitor.calibration import READS
from marl_stable.monitor.case import Case

LATE = 0.25  # of the run: before that, nothing can be said of what agents do
LEARNED = 0.1  # of the distance from random play to the best known return; less is nothing
LEVEL = 5  # readings whose median is a level
BACK = 2.0  # deviations of a single reading by which a return that was lower is on its way up


def curve(case: Case) -> tuple[NDArray[np.int64], calibration.Floats]:
    """Steps and returns: those of evaluations where they are enough for a curve, else of training episodes."""
    steps, returns = case.returns
    training = case.recording.series("charts/return")
    if len(returns) >= curves.MIN_ROWS or not training:
        return steps, returns
    if len(training[0].steps) < len(steps):  # episodes that last many iterations
        return steps, returns
    alike = [series.values for series in training if len(series.steps) == len(training[0].steps)]
    return training[0].steps, np.mean(alike, axis=0)


def best_level(returns: calibration.Floats) -> float:
    """The highest level of a curve `(n,)`, of which one reading says nothing: a single reward can be an outlier."""
    return float(curves.running_median(returns, LEVEL).max())


@functools.lru_cache(maxsize=1)
def gained(case: Case) -> bool:
    """Whether the return is clearly above random play by now, and not below the best constant action, as far as these
    are known; not so where random play was not measured, nor of competing teams, whose mean return says nothing."""
    _, returns = curve(case)
    random, constant = case.baseline("random"), case.baseline("best_constant")
    if random is None or len(returns) < READS or teams(case) > 1:
        return False
    late = returns[-max(READS, len(returns) // 4) :]
    level, noise = float(np.median(late)), 1.25 * calibration.sigma(late) / np.sqrt(len(late))
    error = {name: float(np.hypot(noise, case.baseline_error(name))) for name in ("random", "best_constant")}
    goal = max(random, best_level(returns), random if constant is None else constant)
    above = level - random > max(2 * error["random"], LEARNED * (goal - random)) and goal > random
    if constant is None:
        return above
    return above and level >= constant - max(2 * error["best_constant"], LEARNED * (constant - random))


def rises(case: Case) -> bool:
    """Whether the return of a run under way was clearly lower than it is."""
    _, returns = curve(case)
    if not under_way(case) or len(returns) < curves.MIN_ROWS:
        return False
    level, noise = _level_and_noise(returns)
    return float(level[-1] - level.min()) > BACK * noise


def thrives(case: Case) -> bool:
    """Whether the return has clearly risen, over random play or where that was not measured over its own beginning, and
    is about as high as it ever was; not so of competing teams, whose mean return says nothing."""
    _, returns = curve(case)
    random = case.baseline("random")
    if teams(case) > 1 or len(returns) < (curves.MIN_ROWS if random is None else READS):
        return False
    level, noise = _level_and_noise(returns)
    start = float(level[0]) if random is None else random
    risen = level[-1] - start > BACK * noise if random is None else gained(case)
    return bool(risen and level.max() - level[-1] <= max(noise, LEARNED * (level.max() - start)))


def _level_and_noise(returns: calibration.Floats) -> tuple[calibration.Floats, float]:
    """`(n,)` the median of a quarter of the rows around each, and the deviation of a single reading."""
    level = curves.running_median(returns, max(READS, len(returns) // 4))
    return level, calibration.sigma(returns - curves.running_median(returns, max(5, len(returns) // 5)))


def no_better_than_chance(case: Case) -> bool:
    """Whether the return is, from a quarter of the planned run on, no better than play without learning is known to
    be."""
    steps, planned = case.recording.steps, case.facts.get("total_steps") or 0
    late = bool(len(steps)) and steps[-1] >= LATE * planned
    return late and teams(case) <= 1 and case.baseline("random") is not None and not gained(case)


def under_way(case: Case) -> bool:
    """Whether the run has a part of its planned steps still before it."""
    planned, steps = case.facts.get("total_steps"), case.recording.steps
    return bool(planned and len(steps) and steps[-1] < planned)


def teams(case: Case) -> int:
    """How many teams play; 0 where that is not known."""
    return len({group["team"] for group in (case.facts.get("spec") or {}).get("groups", [])})
