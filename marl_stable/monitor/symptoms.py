"""What a user sees: symptoms, never causes. Each is one function, in the words of `diagnosis.json`.

A symptom is told of how a run is now, at its end or at its latest reading: one from which it recovered is none.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from marl_stable.monitor import calibration, curves
from marl_stable.monitor.calibration import READS, lasting
from marl_stable.monitor.case import Case, place
from marl_stable.monitor.detectors import SAME_ACTION_SHARE, STUCK_DIMENSIONS_SHARE
from marl_stable.monitor.gains import LATE, LEARNED, best_level, curve, gained, rises, teams, thrives
from marl_stable.monitor.recording import Series

HALF = 0.5  # of the run: many a policy is worse than chance at first, and has not begun to learn before
UNRESPONSIVE = {"continuous": 0.05, "discrete": 0.02}  # of the half-range; of the information that actions could carry
SAME = {"continuous": STUCK_DIMENSIONS_SHARE, "discrete": SAME_ACTION_SHARE}
EQUAL = 0.98  # share of steps in which agents of a group act alike
MAY_PAY = ("repeated_action", "identical_agents")
GROWN = 10.0  # a loss that many times its lowest level has diverged


class Symptom(NamedTuple):
    """One thing that a user sees, since when, where, and the numbers that say so."""

    name: str
    onset_steps: int
    where: dict[str, Any]
    evidence: dict[str, float]


@functools.lru_cache(maxsize=1)  # most causes ask, of one case after the other
def symptoms(case: Case) -> tuple[Symptom, ...]:
    """Every symptom that the case shows."""
    return tuple(found for look in SYMPTOMS if (found := look(case)) is not None)


def shows(case: Case, *names: str) -> bool:
    """Whether the case shows any of these symptoms."""
    return any(symptom.name in names for symptom in symptoms(case))


def troubles(case: Case) -> tuple[Symptom, ...]:
    """The symptoms of a run that fails: to repeat one action, or to act alike, is none where it pays, nor while the
    return is on its way up; nor is a critic's growing loss where the return is higher than ever, since errors grow with
    what there is to predict: the reward of a sparse task is unknown at first, and so is its error."""
    seen = tuple(symptom for symptom in symptoms(case) if not (_grows_with_returns(symptom) and thrives(case)))
    pays = any(symptom.name in MAY_PAY for symptom in seen) and (gained(case) or rises(case))
    return tuple(symptom for symptom in seen if not (pays and symptom.name in MAY_PAY))


def _grows_with_returns(symptom: Symptom) -> bool:
    return symptom.name == "diverging_loss" and bool(np.isfinite(symptom.evidence["loss"]))


def fails(case: Case, *names: str) -> bool:
    """Whether any of these symptoms, or any at all where none is named, is one of a run that fails."""
    return any(not names or symptom.name in names for symptom in troubles(case))


def repeated_action(case: Case) -> Symptom | None:
    """An agent whose greedy action hardly depends on what it sees, and whose executed actions are nearly all alike.

    Saturation alone is none: bang-bang policies are saturated and respond. Nor is a lack of response alone: early
    stochastic policies do everything everywhere.
    """
    for same in case.recording.series("sameness"):
        agent = same.where.get("agent")
        kind = kind_of(case, agent)
        responses = case.recording.series("actions/responsiveness", **same.where)
        stuck = lasting(same.values >= SAME[kind], same.steps)
        if stuck is None or not responses or (response := _lately(responses[0])) >= UNRESPONSIVE[kind]:
            continue
        evidence = {"sameness": float(same.values[-1]), "responsiveness": response}
        return Symptom("repeated_action", stuck, place(same), evidence)
    return _repeated_when_greedy(case)


def _repeated_when_greedy(case: Case) -> Symptom | None:
    """The live monitor's word, from evaluations, where the policy explores so much that executed actions hide it."""
    seen = [entry for entry in case.facts.get("incidents") or () if entry.get("kind") == "repeated_action"]
    steps = case.recording.steps
    for entry in seen:
        where = entry.get("where", {})
        responses = case.recording.series("actions/responsiveness", **where)
        late = len(steps) > 0 and entry["steps"] >= LATE * steps[-1]
        limit = UNRESPONSIVE[kind_of(case, where.get("agent"))]
        if late and responses and (response := _lately(responses[0])) < limit:
            numbers = {"sameness": entry["value"], "responsiveness": response}
            return Symptom("repeated_action", int(entry["steps"]), where, numbers)
    return None


def _lately(series: Series) -> float:
    """By the median: where updates throw an actor from one end to the other, single readings lie in between."""
    return float(np.median(series.values[-READS:]))


def no_learning(case: Case) -> Symptom | None:
    """The return has not left random play, or where that was not measured its own beginning, by more than its noise.

    Not told of competing teams, whose mean return need not rise; nor before half of the planned run is over, nor while
    a return that was lower is on its way up.
    """
    steps, returns = curve(case)
    planned = case.facts.get("total_steps") or (steps[-1] if len(steps) else 0)
    if teams(case) > 1 or len(returns) < curves.MIN_ROWS or steps[-1] < HALF * planned:
        return None
    tenth, quarter = max(READS, len(returns) // 10), max(READS, len(returns) // 4)
    first, last = float(np.median(returns[:tenth])), float(np.median(returns[-quarter:]))
    noise = calibration.sigma(returns - curves.running_median(returns, max(5, len(returns) // 5)))
    random = case.baseline("random")
    start = first if random is None else random
    constant = case.baseline("best_constant")
    goal = max(value for value in (start, constant, best_level(returns)) if value is not None)
    above = last - start
    if above > 2 * noise / np.sqrt(quarter) and above > LEARNED * (goal - start):
        return None
    if rises(case):
        return None
    evidence = {"return": last, "random" if random is not None else "return_at_start": start, "noise": noise}
    return Symptom("no_learning", int(steps[0]), {}, evidence)


def collapse_after_peak(case: Case) -> Symptom | None:
    """The return fell from its peak and is still down; not told before a quarter of the planned run is over."""
    steps, returns = curve(case)
    if not len(returns) or steps[-1] < LATE * (case.facts.get("total_steps") or 0):
        return None
    found = curves.drop_after_peak(steps, returns, case.baseline("random"))
    if found is None or _is_back(returns, int(np.searchsorted(steps, found.peak_step))):
        return None
    evidence = {"peak": float(np.nanmax(returns)), "now": float(returns[-1]), "share_lost": found.depth}
    return Symptom("collapse_after_peak", found.onset_step, {}, evidence)


def _is_back(returns: calibration.Floats, peak: int) -> bool:
    """Whether one of the latest readings is nearer to the level around the peak than to the latest level."""
    best, now = float(np.median(returns[max(0, peak - 2) : peak + 3])), float(np.median(returns[-5:]))
    return bool(returns[-READS:].max() > (best + now) / 2)


def diverging_loss(case: Case) -> Symptom | None:
    """The critic's loss has grown tenfold over its lowest level, and is still that high; or is infinite."""
    for loss in case.recording.series("losses/critic"):
        if len(loss.values) < curves.MIN_ROWS:
            continue
        level = curves.running_median(np.maximum(loss.values, 1e-30), 5)
        lowest = np.minimum.accumulate(level)
        since = lasting(~(level < GROWN * lowest), loss.steps)
        if since is not None and not curves.trend(loss.steps, np.log(level)).z < 0:
            return Symptom(
                "diverging_loss", since, place(loss), {"loss": float(loss.values[-1]), "lowest": float(lowest[-1])}
            )
    return None


def non_finite(case: Case) -> Symptom | None:
    """NaN or infinity in gradients, losses, observations or rewards."""
    first: Symptom | None = None
    for signal in ("non_finite", "obs_non_finite", "reward_non_finite", "losses/critic", "losses/actor"):
        for series in case.recording.series(signal):
            bad = np.isinf(series.values) if signal.startswith("losses/") else series.values > 0
            if bad.any():
                at = int(series.steps[bad.argmax()])
                if first is None or at < first.onset_steps:
                    first = Symptom("non_finite", at, place(series), {"share": float(series.values[bad].max())})
    return first


def oscillation(case: Case) -> Symptom | None:
    """The return cycles, more regularly than chance explains and by more than a fifth of what was gained."""
    steps, returns = case.returns
    if len(returns) < 3 * curves.MIN_ROWS:
        return None
    half = len(returns) // 2
    found = curves.oscillation(returns[half:])
    gained = float(np.max(returns) - np.min(returns))
    swing = float(np.subtract(*np.percentile(returns[half:], [90, 10])))
    if found is None or swing < 0.2 * gained:
        return None
    evidence = {
        "period": float(found.lag * np.median(np.diff(steps))),
        "autocorrelation": found.strength,
        "swing": swing,
    }
    return Symptom("oscillation", int(steps[half]), {}, evidence)


def identical_agents(case: Case) -> Symptom | None:
    """Agents of a group that always do the same at the same time."""
    alike: dict[str, list[Series]] = {}
    for series in case.recording.series("equal_actions"):
        alike.setdefault(series.where.get("group", ""), []).append(series)
    for group, members in alike.items():
        since = [lasting(series.values >= EQUAL, series.steps) for series in members]
        known = [at for at in since if at is not None]
        if len(members) > 1 and len(known) == len(members):
            share = min(float(series.values[-1]) for series in members)
            return Symptom("identical_agents", max(known), {"group": group}, {"equal_actions": share})
    return None


SYMPTOMS: tuple[Callable[[Case], Symptom | None], ...] = (
    repeated_action,
    no_learning,
    collapse_after_peak,
    diverging_loss,
    non_finite,
    oscillation,
    identical_agents,
)


def kind_of(case: Case, agent: str | None) -> str:
    """`continuous` or `discrete` actions; an agent that is not known is taken for a continuous one."""
    for group in (case.facts.get("spec") or {}).get("groups", []):
        if agent in group["agents"]:
            return "discrete" if "n" in group["action"] else "continuous"
    return "continuous"
