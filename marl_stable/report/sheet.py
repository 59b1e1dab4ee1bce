"""Panels of a page that panels.js draws: what stands for each in the text, and what the script is told of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from marl_stable.report.curves import Line, Panel, Values
from marl_stable.report.histograms import Histograms
from marl_stable.report.html import COLOURS, data, document, figure

STYLES = ("uplot/uPlot.min.css",)
SCRIPTS = ("uplot/uPlot.iife.min.js", "panels.js")
USE = (
    '<p class="note">Drag over a plot to zoom, double-click to go back; a click on a name hides its line.</p>\n'
    '<noscript><p class="bad">The plots need JavaScript, of this file alone.</p></noscript>'
)


class Sheet:
    """The panels of a page: their places in its text, and their numbers for its script."""

    def __init__(self) -> None:
        self._panels: list[dict[str, Any]] = []
        self._axes: dict[tuple[int, ...], int] = {}  # most lines share their steps

    def page(self, title: str, body: Iterable[str], marks: Sequence[Mapping[str, Any]] = ()) -> str:
        """The whole file; `marks` are upright lines of all panels, at steps, of a cause or of an incident."""
        body = list(body)  # which fills the sheet
        drawn = {"axes": [list(axis) for axis in self._axes], "panels": self._panels, "marks": list(marks)}
        return document(title, [*body, data("panels", drawn)], STYLES, SCRIPTS)

    def panel(self, panel: Panel) -> str:
        """Curves."""
        lines = [self._line(line) for line in panel.lines]
        self._panels.append({"lines": lines, "levels": dict(panel.levels), "log": panel.logarithmic})
        notes = [panel.note] if panel.note else []
        notes += ["logarithmic"] if panel.logarithmic else []
        notes += [f"not finite at {panel.lost:,} readings"] if panel.lost else []
        return self._place(panel.title, ", ".join(notes))

    def picture(self, place: str, found: Histograms, hue: int) -> str:
        """What was chosen how often, over training."""
        shares = np.rint(100 * found.counts / found.counts.sum(1, keepdims=True).clip(1)).astype(int)
        whole = bool(np.all(np.diff(found.edges) == 1.0))
        drawn = {"x": self._axis(found.steps), "edges": found.edges.tolist(), "shares": shares.tolist()}
        self._panels.append({"heat": drawn | {"whole": whole, "c": hue % COLOURS}})
        return self._place(place, "" if whole else "of its range")

    def _line(self, line: Line) -> dict[str, Any]:
        dashes, hue = divmod(line.colour, COLOURS)  # where colours begin anew, dashes tell lines apart
        found: dict[str, Any] = {"label": line.label, "x": self._axis(line.steps), "c": hue, "dashes": dashes}
        parts = {"y": line.values, "low": line.low, "high": line.high}
        return found | {name: _rounded(values) for name, values in parts.items() if values is not None}

    def _axis(self, steps: Iterable[int]) -> int:
        return self._axes.setdefault(tuple(map(int, steps)), len(self._axes))

    def _place(self, title: str, note: str) -> str:
        return figure(f'<div class="plot" data-panel="{len(self._panels) - 1}"></div>', title, note)


def _rounded(values: Values) -> list[float | None]:
    return [float(f"{value:.5g}") if np.isfinite(value) else None for value in values]
