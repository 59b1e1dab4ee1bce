"""Faults between agents of a team, and agents that cannot be told apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from marl_stable.monitor import calibration
from marl_stable.monitor.calibration import READS
from marl_stable.monitor.case import Case, Hit, Stage, cause
from marl_stable.monitor.gains import LATE
from marl_stable.monitor.recording import Series, Where
from marl_stable.monitor.symptoms import UNRESPONSIVE, fails, kind_of, symptoms

ERRORS = 2.0  # standard errors by which a loss may be larger than it was measured
CERTAIN = 5.0  # standard errors that a team mate's loss must exceed, for there to be anything to contribute
SMALL = 0.2  # of the largest loss in the team: more is a contribution, if a smaller one
ALIKE = 1e-4  # distance of an agent's answers from the group's mean answer; 0.006 and more once anything was learned
ROUNDING = 1e-5  # of the range of what is seen
APART = 3.0  # standard errors of a difference
ONE_VIEW = (
    "Agents of {who} have always seen exactly the same, and one is missed by {most:.3g}, another by {least:.3g}: what "
    "each sees of its own does not reach it."
)
SAME_ANSWERS = (
    "Agents of {who} answer alike to the same observations (at most {diversity:.2g} apart): who they are does not "
    "reach their network, so that they cannot take roles."
)
FAILING = ("no_learning", "identical_agents", "collapse_after_peak")


@cause(
    "lazy_agent",
    Stage.RESPONSE,
    ("contributions",),
    "{who} contributes nothing: when it acts at random the team loses {loss:.3g} (standard error {error:.2g}), where "
    "others are missed by up to {largest:.3g}.",
    "Pay agents for what they change themselves (difference rewards), or let critics tell agents apart; where an "
    "agent has nothing to do, this is no fault.",
    last_resort=True,
)
def lazy_agent(case: Case) -> list[Hit]:
    """An agent that could as well act at random, in a team whose others could not, and those of its own group least.

    An agent that is alone in its role has none to be measured by: what it has to give may be little, or not called for
    yet. It is told of only where nothing is learned, and in doubt.

    `contributions` is {agent: {"loss": mean return that is lost when it acts at random, "error": standard error}}.
    """
    measured = _measured(case)
    if len(measured) < 2 or _views_lost(case) or _one_view(case):  # who sees with another's eyes cannot do its part
        return []
    largest = max(loss for loss, _ in measured.values())
    if not any(loss > CERTAIN * error for loss, error in measured.values()):
        return []
    failed = fails(case, "no_learning", "collapse_after_peak")
    hits = [
        Hit(
            0.7 if _others_do(case, agent, measured) else 0.45,
            0,
            {"agent": agent},
            {"loss": loss, "error": error, "largest": largest},
        )
        for agent, (loss, error) in measured.items()
        if loss + ERRORS * error < SMALL * largest and (failed or _others_do(case, agent, measured))
    ]
    return sorted(hits, key=lambda hit: hit.evidence["loss"])[:1]


def _measured(case: Case) -> dict[str, tuple[float, float]]:
    """What is lost without each agent, and its standard error."""
    return {
        agent: (found["loss"], found["error"])
        for agent, found in (case.facts.get("contributions") or {}).items()
        if found["loss"] is not None and found["error"] is not None  # what is not finite is null in a file
    }


def _others_do(case: Case, agent: str, measured: dict[str, tuple[float, float]]) -> bool:
    """Whether another agent of the same group is missed for sure; where groups are not known, all are of one."""
    groups = (case.facts.get("spec") or {}).get("groups", [])
    peers = next((group["agents"] for group in groups if agent in group["agents"]), list(measured))
    return any(loss > CERTAIN * error for name, (loss, error) in measured.items() if name in peers and name != agent)


@cause(
    "identical_policies",
    Stage.RESPONSE,
    ("diversity",),
    "Agents of {who} answer alike to the same observations (at most {diversity:.2g} apart), and the run is failing: "
    "they cannot take roles.",
    "Tell agents apart: give each its own network, or its own identity in what it sees.",
    {"algo.share": False},
    last_resort=True,
    otherwise="Give each agent its own identity in what it sees, or its own reward: it has its own network already.",
)
def identical_policies(case: Case) -> list[Hit]:
    """A group whose agents cannot differ, though what they see changes what they do, or in a run that has learned
    nothing or where all do the same at every step. Or a group whose agents all see the same since some step, which they
    did not before; or always, and one does far more for the team than another."""
    if lost := _views_lost(case) or _one_view(case):
        return lost
    ill = fails(case, *FAILING) and not _constant_is_best(case)
    for group, members in _groups(case.recording.series("diversity")).items():
        late = [series.values[series.steps >= LATE * case.recording.steps[-1]][-READS:] for series in members]
        apart = float(np.concatenate(late).max(initial=0.0))
        if len(members) < 2 or not all(map(len, late)) or apart >= ALIKE:
            continue
        if ill or all(_responds(case, series.where) for series in members):
            since = max(calibration.lasting(series.values < ALIKE, series.steps, 1) or 0 for series in members)
            return [Hit(0.6, since, {"group": group}, {"diversity": apart}, None if ill else SAME_ANSWERS)]
    return _same_views(case) if ill else []


def _responds(case: Case, where: Where) -> bool:
    """Whether what an agent does varies with what it sees, so that it has learned something."""
    limit = UNRESPONSIVE[kind_of(case, where.get("agent"))]
    return any(
        float(series.values[-READS:].min()) >= limit
        for series in case.recording.series("actions/responsiveness", agent=where.get("agent"))
    )


def _one_view(case: Case) -> list[Hit]:
    """Groups whose agents have always seen exactly the same, where one does more for the team than another for sure: so
    what is seen is of use to the one alone."""
    measured = _measured(case)
    for group in {series.where.get("group"): None for series in case.recording.series("diversity")}:
        varying, names = (
            _varying(case, group),
            [s.where.get("agent") for s in case.recording.series("diversity", group=group)],
        )
        members = [measured[name] for name in names if name in measured]
        if not varying or len(members) < 2 or any(_equal_since(parts) != 0 for parts in varying):
            continue
        (most, e), (least, f) = max(members), min(members)
        if most - least > APART * float(np.hypot(e, f)):
            return [Hit(0.7, 0, {"group": group}, {"most": most, "least": least}, ONE_VIEW)]
    return []


def _same_views(case: Case) -> list[Hit]:
    """Agents that always do the same, and see the same: every feature has the same figures for all of them."""
    alike = [symptom for symptom in symptoms(case) if symptom.name == "identical_agents"]
    for symptom in alike:
        group = symptom.where.get("group")
        varying = _varying(case, group)
        if varying and all(_equal(parts) for parts in varying):
            says = "Agents of {who} see exactly the same and do the same: what each sees of its own does not reach it."
            return [Hit(0.6, symptom.onset_steps, {"group": group}, {"features": float(len(varying))}, says)]
    return []


def _views_lost(case: Case) -> list[Hit]:
    """Groups whose agents saw different things at first, and exactly the same at all of the latest readings."""
    for group in {series.where.get("group"): None for series in case.recording.series("equal_actions")}:
        since = [_equal_since(parts) for parts in _varying(case, group)]
        known = [at for at in since if at is not None]
        if since and len(known) == len(since) and max(known) > 0:
            says = "Agents of {who} have seen exactly the same {since}: what each sees of its own no longer reaches it."
            return [Hit(0.8, max(known), {"group": group}, {"features": float(len(since))}, says)]
    return []


def _varying(case: Case, group: str | None) -> list[list[Series]]:
    """What each agent of a group sees of a feature, for the features that vary."""
    seen: dict[Any, list[Series]] = {}
    for series in case.recording.series("obs_mean", group=group):
        seen.setdefault(series.where.get("feature"), []).append(series)
    return [parts for parts in seen.values() if len(parts) > 1 and np.ptp(parts[0].values) > 0]


def _equal(parts: list[Series]) -> bool:
    since = _equal_since(parts)
    steps = parts[0].steps
    return since is not None and since <= steps[-max(READS, len(steps) // 3)]


def _equal_since(parts: list[Series]) -> int | None:
    """Since which step all agents see the same; 0 where they always did, None where they do not."""
    first = parts[0]
    if any(len(other.values) != len(first.values) for other in parts):
        return None
    near = ROUNDING * float(np.ptp(first.values))  # the same numbers, added up in another order
    unequal = np.any([np.abs(other.values - first.values) > near for other in parts], axis=0)
    return calibration.lasting(~unequal, first.steps)


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
