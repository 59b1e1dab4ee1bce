"""What is known of a run, as pages of reports read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from marl_stable.monitor.recording import Recording
from marl_stable.report.histograms import Histograms
from marl_stable.report.page import VERDICTS, number, since


@dataclass(frozen=True)
class Told:
    """All that a page tells of one run; whatever is not known is empty."""

    name: str
    recording: Recording
    diagnosis: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)  # dotted key -> value
    config: str = ""  # config.yaml as it stands
    metadata: Mapping[str, Any] = field(default_factory=dict)
    incidents: Sequence[Mapping[str, Any]] = ()
    histograms: Mapping[str, Histograms] = field(default_factory=dict)

    @property
    def healthy(self) -> bool:
        """Whether nothing was found against it."""
        return bool(self.diagnosis["verdict"] == "healthy")

    @property
    def verdict(self) -> str:
        """The verdict and, where there is one, its root cause, in words."""
        found = self.diagnosis
        verdict = str(VERDICTS.get(found["verdict"], found["verdict"])).partition(":")[0]
        if not found["findings"]:
            return verdict
        root = found["findings"][0]
        return f"{verdict}: {root['cause'].replace('_', ' ')}, {since(root['onset_steps'])}"

    @property
    def baselines(self) -> dict[str, float]:
        """Returns of play without learning, where they were measured."""
        known = (self.diagnosis["baselines"] or {}).items()
        return {name: float(x["return"]) for name, x in known if x is not None and x["return"] is not None}

    def evaluated(self, best: bool = False, group: str | None = None) -> tuple[str, str]:
        """Return and steps of the last or the best evaluation, in words; nothing where there is none."""
        for series in self.recording.series("eval/return"):
            if series.where.get("group") == group:
                points = [(s, v) for s, v in zip(series.steps, series.values, strict=True) if np.isfinite(v)]
                if points:
                    steps, value = max(points, key=lambda point: float(point[1])) if best else points[-1]
                    return number(float(value)), f"{steps:,}"
        return "", ""
