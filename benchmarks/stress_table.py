"""The scores of the stress suite, and their table: per condition, over all of them, and in the tail."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from benchmarks.provenance import told
from benchmarks.scoring import iqm, score, stratified_interval
from benchmarks.stress_conditions import ARMS, BY_NAME, CONDITIONS, TASKS, Condition

LEARNED = 0.9  # a score from here on asks for no explanation
RIGHT_STOP = 0.5  # what stopping with the right explanation is worth, where learning may be impossible
Strata = dict[tuple[str, str, str], list[float]]


def points(entry: dict[str, Any], marks: dict[tuple[str, str, str], float]) -> float:
    """The score of an entry; NaN where the mark is missing, or no better than play without learning."""
    about = BY_NAME[entry["condition"]]
    mark = marks.get((about.reference, entry["task"], entry["algo"]), math.nan)
    if entry["status"] != "finished":
        return RIGHT_STOP if about.may_stop and survived(entry) else 0.0
    return score(entry["value"], entry["low"], mark)


def survived(entry: dict[str, Any]) -> bool:
    """Ended by itself (if killed: as if nothing had been), or stopped, rightly explained, with a good checkpoint."""
    if entry["status"] == "finished":
        return bool(entry.get("exact", True))
    return entry["status"] == "stopped" and explained(entry) and "value" in entry


def explained(entry: dict[str, Any]) -> bool:
    """Whether the diagnosis names a right cause first."""
    return any(cause in BY_NAME[entry["condition"]].explained_by for cause in entry["named"][:1])


def logged(entry: dict[str, Any]) -> bool:
    """Whether the run's incidents have what the guard is to do about the condition."""
    acts = [incident.rpartition(": ")[2] for incident in entry.get("incidents", ())]
    return BY_NAME[entry["condition"]].logged in acts


def marks_of(entries: Iterable[dict[str, Any]]) -> dict[tuple[str, str, str], float]:
    """(condition, task, algorithm) -> mean worth over seeds of what was trained by default."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for entry in entries:
        if entry["arm"] == "default" and "value" in entry:
            found.setdefault((entry["condition"], entry["task"], entry["algo"]), []).append(entry["value"])
    return {key: float(np.mean(values)) for key, values in found.items()}


def table(everything: list[dict[str, Any]], former: int = 0) -> str:
    """The results as Markdown: with the usual budgets, and beside them those of larger ones; `former`: how many of
    them are of defaults before today's."""
    entries = _with(everything, 1)
    marks = marks_of(entries)
    of_arms = {arm: _strata(entries, marks, arm) for arm in ARMS}
    commits = sorted({str(entry["commit"])[:10] for entry in everything})
    lines = [
        "Score: 0 is the better of random play and the best constant action, 1 the framework's own training without "
        "the condition at the same budget (mean over seeds); interquartile mean over tasks and seeds, 95% stratified "
        "bootstrap interval. default: this framework as it is; plain: `--measures none --stability off`. Of the "
        f"default's runs, explained: how many of those that did not learn (a score below {LEARNED}, or a stop) have a "
        "right cause as their first finding; logged: how many have a rate lowered by the guard in their incidents.",
        "",
        f"| # | condition | {' | '.join(f'{arm} | interval | survived' for arm in ARMS)} | explained | logged | runs |",
        "|---|---|" + "---|---|---|" * len(ARMS) + "---|---|---|",
        *(line for condition in CONDITIONS if (line := _line(condition, entries, marks, of_arms))),
        "",
        *(_total(arm, strata, entries) for arm, strata in of_arms.items() if strata),
        "",
        *_slow_lines(everything),
        f"Commits: {', '.join(commits)}.{told(former, len(everything))}",
    ]
    return "\n".join(lines) + "\n"


def _with(entries: Iterable[dict[str, Any]], times: int) -> list[dict[str, Any]]:
    """Those with so many times the usual budget."""
    return [entry for entry in entries if _budgets(entry) == times]


def _budgets(entry: dict[str, Any]) -> float:
    return float(entry["total_steps"] / TASKS[entry["task"]].steps[entry["algo"]])


def _slow_lines(everything: list[dict[str, Any]]) -> list[str]:
    """What larger budgets give the default; the marks are trained as long."""
    lines: list[str] = []
    for times in sorted({int(n) for n in map(_budgets, everything) if n > 1}):
        usual, larger = (_by_condition(_with(everything, n)) for n in (1, times))
        lines += [
            f"With {times} times the budget, for conditions and marks alike (`--times {times}`), the default alone:",
            "",
            "| # | condition | usual budget | larger budget | interval | runs |",
            "|---|---|---|---|---|---|",
        ]
        for condition in CONDITIONS:
            if chosen := larger.get(condition.name):
                before = f"{iqm(np.concatenate(was)):.2f}" if (was := usual.get(condition.name)) else ""
                told = f"{before} | {_figures(chosen)} | {sum(map(len, chosen))}"
                lines.append(f"| {condition.number} | {condition.name} | {told} |")
        lines.append("")
    return lines


def _by_condition(entries: list[dict[str, Any]]) -> dict[str, list[list[float]]]:
    """The default's strata of every condition."""
    found: dict[str, list[list[float]]] = {}
    for (name, *_), scores in _strata(entries, marks_of(entries), "default").items():
        found.setdefault(name, []).append(scores)
    return found


def _strata(entries: list[dict[str, Any]], marks: dict[tuple[str, str, str], float], arm: str) -> Strata:
    """(condition, task, algorithm) -> scores of its seeds, as far as they can be said."""
    found: Strata = {}
    for entry in entries:
        value = points(entry, marks)
        if entry["arm"] == arm and not BY_NAME[entry["condition"]].mark_alone and not math.isnan(value):
            found.setdefault((entry["condition"], entry["task"], entry["algo"]), []).append(value)
    return found


def _line(
    condition: Condition,
    entries: list[dict[str, Any]],
    marks: dict[tuple[str, str, str], float],
    of_arms: dict[str, Strata],
) -> str | None:
    mine = [entry for entry in entries if entry["condition"] == condition.name]
    if not mine or condition.mark_alone:
        return None
    cells = []
    for arm, strata in of_arms.items():
        chosen = [values for (name, *_), values in strata.items() if name == condition.name]
        cells.append(f"{_figures(chosen)} | {_share(survived(entry) for entry in mine if entry['arm'] == arm)}")
    ours = [entry for entry in mine if entry["arm"] == "default"]
    poor = [entry for entry in ours if not (entry["status"] == "finished" and points(entry, marks) >= LEARNED)]
    why = _share(map(explained, poor)) if condition.explained_by and poor else ""
    told = _share(map(logged, ours)) if condition.logged else ""
    return f"| {condition.number} | {condition.name} | {' | '.join(cells)} | {why} | {told} | {len(mine)} |"


def _share(told: Iterable[bool]) -> str:
    answers = list(told)
    return f"{sum(answers)} of {len(answers)}"


def _figures(strata: list[list[float]]) -> str:
    if not strata:
        return " | "
    low, high = stratified_interval(strata)
    return f"{iqm(np.concatenate(strata)):.2f} | {low:.2f} to {high:.2f}"


def _total(arm: str, strata: Strata, entries: list[dict[str, Any]]) -> str:
    """All conditions at once; the tail is the headline."""
    values = np.sort(np.concatenate(list(strata.values())))
    worst = values[: max(1, round(len(values) / 10))]
    low, high = stratified_interval(strata.values())
    lived = [survived(entry) for entry in entries if entry["arm"] == arm]
    return (
        f"- {arm}: IQM {iqm(values):.2f} ({low:.2f} to {high:.2f}), tenth percentile {np.percentile(values, 10):.2f}, "
        f"worst decile {worst.mean():.2f} on average, {sum(lived)} of {len(lived)} survived."
    )
