"""A case: all that is known of a run; a cause: a function that looks for one fault in it; a finding: what it says.

A new failure cause is one function with `@cause` above it, in the file of its room in `causes/`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marl_stable.monitor.advice import settings
from marl_stable.monitor.recording import EMPTY, Recording, Series


class Stage(IntEnum):
    """From upstream to downstream: a fault in data shows in all that follows, never the other way round."""

    ENVIRONMENT = 0
    DATA = 1
    OBJECTIVE = 2
    OPTIMISER = 3
    NETWORK = 4
    ACTION = 5
    RESPONSE = 6


class Finding(NamedTuple):
    """One cause that was found, as in `diagnosis.json`."""

    cause: str
    confidence: float
    onset_steps: int
    where: dict[str, Any]
    evidence: dict[str, float]
    explanation: str
    remedy: str
    config: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Case:
    """What detectors look at. Whatever is unknown is empty, so that a metrics.csv alone is a case as well.

    Two cases are equal only where they are one: what is found out of a case is kept beside it.
    """

    recording: Recording = EMPTY
    config: Mapping[str, Any] = field(default_factory=dict)  # dotted key -> value
    facts: Mapping[str, Any] = field(default_factory=dict)  # total_steps, baselines, preflight, agents, incidents, ...

    @property
    def returns(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Steps and undiscounted returns: of evaluations where there are at least five, else of training episodes."""
        for signal, enough in (("eval/return", 5), ("charts/return", 1)):
            series = self.recording.mean(signal)
            if series is not None and len(series.steps) >= enough:
                return series.steps, series.values
        return np.empty(0, np.int64), np.empty(0)

    @property
    def latest_return(self) -> float | None:
        """What the run brings, as baselines are measured: by its last finite evaluation, however few there are; only
        without any by its training episodes, which explore."""
        evaluated, trained = (self.recording.mean(signal) for signal in ("eval/return", "charts/return"))
        finite = evaluated.values[np.isfinite(evaluated.values)] if evaluated else np.empty(0)
        if len(finite):
            return float(finite[-1])
        return float(trained.values[-1]) if trained else None

    def baseline(self, name: str) -> float | None:
        """The return of `random` or `best_constant` play; None where not measured."""
        found = (self.facts.get("baselines") or {}).get(name)
        return None if found is None or found.get("return") is None else float(found["return"])

    def baseline_error(self, name: str) -> float:
        """The standard error of a baseline, of its 95% interval; 0 where that is not known. Evaluations are the same
        episodes every time: how little they vary says nothing of it."""
        low, high = ((self.facts.get("baselines") or {}).get(name) or {}).get("ci95") or (None, None)
        return 0.0 if low is None or high is None else float(high - low) / 3.92


class Hit(NamedTuple):
    """What a cause's function found: how certain, since when, where, and the numbers that say so."""

    confidence: float
    onset_steps: int
    where: dict[str, Any]
    evidence: dict[str, float]
    says: str | None = None  # in place of the cause's own sentence
    config: dict[str, Any] | None = None  # in place of the cause's own settings
    remedy: str | None = None  # in place of the cause's own


Look = Callable[[Case], list[Hit]]
Lacks = Callable[[Case], str | None]
"""What a cause would need to be judged in a run that has all its signals, in words; None where nothing is missing."""


class Cause(NamedTuple):
    """A registered cause. `says` is a sentence with fields: the evidence, parts of the place, {who} and {since}.

    `config` are settings, `advice.Turned` where they have a direction; a finding has of them what would change the run.
    """

    name: str
    stage: Stage
    look: Look
    needs: tuple[str, ...]  # signals, or facts, without which it cannot be looked for
    says: str
    remedy: str
    config: dict[str, Any]
    last_resort: bool  # named first only where nothing upstream was found
    lacks: Lacks
    otherwise: str | None = None  # in place of the remedy where the run has all its settings already


CAUSES: dict[str, Cause] = {}


def cause(
    name: str,
    stage: Stage,
    needs: tuple[str, ...],
    says: str,
    remedy: str,
    config: Mapping[str, Any] | None = None,
    last_resort: bool = False,
    lacks: Lacks = lambda case: None,
    otherwise: str | None = None,
) -> Callable[[Look], Look]:
    """Register a function that looks for the cause called `name`."""

    def register(look: Look) -> Look:
        CAUSES[name] = Cause(name, stage, look, needs, says, remedy, dict(config or {}), last_resort, lacks, otherwise)
        return look

    return register


def can_look(case: Case, needs: tuple[str, ...]) -> bool:
    """Whether `case` has every signal or fact that a cause needs."""
    return all(name in case.recording or case.facts.get(name) is not None for name in needs)


def findings(case: Case, kind: Cause) -> list[Finding]:
    """What a cause finds in `case`, in words."""
    return [_in_words(case, kind, hit) for hit in kind.look(case)]


def _in_words(case: Case, kind: Cause, hit: Hit) -> Finding:
    since = "from the start" if hit.onset_steps <= 0 else f"since {hit.onset_steps:,} steps"
    fields = {"who": who(hit.where), "since": since, **hit.where, **hit.evidence}
    told = (hit.says or kind.says).format(**fields)
    wanted = kind.config if hit.config is None else hit.config
    config = settings(case.config, wanted, hit.where.get("network"))
    remedy = kind.otherwise if wanted and not config and kind.otherwise else kind.remedy
    return Finding(
        kind.name, hit.confidence, hit.onset_steps, hit.where, hit.evidence, told, hit.remedy or remedy, config
    )


def who(where: Mapping[str, Any]) -> str:
    """The agents that a place is about."""
    return str(where.get("agent") or where.get("group") or "the agents")


def place(series: Series) -> dict[str, Any]:
    """Where a series was read, as `diagnosis.json` has it: the group only where no agent is known."""
    return {part: name for part, name in series.where.items() if part != "group" or "agent" not in series.where}
