"""Faults of what critics learn."""

from __future__ import annotations

import numpy as np

from marl_stable.monitor import calibration, curves
from marl_stable.monitor.advice import Turned
from marl_stable.monitor.calibration import READS
from marl_stable.monitor.case import Case, Hit, Stage, cause, place
from marl_stable.monitor.causes.ppo import value_normalisation
from marl_stable.monitor.recording import Series
from marl_stable.monitor.symptoms import shows
from marl_stable.monitor.targets import NOTHING, following

IMPOSSIBLE = 0.01  # share of values that no rewards met so far could bring
APART = 3.0  # deviations of returns between mean value and mean return
ERROR = 3.0  # rms temporal-difference error over the deviation of returns
SETTINGS = {"algo.twin_critics": True, "algo.tau": Turned(0.5, 0.005, 0.0), "algo.critic_network.norm": "layer"}


@cause(
    "critic_divergence",
    Stage.OBJECTIVE,
    ("infeasible",),
    "Values of {who} have run away: {infeasible:.0%} of them are beyond all that rewards met so far could add up to.",
    "Use two critics and slower targets, layer normalisation in the critic, and fewer updates per step.",
    SETTINGS,
    otherwise="Lower the critic's step size, or learn fewer times from the same data: its layers are normalised "
    "already.",
)
def critic_divergence(case: Case) -> list[Hit]:
    """Values outside what is feasible: certain, whatever the task. Or far above returns, with growing errors. Or
    targets that are what is learned, which is how values come to chase themselves.

    Values that keep one distance from returns, however far these are carried with them, come back in wrong units.
    """
    if chased := _chasing_themselves(case):
        return chased
    if value_normalisation(case):
        return []
    for beyond in case.recording.series("infeasible"):
        out = beyond.values > IMPOSSIBLE
        since = calibration.onset(out, beyond.steps)
        if since is None or out[0] or not out[-READS:].all() or not _paid(case, beyond):
            continue  # what is beyond from the first reading on has not run away: the critic began so
        return [Hit(0.9, since, place(beyond), {"infeasible": float(beyond.values[-1])}, None, _settings(case))]
    return _far_from_returns(case)


def _chasing_themselves(case: Case) -> list[Hit]:
    """Targets that were to follow slowly, and are the same as what is learned while that moves."""
    tau = case.config.get("algo.tau")
    if not isinstance(tau, float) or tau >= 1:
        return []
    for gap in following(case, "target_gap"):
        at = calibration.lasting(gap.values <= NOTHING, gap.steps)
        if at is not None and gap.where.get("network") == "critic":
            says = "The target of the {network} of {who} is what is learned {since}, so that values chase themselves."
            return [Hit(0.85, at, place(gap), {"target_gap": float(gap.values[-1])}, says, {})]
    return []


def _paid(case: Case, beyond: Series) -> bool:
    """Whether rewards are numbers and were ever anything but 0: else no value is feasible."""
    means = case.recording.series("reward_mean", **beyond.where)
    broken = shows(case, "non_finite")
    return not broken and any(float(np.abs(series.values).max()) > 0 for series in means)


def _far_from_returns(case: Case) -> list[Hit]:
    for value in case.recording.series("value_mean"):
        parts = (case.recording.series(name, **value.where) for name in ("return_mean", "return_std", "td_scale"))
        mean, spread, error = (part[0] if part else None for part in parts)
        if mean is None or spread is None or error is None or len(mean.values) < 2 * READS:
            continue
        at = np.isin(value.steps, mean.steps)
        if at.sum() != len(mean.values) or len(spread.values) != len(mean.values) or spread.values.min() <= 0:
            continue
        with np.errstate(invalid="ignore"):  # where all are infinite nothing is told
            gap = np.abs(value.values[at] - mean.values) / spread.values
        grows = curves.trend(error.steps, np.log(np.maximum(error.values, 1e-12)))
        if gap[-READS:].min() > APART and error.values[-READS:].min() > ERROR and grows.z > 3:
            since = calibration.onset(gap > APART, mean.steps) or 0
            evidence = {"value_over_return": float(gap[-1]), "td_scale": float(error.values[-1])}
            says = (
                "Values of {who} are {value_over_return:.3g} deviations of returns from returns, and their errors grow "
                "({td_scale:.3g} deviations by now)."
            )
            return [Hit(0.8, since, place(value), evidence, says, _settings(case))]
    return []


def _settings(case: Case) -> dict[str, object]:
    """Those of algorithms with targets only where the run, or what is known of a loop, has them."""
    return {key: value for key, value in SETTINGS.items() if key in case.config or key == "algo.critic_network.norm"}
