"""What the doctor finds, and the notebook in which it writes each thing once, however many agents show it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Severity = Literal["error", "warning"]
"""error: training would be wrong or fail, or the interface is broken; warning: it works, but is likely to hurt."""

IDS = (
    "action_rejected",
    "reward_type",
    "observation_shape",
    "observation_dtype",
    "observation_non_finite",
    "reward_non_finite",
    "observation_out_of_bounds",
    "space_changes",
    "agent_appears",
    "agent_vanishes",
    "action_range_mismatch",
    "mask_allows_nothing",
    "masking_error",
    "observation_aliased",
    "action_mutated",
    "unseeded",
    "reset_leak",
    "reward_terms_sum",
    "no_reward_signal",
    "endless_episode",
    "time_limit_as_termination",
    "action_has_no_effect",
    "observation_constant",
    "observation_scale",
    "reward_scale_too_large",
    "reward_scale_too_small",
    "reward_offset",
    "reward_outliers",
    "slow_step",
    "not_importable",
)
"""Every finding's id, the most fundamental first. Those that `diagnose` knows too mean the same there."""

NAMED = 3  # agents that are named in one sentence; the others are counted


@dataclass(frozen=True)
class Finding:
    """One fault: what, where, the number that says so, and what to do about it."""

    id: str
    severity: Severity
    where: dict[str, Any]
    value: Any
    explanation: str
    remedy: str

    def as_dict(self) -> dict[str, Any]:
        """What `check --json` prints of it."""
        return {
            "id": self.id,
            "severity": self.severity,
            "where": self.where,
            "value": self.value,
            "explanation": self.explanation,
            "remedy": self.remedy,
        }


class Fault(Exception):
    """An environment that broke off the play, and the finding that this is."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.explanation)
        self.finding = finding


@dataclass
class Notebook:
    """The findings so far. The first of a kind at a place counts; the same of other agents is told with it."""

    first: dict[tuple[Any, ...], Finding] = field(default_factory=dict)
    others: dict[tuple[Any, ...], dict[str, None]] = field(default_factory=dict)

    def write(self, finding: Finding) -> None:
        """Take down a finding, unless it is known."""
        place = {name: value for name, value in finding.where.items() if name != "agent"}
        key = (finding.id, finding.severity, *(f"{name}={value}" for name, value in place.items()))
        if finding.id not in IDS:
            raise ValueError(f"{finding.id!r} is no id of a finding")
        known = self.first.setdefault(key, finding)
        agent = finding.where.get("agent")
        if agent is not None and agent != known.where.get("agent"):
            self.others.setdefault(key, {})[agent] = None

    def note(self, id: str, severity: Severity, where: Mapping[str, Any], value: Any, what: str, remedy: str) -> None:
        """Take down a finding by its parts; `value` may be of any type."""
        self.write(Finding(id, severity, dict(where), plain(value), what, remedy))

    def has(self, *ids: str) -> bool:
        """Whether something of one of these ids was found."""
        return any(finding.id in ids for finding in self.first.values())

    def findings(self) -> list[Finding]:
        """All findings, errors first, in the order of `IDS`."""
        told = [self._with_others(key, finding) for key, finding in self.first.items()]
        return sorted(told, key=lambda finding: (finding.severity != "error", IDS.index(finding.id)))

    def _with_others(self, key: tuple[Any, ...], found: Finding) -> Finding:
        others = list(self.others.get(key, {}))
        if not others:
            return found
        text = f"{found.explanation} The same holds for {listed(others)}."
        return Finding(found.id, found.severity, found.where, found.value, text, found.remedy)


def plain(value: Any) -> Any:
    """`value` in types that JSON has; what has no such form becomes its text, cut short."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, list | tuple) and len(value) <= 50:
        return [plain(item) for item in value]
    if isinstance(value, dict) and len(value) <= 50:
        return {str(key): plain(item) for key, item in value.items()}
    return short(value)


def short(value: Any) -> str:
    """The text of any value on one line, cut short."""
    try:
        text = value if isinstance(value, str) else repr(value)
    except Exception:  # the environment's own object may not even have a text
        text = f"a {type(value).__name__}"
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def listed(names: Iterable[Any]) -> str:
    """Names in a sentence: the first few, and how many more."""
    every = [str(name) for name in names]
    named, more = every[:NAMED], len(every) - NAMED
    if more > 0:
        return f"{', '.join(named)} and {more} more"
    return " and ".join(filter(None, [", ".join(named[:-1]), named[-1]])) if named else "nobody"


def reason(error: BaseException) -> str:
    """What an exception of the environment says, on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
