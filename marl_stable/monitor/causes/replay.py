"""Faults of what is learned from long after it was collected.

Neither the age of data nor the ratio of errors on old and new tells: a run that has solved its task errs 3.4 times as
much on what it did at first, and rightly keeps it. What tells is whether the newest data are those that were collected.
"""

from __future__ import annotations

import numpy as np

from marl_stable.monitor import calibration, curves
from marl_stable.monitor.calibration import Floats
from marl_stable.monitor.case import Case, Hit, Stage, cause, place

MOVED = 0.5  # deviations of rewards by which what is collected has to have changed
LEFT_BEHIND = 0.2  # of that change, in deviations each: less in the newest of what is learned from is none of it
CERTAIN = 3.0  # deviations of single readings by which the change must be no chance


@cause(
    "stale_replay",
    Stage.OBJECTIVE,
    ("return_mean", "return_std", "reward_mean", "reward_std"),
    "Rewards that {who} collects have changed by {collected:.2g} deviations, returns in the newest of the replay by "
    "{learned_from:.2g}: what is learned from is not what is done.",
    "Check that new steps enter the replay and are drawn from it; else keep fewer steps, or learn more from each.",
)
def stale_replay(case: Case) -> list[Hit]:
    """What agents are paid has changed for sure, and what the newest part of the replay says of it has not."""
    if "algo.buffer_size" not in case.config:
        return []
    for mean in case.recording.series("return_mean"):
        parts = [case.recording.series(name, **mean.where) for name in ("return_std", "reward_mean", "reward_std")]
        if not all(parts):
            continue
        spread, paid, noise = (part[0] for part in parts)
        learning = paid.steps >= mean.steps[0]  # before the first update nothing was learned from
        steps, collected = paid.steps[learning], paid.values[learning]
        unit = _early(noise.values)
        if min(len(mean.values), len(collected)) < curves.MIN_ROWS or min(unit, _early(spread.values)) <= 0:
            continue
        moved, followed = _change(collected) / unit, _change(mean.values) / _early(spread.values)
        scatter = calibration.sigma(collected - curves.running_median(collected, 5)) / unit
        if abs(moved) > max(MOVED, CERTAIN * scatter) and abs(followed) < LEFT_BEHIND * abs(moved):
            off = np.abs(collected - _early(collected)) > MOVED * unit
            since = calibration.onset(off, steps) or int(steps[0])
            return [Hit(0.7, since, place(mean), {"collected": moved, "learned_from": followed})]
    return []


def _early(x: Floats) -> float:
    """The level of the first third."""
    return float(np.median(x[: max(1, len(x) // 3)]))


def _change(x: Floats) -> float:
    """From the first third to the last."""
    return float(np.median(x[-(len(x) // 3) :])) - _early(x)
