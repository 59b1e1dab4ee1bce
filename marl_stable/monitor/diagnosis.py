"""From a case to `diagnosis.json`: every cause looked for, the root cause first.

The root is told from its consequences by when it began, and among what began together by how far upstream it is
(data, then what is learned from them, then gradients, networks, actions, the response to observations).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from marl_stable.monitor import causes  # noqa: F401  (registers every cause)
from marl_stable.monitor.case import CAUSES, Case, Finding, can_look, findings
from marl_stable.monitor.gains import gained, under_way
from marl_stable.monitor.symptoms import Symptom, symptoms, troubles

TOGETHER = 0.05  # of the run: what began within it began together
READINGS = 3  # or within so many logged iterations
DOUBTFUL = 0.5  # confidence below which a finding is named after all others
UNKNOWN_REMEDY = (
    "Run `marl-stable diagnose RUN --experiment`, which tries one remedy after the other from a checkpoint."
)
UNKNOWN_ELSEWHERE = (  # a loop that is not this package's, or a metrics.csv alone, has no run to go on from
    "Hand the monitor (`ms.StabilityMonitor`) what it does not see yet (rewards with ends, values, log ratios, logits "
    "or greedy actions, gradient norms), and change one thing at a time: the learning rate, the scale of rewards, "
    "clipping."
)


@np.errstate(over="ignore", invalid="ignore")  # what is infinite is compared like any number, and told of as such
def diagnose(case: Case) -> dict[str, Any]:
    """The content of `diagnosis.json`, as plain types.

    `checked` are causes that were judged; `not_judged` those whose signals are there, but not what it takes to tell.
    """
    looked = [kind for kind in CAUSES.values() if can_look(case, kind.needs)]
    found = ordered([finding for kind in looked for finding in findings(case, kind)], case)
    lacking = {kind.name: kind.lacks(case) for kind in looked if kind.name not in {finding.cause for finding in found}}
    lacking = {name: needs for name, needs in lacking.items() if needs is not None}
    looked = [kind for kind in looked if kind.name not in lacking]
    seen, wrong = symptoms(case), troubles(case)
    unexplained = [symptom for symptom in wrong if not (symptom.name == "no_learning" and under_way(case))]
    if unexplained and not found:
        found = [unknown(unexplained, [kind.name for kind in looked], own=_can_go_on(case))]
    return {
        "verdict": "healthy" if not found else "failing" if any(_does_harm(s, case) for s in wrong) else "warning",
        "findings": [finding._asdict() for finding in found],
        "symptoms": [symptom.name for symptom in seen],
        "actions_taken": actions_taken(case.facts.get("incidents") or ()),
        "checked": [kind.name for kind in looked],
        "return": case.latest_return,
        "baselines": case.facts.get("baselines") or {"random": None, "best_constant": None},
        "not_judged": [{"cause": name, "needs": needs} for name, needs in lacking.items()],
    }


def ordered(found: list[Finding], case: Case) -> list[Finding]:
    """The root cause first: certain before doubtful, real causes before last resorts, early before late, and of what
    began together the one that is furthest upstream."""
    if not found:
        return []
    steps = case.recording.steps
    spacing = float(steps[-1] - steps[0]) / max(1, len(steps) - 1) if len(steps) else 0.0
    near = max(READINGS * spacing, TOGETHER * float(steps[-1])) if len(steps) else 0.0

    def rank(finding: Finding, first: int) -> tuple[Any, ...]:
        kind = CAUSES[finding.cause]
        together = finding.onset_steps - first <= near
        order = kind.stage if together else finding.onset_steps
        return finding.confidence < DOUBTFUL, kind.last_resort, not together, order, -finding.confidence

    real = [f for f in found if not CAUSES[f.cause].last_resort and f.confidence >= DOUBTFUL] or found
    first = min(finding.onset_steps for finding in real)
    return sorted(found, key=lambda finding: rank(finding, first))


def _does_harm(symptom: Symptom, case: Case) -> bool:
    """Whether the run suffers by a symptom; what is not finite is left out of learning where that goes on."""
    return symptom.name != "non_finite" or not gained(case)


def _can_go_on(case: Case) -> bool:
    """Whether this is a run of this package: a metrics.csv alone has no settings, and no checkpoint either."""
    return bool(case.config) and case.config.get("loop") != "own"


def unknown(seen: Sequence[Symptom], excluded: list[str], own: bool) -> Finding:
    """A symptom without a cause: says what was excluded rather than a wrong name. `own`: a run of this package."""
    first = min(seen, key=lambda symptom: symptom.onset_steps)
    told = f"The run shows {first.name.replace('_', ' ')}, and {_explains_nothing(len(excluded))}."
    remedy = UNKNOWN_REMEDY if own else UNKNOWN_ELSEWHERE
    return Finding("unknown", 0.2, first.onset_steps, first.where, first.evidence, told, remedy, {})


def _explains_nothing(looked_for: int) -> str:
    if looked_for == 0:
        return "what was recorded is too little to look for any cause"
    if looked_for == 1:
        return "the one cause looked for does not explain it"
    return f"none of the {looked_for} causes looked for explains it"


def actions_taken(incidents: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the guard did, counted by kind of action, with the first step of each."""
    found: dict[str, dict[str, Any]] = {}
    for incident in incidents:
        action = incident.get("action", "none")
        if action in ("none", "warned"):
            continue
        entry = found.setdefault(action, {"steps": incident["steps"], "action": action, "count": 0})
        entry["count"] += 1
    return list(found.values())
