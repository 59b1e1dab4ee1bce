"""A task that changes under way.

What is paid has to leap from one reading to the next, and by more than learning can do: in healthy runs the steepest
readings lie up to 13 robust deviations apart.
"""

from __future__ import annotations

import numpy as np

from marl_stable.monitor import calibration
from marl_stable.monitor.calibration import READS
from marl_stable.monitor.case import Case, Hit, Stage, cause, place
from marl_stable.monitor.causes.rewards import (
    JUMP_Z,
    begins,
    best_before,
    leap,
    no_reward_signal,
    rescaled,
)
from marl_stable.monitor.recording import Series

STEPS = ("update_ratio", "losses/approx_kl", "grad_spike", "layer_weight")
BEHAVIOUR = ("sameness", "bound_clipped")
DENSE = 0.5  # share of rewards that are exactly zero, at most; of readings in which episodes end, at least
LEAPS = 2.5  # deviations of single rewards, which no policy gains or loses by an iteration of usual steps


@cause(
    "reward_shift",
    Stage.DATA,
    ("reward_mean",),
    "From one iteration to the next the mean reward of {who} went from {before:.3g} to {after:.3g} and stayed, while "
    "the policy moved as usual: the task changed.",
    "Find what changed in the environment at that step; after a change that is meant, more exploration helps to learn "
    "anew.",
)
def reward_shift(case: Case) -> list[Hit]:
    """What is paid changed under way: the mean reward leapt between two iterations, and stayed. Upwards it must be
    beyond all that was met before, since learning leaps as well; and neither steps nor behaviour were unusual then,
    since a policy that breaks is paid less."""
    if no_reward_signal(case):
        return []
    for mean in case.recording.series("reward_mean"):
        found = leap(mean)
        if found is None or rescaled(case, mean.where) is not None:
            continue
        at, before, after, z = found
        if begins(case, mean, int(np.searchsorted(mean.steps, at))):
            continue
        if _stirred(case, at) or _all_begin_anew(case, at) or not _beyond_learning(case, mean, at, before, after):
            continue
        return [Hit(0.85, at, place(mean), {"before": before, "after": after, "z": z})]
    return []


def _beyond_learning(case: Case, mean: Series, at: int, before: float, after: float) -> bool:
    """Whether no policy that learns could have leapt from one level to the other at once: of a reward that is paid all
    the time, by that many deviations of single rewards; else upwards, where the level was never met before."""
    std, zero = (case.recording.series(name, **mean.where) for name in ("reward_std", "reward_zero"))
    if std and zero and float(np.median(zero[0].values)) <= DENSE:
        return abs(after - before) > LEAPS * float(np.median(std[0].values[std[0].steps < at][-READS:]))
    return not before < after <= best_before(case, mean, at)


def _all_begin_anew(case: Case, at: int) -> bool:
    """Whether episodes, of which each lasts many readings, end together about that step: then all copies are at the
    beginning, where rewards differ from those of the end."""
    steps = case.recording.steps
    row = int(np.searchsorted(steps, at))
    return any(
        len(ends.steps) < DENSE * len(steps) and bool(np.isin(steps[max(0, row - 1) : row + 2], ends.steps).any())
        for ends in case.recording.series("charts/episode_length")
    )


def _stirred(case: Case, steps: int) -> bool:
    """Whether steps of a policy or behaviour were out of their usual range at the reading before `steps`, or at it; a
    critic's are, as a consequence, and nobody acts by them."""
    for signal in STEPS + BEHAVIOUR:
        for series in case.recording.series(signal):
            past = series.values[series.steps <= steps]
            if len(past) < 2 * READS or series.where.get("network") == "critic":
                continue
            logs = np.log(np.maximum(past, 1e-3 if signal in BEHAVIOUR else 1e-12))
            usual, near = logs[: -READS + 1], logs[-READS + 1 :]
            if (np.abs(near - np.median(usual)) > JUMP_Z * (calibration.sigma(usual) + 0.05)).any():
                return True
    return False
