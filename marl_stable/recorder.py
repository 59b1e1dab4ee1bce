"""The monitor's recording in the run folder: appended to at every logged iteration, cut back on resume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from marl_stable.monitor.recording import encode_columns, encode_row, read_columns, read_rows, segments
from marl_stable.monitor.table import NO_LAYERS, Column, Host, Layers, columns
from marl_stable.report.files import RecordFile, replace_file
from marl_stable.types import EnvSpec


class Labels(NamedTuple):
    """What the places of a recording are called."""

    agents: Mapping[str, tuple[str, ...]]  # group -> names
    layers: Mapping[str, Mapping[str, Layers]]  # group -> network -> names
    terms: Mapping[str, Sequence[str]] = {}  # group -> names; of groups that have terms


def labels(
    spec: EnvSpec, layers: Mapping[str, Mapping[str, Layers]], terms: Mapping[str, Sequence[str]] | None = None
) -> Labels:
    """Those of an environment's groups, an agent's networks and what rewards are made up of."""
    return Labels({group.name: group.agents for group in spec.groups}, layers, terms or {})


class Recorder:
    """Writes one row per logged iteration. Raises OSError where that cannot be done."""

    def __init__(self, folder: Path, labels: Labels, keep_until: int | None = None) -> None:
        """`keep_until` (resume): rows of later steps are dropped, and what was not written whole; None begins anew."""
        self._folder, self._labels = folder, labels
        self._columns: dict[Column, int] = {}
        self._known: dict[tuple[str, str, tuple[int, ...]], list[int]] = {}  # where a tensor's numbers go
        self._segment = -1
        self._rows: RecordFile | None = None
        self._width = 0  # how many columns the segment under way has
        for file in segments(folder):
            self._cut(file, keep_until)

    def write(self, steps: int, found: Host) -> None:
        """Append the numbers of the iteration that ended at `steps`."""
        places = [
            (values.ravel(), self._place(tag, group, values)) for tag, x in found.items() for group, values in x.items()
        ]
        row = np.full(len(self._columns), np.nan)
        for values, at in places:
            row[at] = values
        self._segment_under_way().append(encode_row(steps, row))

    def _place(self, tag: str, group: str, values: NDArray[np.float64]) -> list[int]:
        key = (tag, group, values.shape)
        if key not in self._known:
            network = tag.rpartition("/")[2]
            layers = self._labels.layers.get(group, {}).get(network, NO_LAYERS)
            layers = {**layers, "term": self._labels.terms.get(group, ())}
            named = columns(tag, group, values.shape, self._labels.agents[group], layers)
            self._known[key] = [self._columns.setdefault(column, len(self._columns)) for column in named]
        return self._known[key]

    def _segment_under_way(self) -> RecordFile:
        """Its rows; a new one where there are new columns, or where its list of columns was deleted."""
        rows = self._rows
        if rows is None or self._width < len(self._columns) or not rows.path.with_suffix(".json").exists():
            return self._begin()
        return rows

    def _begin(self) -> RecordFile:
        """A new segment, for all columns known by now. Its list comes last, so that it never names older rows."""
        self._folder.mkdir(exist_ok=True)
        file = self._folder / f"{self._segment + 1:03}.json"
        rows = RecordFile(file.with_suffix(".bin"))
        rows.begin(b"")
        replace_file(file, [encode_columns(list(self._columns))])
        self._segment, self._rows, self._width = self._segment + 1, rows, len(self._columns)
        return rows

    def _cut(self, file: Path, keep_until: int | None) -> None:
        """Take over a segment as far as it holds."""
        known, data = read_columns(file), file.with_suffix(".bin")
        rows = read_rows(data, len(known)) if known else np.empty(0, [("steps", "<i8")])
        kept = rows[rows["steps"] <= (-1 if keep_until is None else keep_until)]
        if known is None or not len(kept):
            data.unlink(missing_ok=True)
            file.unlink()
            return
        self._segment = int(file.stem)
        self._columns = {column: i for i, column in enumerate(known)}
        self._width = len(known)
        self._rows = RecordFile(data)
        self._rows.begin(b"", [kept.tobytes()])
