"""What an experiment says: how much each remedy gained over its control, and which cause that names."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from marl_stable.investigate.remedies import Remedy
from marl_stable.monitor.case import CAUSES

HELPS = 2.0  # standard errors
MOST = 99.0  # standard errors that are told of
QUIET = 0.01  # of the return: what pairs differ by cannot be known better
ALIKE = 0.1  # of the largest gain: remedies that close are told apart by what the diagnosis said
PROVEN, DISPROVEN = 0.5, 0.5  # share of the doubt, or of the confidence, that an outcome takes away
UNNAMED = 0.7  # confidence in a cause that only the experiment names


class Short(Protocol):
    """What matters here of one training."""

    @property
    def value(self) -> float | None:
        """Its return; None where that was not finite."""

    @property
    def symptoms(self) -> list[str]:
        """What a user saw."""


class Outcome(NamedTuple):
    """What a remedy brought over its control."""

    remedy: Remedy
    start: str  # where both began: anew, best or last
    value: float | None
    control: float | None
    gain: float  # standard errors
    gone: list[str]  # symptoms of every control that no training with the remedy has

    @property
    def helps(self) -> bool:
        """Better than nothing beyond doubt, or without the symptoms and no worse."""
        return self.gain >= HELPS or (bool(self.gone) and self.gain >= 0)


def judge(remedy: Remedy, start: str, treated: Sequence[Short], control: Sequence[Short]) -> Outcome:
    """Compare paired trainings, in the same order of seeds."""
    gone = set.intersection(*(set(short.symptoms) for short in control))
    gone -= {symptom for short in treated for symptom in short.symptoms}
    return Outcome(remedy, start, _mean(treated), _mean(control), gain(treated, control), sorted(gone))


def gain(treated: Sequence[Short], control: Sequence[Short]) -> float:
    """Mean return over the control's in paired standard errors, within 99 of 0.

    The deviation of so few pairs is known badly: it counts as no less than that of the controls among themselves, nor
    than 1% of the return.
    """
    before, after = _values(control), _values(treated)
    if before is None or after is None:
        return MOST * ((before is None) - (after is None))
    differences = [new - old for new, old in zip(after, before, strict=True)]
    floor = QUIET * max(abs(value) for value in (*before, *after, 1e-6))
    deviation = max(floor, _deviation(differences), _deviation(before))
    return max(-MOST, min(MOST, statistics.fmean(differences) / deviation * math.sqrt(len(differences))))


def _values(shorts: Sequence[Short]) -> list[float] | None:
    known = [short.value for short in shorts if short.value is not None]
    return known if len(known) == len(shorts) else None


def _mean(shorts: Sequence[Short]) -> float | None:
    values = _values(shorts)
    return None if values is None else statistics.fmean(values)


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def named(found: Mapping[str, Any], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The diagnosis `found` in the light of `outcomes`: what helped comes first, with more confidence.

    What helped about as much as the best comes in the order of the diagnosis, then causes that only the experiment
    names, and those that are consequences of others last. Where nothing helped, all stays in its order, with less
    confidence.
    """
    best = {cause: _best(cause, outcomes) for cause in dict.fromkeys(outcome.remedy.cause for outcome in outcomes)}
    findings = [_weighed(finding, best.get(finding["cause"])) for finding in found["findings"]]
    helpful = [outcome for outcome in best.values() if outcome.helps]
    if not helpful:
        return dict(found) | {"findings": findings}
    top = max(outcome.gain for outcome in helpful)
    alike = top - max(HELPS, ALIKE * top)
    known, onset = {finding["cause"] for finding in findings}, min(finding["onset_steps"] for finding in findings)
    unnamed = [outcome for outcome in helpful if outcome.remedy.cause not in known and outcome.gain >= alike]
    findings += [_new(outcome, onset) for outcome in sorted(unnamed, key=lambda outcome: -outcome.gain)]

    def rank(finding: Mapping[str, Any]) -> tuple[int, bool]:
        outcome, kind = best.get(finding["cause"]), CAUSES.get(finding["cause"])
        help_given = 2 if outcome is None or not outcome.helps else 1 if outcome.gain < alike else 0
        return help_given, kind is not None and kind.last_resort

    kept = [finding for finding in findings if finding["cause"] != "unknown"]
    return dict(found) | {"findings": sorted(kept, key=rank)}


def _best(cause: str, outcomes: Sequence[Outcome]) -> Outcome:
    return max((outcome for outcome in outcomes if outcome.remedy.cause == cause), key=lambda outcome: outcome.gain)


def _weighed(finding: Mapping[str, Any], outcome: Outcome | None) -> dict[str, Any]:
    """A finding with what its remedy brought; with one that was not tried, as it is."""
    if outcome is None:
        return dict(finding)
    doubt, confidence = 1 - finding["confidence"], finding["confidence"]
    confidence = 1 - doubt * (1 - PROVEN) if outcome.helps else confidence * (1 - DISPROVEN)
    evidence = dict(finding["evidence"]) | {"experiment_gain": outcome.gain}
    config = finding["config"] or (outcome.remedy.config if outcome.helps else {})
    return dict(finding) | {"confidence": confidence, "evidence": evidence, "config": config}


def _new(outcome: Outcome, onset: int) -> dict[str, Any]:
    """A finding that only the experiment made."""
    cleared = f", and {', '.join(symptom.replace('_', ' ') for symptom in outcome.gone)} gone" if outcome.gone else ""
    told = f"Trained again with {outcome.remedy.name} and nothing else changed, the return is "
    told += (
        f"{'finite' if outcome.control is None else f'{outcome.value:.3g} instead of {outcome.control:.3g}'}{cleared}."
    )
    return {
        "cause": outcome.remedy.cause,
        "confidence": UNNAMED,
        "onset_steps": onset,
        "where": {},
        "evidence": {"experiment_gain": outcome.gain},
        "explanation": told,
        "remedy": f"Train with {outcome.remedy.name}.",
        "config": dict(outcome.remedy.config),
    }
