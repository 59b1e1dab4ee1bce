"""Faults between agents of a team, and agents that cannot be told apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from marl_stable.monitor import calibration
from marl_stable.monitor.calibration import READS
from marl_stable.monitor.case import Case, Hit, Stage, cause
from marl_stable.monitor.recording import Series
from marl_stable.monitor.symptoms import LATE, shows, symptoms

ERRORS = 2.0  # standard errors by which a loss may be larger than it was measured
CERTAIN = 5.0  # standard errors that a team mate's loss must exceed, for there to be anything to contribute
SMALL = 0.2  # of the largest loss in the team: more is a contribution, if a smaller one
ALIKE = 1e-4  # distance of an agent's answers from the group's mean answer; 0.006 and more once anything was learned
FAILING = ("no_learning", "identical_agents", "collapse_after_peak")


@cause(
    "lazy_agent",
    Stage.RESPONSE,
    ("contributions",),
    "{who} contributes nothing: when it acts at random the team loses {loss:.3g} (standard error {error:.2g}), where "
    "others are missed by up to {largest:.3g}.",
    "Pay agents for what they change themselves (difference rewards), or let critics tell agents apart; where an "
    "agent has nothing to do, this is no fault.",
)
def lazy_agent(case: Case) -> list[Hit]:
    """An agent that could as well act at random, in a team whose others could not.

    `contributions` is {agent: {"loss": mean return that is lost when it acts at random, "error": standard error}}.
    """
    measured = {
        agent: (found["loss"], found["error"])
        for agent, found in case.facts["contributions"].items()
        if found["loss"] is not None and found["error"] is not None  # what is not finite is null in a file
    }
    if len(measured) < 2:
        return []
    largest = max(loss for loss, _ in measured.values())
    if not any(loss > CERTAIN * error for loss, error in measured.values()):
        return []
    hits = [
        Hit(0.7, 0, {"agent": agent}, {"loss": loss, "error": error, "largest": largest})
        for agent, (loss, error) in measured.items()
        if loss + ERRORS * error < SMALL * largest
    ]
    return sorted(hits, key=lambda hit: hit.evidence["loss"])[:1]


@cause(
    "identical_policies",
    Stage.RESPONSE,
    ("diversity",),
    "Agents of {who} answer alike to the same observations (at most {diversity:.1e} apart), and the run is failing: "
    "they cannot take roles.",
    "Tell agents apart: give each its own network, or its own identity in what it sees.",
    {"algo.share": False},
    last_resort=True,
)
def identical_policies(case: Case) -> list[Hit]:
    """A group whose agents cannot differ, in a run that has learned nothing or where all do the same at every step."""
    if not shows(case, *FAILING) or _constant_is_best(case):
        return []
    for group, members in _groups(case.recording.series("diversity")).items():
        late = [series.values[series.steps >= LATE * case.recording.steps[-1]][-READS:] for series in members]
        apart = float(np.concatenate(late).max(initial=0.0))
        if len(members) > 1 and all(map(len, late)) and apart < ALIKE:
            return [Hit(0.6, 0, {"group": group}, {"diversity": apart})]
    return _same_views(case)


def _same_views(case: Case) -> list[Hit]:
    """Agents that always do the same, and see the same: every feature has the same figures for all of them."""
    alike = [symptom for symptom in symptoms(case) if symptom.name == "identical_agents"]
    for symptom in alike:
        group = symptom.where.get("group")
        seen: dict[Any, list[Series]] = {}
        for series in case.recording.series("obs_mean", group=group):
            seen.setdefault(series.where.get("feature"), []).append(series)
        varying = [parts for parts in seen.values() if len(parts) > 1 and np.ptp(parts[0].values) > 0]
        if varying and all(_equal(parts) for parts in varying):
            says = "Agents of {who} see exactly the same and do the same: what each sees of its own does not reach it."
            return [Hit(0.6, symptom.onset_steps, {"group": group}, {"features": float(len(varying))}, says)]
    return []


def _equal(parts: list[Series]) -> bool:
    first = parts[0].values
    late = slice(-max(READS, len(first) // 3), None)
    return all(len(other.values) == len(first) and np.array_equal(other.values[late], first[late]) for other in parts)


def _constant_is_best(case: Case) -> bool:
    """Where one action is best for all, to do the same is right."""
    constant = case.baseline("best_constant")
    _, returns = case.returns
    if constant is None or len(returns) < READS:
        return False
    noise = calibration.sigma(returns) + 1e-6 * abs(constant)
    random = case.baseline("random")
    return bool(np.median(returns[-READS:]) >= constant - noise) and (random is None or constant > random)


def _groups(members: list[Series]) -> dict[str, list[Series]]:
    found: dict[str, list[Series]] = {}
    for series in members:
        found.setdefault(str(series.where.get("group", "")), []).append(series)
    return found
