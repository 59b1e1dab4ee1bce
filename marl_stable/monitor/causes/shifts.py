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
        if _stirred(case, at) or before < after <= best_before(case, mean, at):
            continue
        return [Hit(0.85, at, place(mean), {"before": before, "after": after, "z": z})]
    return []


def _stirred(case: Case, steps: int) -> bool:
    """Whether steps or behaviour were out of their usual range at the reading before `steps`, or at it."""
    for signal in ("update_ratio", "losses/approx_kl", "grad_spike", "layer_weight", "sameness", "bound_clipped"):
        for series in case.recording.series(signal):
            past = series.values[series.steps <= steps]
            if len(past) < 2 * READS:
                continue
            logs = np.log(np.maximum(past, 1e-3 if signal in ("sameness", "bound_clipped") else 1e-12))
            usual, near = logs[: -READS + 1], logs[-READS + 1 :]
            if (np.abs(near - np.median(usual)) > JUMP_Z * (calibration.sigma(usual) + 0.05)).any():
                return True
    return False
