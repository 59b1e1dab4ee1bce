"""Judging diagnoses by what was truly done to the runs: harm, what was found, and how sure one can be of the rates.

Detectors never see this file, nor the labels. An entry is a line of the benchmark's results.

What is right where a fault is there and does no harm: to name it, as what it is, a warning; or to say nothing. It is
wrong to call such a run failing, and to name another cause. The strict figure, by which any word about a harmless dose
is a false alarm, stands beside. In the same way `unknown` is counted as a false alarm in every healthy run, and it is
said how many of them truly learned nothing, so that the word was right.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from benchmarks.diagnosis_plan import CLEAN, CONSTANT

Kind = Literal["healthy", "harmful", "harmless", "undecided"]
Entry = Mapping[str, Any]
HARM = 0.2  # share of what the twin gained over play without learning; who loses more was harmed
SURE = 2.0  # standard errors by which a harm of that size must stand out, for anything to be said
UNKNOWN = "unknown"
HALVES = ("building", "other")
Z95 = 1.959964
DRAWS = 2_000


class Rate(NamedTuple):
    """A share of n, with its 95% Wilson interval."""

    hits: int
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's (1927): holds near 0 and 1 as well, and for few."""
        if self.n == 0:
            return 0.0, 1.0
        p, z2 = self.hits / self.n, Z95**2
        middle = (p + z2 / (2 * self.n)) / (1 + z2 / self.n)
        reach = Z95 / (1 + z2 / self.n) * math.sqrt(p * (1 - p) / self.n + z2 / (4 * self.n**2))
        return max(0.0, middle - reach), min(1.0, middle + reach)

    def __str__(self) -> str:
        if self.n == 0:
            return "none"
        low, high = self.interval
        return f"{self.hits / self.n:.2f} ({low:.2f} to {high:.2f}; {self.hits} of {self.n})"


class Judged(NamedTuple):
    """One entry with the judgement on its run and on its diagnosis."""

    entry: Entry
    kind: Kind

    @property
    def cause(self) -> str:
        """The true one."""
        return str(self.entry["cause"])

    @property
    def named(self) -> list[str]:
        """Causes, the first one first."""
        return [finding["cause"] for finding in self.entry["judged"]["findings"]]

    def within(self, first: int) -> bool:
        """Whether the true cause is among the first that are named."""
        return self.cause in self.named[:first]

    @property
    def place_right(self) -> bool | None:
        """Whether the finding of the true cause says where; None where there is none, or no one place to tell."""
        found = [finding for finding in self.entry["judged"]["findings"] if finding["cause"] == self.cause]
        if not found or not self.entry["place"]:
            return None
        return any(_there(finding["where"], self.entry) for finding in found)

    @property
    def delay(self) -> float | None:
        """From the fault's beginning until its cause was named, as a share of the run; None where that is unknown."""
        first = self.entry["judged"]["first"]
        if first is None or self.entry["rare"]:
            return None
        return float(first - self.entry["onset"]) / float(self.entry["total_steps"])

    @property
    def warned(self) -> bool:
        """Whether the true cause is named first, and the run is not called failing."""
        return self.within(1) and self.entry["judged"]["verdict"] == "warning"

    @property
    def learned_nothing(self) -> bool:
        """Whether the policy is, for all one can tell, no better than play without learning."""
        entry = self.entry
        return "value" in entry and bool(entry["value"] - entry["low"] < SURE * entry["error"])

    @property
    def false_alarms(self) -> list[str]:
        """Causes named where nothing was wrong: in a healthy run, or before the fault began; each once a run."""
        judged = self.entry["judged"]
        named = set(judged["before"]) | (set(self.named) if self.kind == "healthy" else set())
        return sorted(named - ({self.cause} if self.entry["name"] == CONSTANT else set()))


def half(cause: str) -> str:
    """The half of all causes to which one belongs: at first the detectors were built with a view of one half alone."""
    return HALVES[hashlib.sha256(cause.encode()).digest()[0] % 2]


def judge(entries: Sequence[Entry]) -> list[Judged]:
    """Every entry beside its twin."""
    twins = {_twin_key(entry): entry for entry in entries if entry["name"] == CLEAN}
    return [Judged(entry, kind_of(entry, twins.get(_twin_key(entry)))) for entry in entries]


def kind_of(entry: Entry, twin: Entry | None) -> Kind:
    """Whether the run was healthy, and if not, whether its fault did harm.

    `undecided` where there is no twin, or where the twin learned too little for harm to be told from chance.
    """
    if entry["healthy"]:
        return "healthy"
    if twin is None or "value" not in twin:
        return "undecided"
    limit = HARM * (twin["value"] - twin["low"])
    if limit < SURE * math.sqrt(2) * twin["error"]:
        return "undecided"
    if entry["status"] != "finished" or "value" not in entry:
        return "harmful"
    return "harmful" if twin["value"] - entry["value"] > limit else "harmless"


def _twin_key(entry: Entry) -> tuple[Any, ...]:
    return tuple(entry[name] for name in ("task", "algo", "seed", "variant", "measures"))


def _there(where: Mapping[str, Any], entry: Entry) -> bool:
    """Whether every part of the place is said, and rightly; a group of one agent may stand for the agent."""
    for part, right in entry["place"].items():
        said = where.get(part)
        if part == "agent" and said is None:
            said = entry["agent_of"].get(where.get("group"))
        if said not in right:
            return False
    return True


# ---- figures


def rates(judged: Iterable[Judged]) -> dict[str, Rate]:
    """Shares of the runs that were harmed; the place, of those whose cause was named and that have one."""
    harmed = [each for each in judged if each.kind == "harmful"]
    places = [each.place_right for each in harmed if each.place_right is not None]
    return {
        "anything found": Rate(sum(bool(each.named) for each in harmed), len(harmed)),
        "recall: its cause is named": Rate(sum(each.within(len(each.named)) for each in harmed), len(harmed)),
        "top-1: named first": Rate(sum(each.within(1) for each in harmed), len(harmed)),
        "top-3": Rate(sum(each.within(3) for each in harmed), len(harmed)),
        "another cause is named first": Rate(
            sum(each.named[:1] not in ([], [UNKNOWN], [each.cause]) for each in harmed), len(harmed)
        ),
        "place right, of those named": Rate(sum(places), len(places)),
    }


def alarms(judged: Iterable[Judged]) -> dict[str, float]:
    """False alarms, healthy steps, alarms per million of them, and the upper end of its exact 95% Poisson interval."""
    from scipy.stats import chi2

    count, steps = 0, 0
    for each in judged:
        count += len(each.false_alarms)
        steps += each.entry["total_steps"] if each.kind == "healthy" else each.entry["onset"]
    millions = max(steps, 1) / 1e6
    upper = float(chi2.ppf(0.975, 2 * (count + 1))) / 2
    return {"alarms": count, "steps": steps, "per_million": count / millions, "upper": upper / millions}


def median_delay(judged: Iterable[Judged]) -> tuple[float, float, float, int] | None:
    """Median delay of what was harmful and found, its 95% bootstrap interval, and of how many; None of none."""
    delays = np.array([d for each in judged if each.kind == "harmful" and (d := each.delay) is not None])
    if not len(delays):
        return None
    drawn = np.median(np.random.default_rng(0).choice(delays, (DRAWS, len(delays))), axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(np.median(delays)), float(low), float(high), len(delays)


def confusion(judged: Iterable[Judged]) -> dict[str, Counter[str]]:
    """True cause -> what was named first in runs that were harmed (`nothing` where nothing was)."""
    found: dict[str, Counter[str]] = {}
    for each in judged:
        if each.kind == "harmful":
            found.setdefault(each.cause, Counter())[each.named[0] if each.named else "nothing"] += 1
    return dict(sorted(found.items()))


# ---- the page

TITLES = {"default": "As the framework is", "none": "Plain algorithms, watched alone (`--measures none`)"}


def pages(entries: Sequence[Entry]) -> str:
    """All results as Markdown, those with and without measures apart."""
    parts = {measures: [entry for entry in entries if entry["measures"] == measures] for measures in TITLES}
    return "\n".join(f"## {TITLES[measures]}\n\n{page(part)}" for measures, part in parts.items() if part)


def page(entries: Sequence[Entry]) -> str:
    """Results of one kind of training."""
    judged = judge(entries)
    kinds = Counter(each.kind for each in judged)
    stopped = sum(each.entry["status"] != "finished" for each in judged)
    sides = {"all": judged} | {side: [each for each in judged if half(each.cause) == side] for side in HALVES}
    commits = sorted({str(entry["judged"]["commit"])[:10] for entry in entries})
    lines = [
        f"{len(judged)} runs: {kinds['harmful']} harmed by their fault (over {HARM:.0%} of what the same seed gains "
        f"without it is lost, or the run ended), {kinds['harmless']} with a fault that did no harm, "
        f"{kinds['healthy']} healthy, {kinds['undecided']} where harm cannot be told; {stopped} did not end by "
        "themselves. Shares with 95% Wilson intervals. Causes are halved by the hash of their names: at first the "
        "detectors were built with a view of one half (of the other they then named 0.46 first) and later mended with "
        "a view of both, on recordings of former defaults. These were made since; mended by them were four false "
        "alarms (three of reward_shift), one cause that was named second, and one run that was called healthy: before "
        "that, top-1 was 0.77.",
        "",
        f"| of runs that were harmed | {' | '.join(sides)} |",
        "|---|" + "---|" * len(sides),
        *(f"| {name} | {' | '.join(str(rates(side)[name]) for side in sides.values())} |" for name in rates([])),
        f"| median delay, share of the run | {' | '.join(_delay(side) for side in sides.values())} |",
        "",
        _alarm_line("In healthy runs, and before faults began", judged),
        _harmless_line(judged),
        "",
        *_healthy_lines(judged),
        "",
        "What was named first in runs that were harmed:",
        "",
        "| cause | half | named first: runs | harmless: alarms |",
        "|---|---|---|---|",
        *_cause_lines(judged),
        "",
        f"Detectors of {', '.join(commits)}.",
    ]
    return "\n".join(lines) + "\n"


def _delay(judged: list[Judged]) -> str:
    found = median_delay(judged)
    return "none" if found is None else "{:.3f} ({:.3f} to {:.3f}; {})".format(*found)


def _alarm_line(what: str, judged: Sequence[Judged]) -> str:
    found = alarms(judged)
    if not found["steps"]:
        return f"{what}: no steps yet."
    right = sum(each.kind == "healthy" and each.learned_nothing and UNKNOWN in each.named for each in judged)
    return (
        f"{what}: {found['alarms']:.0f} false alarms in {found['steps'] / 1e6:.2f} million steps, "
        f"{found['per_million']:.2f} a million (at most {found['upper']:.2f}); {right} of them are `unknown` at the "
        "end of a run in which nothing was wrong, and which truly learned nothing."
    )


def _harmless_line(judged: Iterable[Judged]) -> str:
    rest = [each for each in judged if each.kind == "harmless"]
    told = Rate(sum(bool(each.named) for each in rest), len(rest))
    right = Rate(sum(each.within(1) for each in rest), len(rest))
    warned = Rate(sum(each.warned for each in rest), len(rest))
    other = Rate(sum(bool(each.named) and not each.within(1) for each in rest), len(rest))
    return (
        f"Alarm on a harmless dose: {told}; the cause that was injected named first: {right}, as a warning: {warned}; "
        f"another cause named first, which is wrong: {other}."
    )


def _healthy_lines(judged: Iterable[Judged]) -> list[str]:
    runs: Counter[str] = Counter()
    named: dict[str, Counter[str]] = {}
    for each in judged:
        if each.kind == "healthy":
            runs[each.entry["name"]] += 1
            named.setdefault(each.entry["name"], Counter()).update(each.false_alarms)
    lines = ["| healthy runs | runs | false alarms |", "|---|---|---|"]
    return lines + [f"| {name} | {count} | {_counted(named[name])} |" for name, count in sorted(runs.items())]


def _cause_lines(judged: list[Judged]) -> list[str]:
    found = confusion(judged)
    harmless: dict[str, list[Judged]] = {}
    for each in judged:
        if each.kind == "harmless":
            harmless.setdefault(each.cause, []).append(each)
    lines = []
    for cause in sorted(found.keys() | harmless.keys()):
        rest = harmless.get(cause, [])
        alarmed = f"{sum(bool(each.named) for each in rest)} of {len(rest)}"
        lines.append(f"| {cause} | {half(cause)} | {_counted(found.get(cause, Counter()))} | {alarmed} |")
    return lines


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())
