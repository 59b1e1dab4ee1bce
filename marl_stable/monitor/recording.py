"""A run's signals as detectors read them: by name and place, over steps; and the bytes in which they are kept.

A recording on disk is a folder of segments. A segment is a list of columns (`NNN.json`) and rows of fixed width
(`NNN.bin`); a new one begins when a signal appears for the first time. What was torn in mid-write is left out.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marl_stable.monitor.table import Column, Place, signal_of

Where = dict[str, Any]
"""A place: any of group, network, agent, dimension, feature, layer."""


class Series(NamedTuple):
    """One column: the values of a signal at a place, where it was read."""

    signal: str
    where: Where
    steps: NDArray[np.int64]  # (n,)
    values: NDArray[np.float64]  # (n,), never NaN; infinities are values


class Recording:
    """Signals over the logged iterations of a run."""

    def __init__(self, steps: NDArray[np.int64], columns: Mapping[Column, NDArray[np.float64]]) -> None:
        """`steps (n,)` rise; every column is `(n,)`, NaN where it was not read."""
        self.steps = steps
        self._by_signal: dict[str, list[tuple[Where, NDArray[np.float64]]]] = {}
        self._read: dict[str, list[Series]] = {}  # what was asked for, without what was not read
        self._at: dict[tuple[str, tuple[str, ...]], dict[tuple[Any, ...], list[Series]]] = {}
        for column, values in columns.items():
            self._by_signal.setdefault(column.signal, []).append((dict(column.place), values))

    def __contains__(self, signal: str) -> bool:
        return signal in self._by_signal

    def signals(self) -> list[str]:
        """Names of all signals."""
        return list(self._by_signal)

    def series(self, signal: str, **where: Any) -> list[Series]:
        """Every column of `signal` whose place has the given parts; none where it was never read."""
        if not where:
            return list(self._known(signal))
        parts = tuple(sorted(where))
        if (signal, parts) not in self._at:  # causes ask for each feature of each agent, one after the other
            index = self._at[signal, parts] = {}
            for series in self._known(signal):
                index.setdefault(tuple(series.where.get(part) for part in parts), []).append(series)
        return list(self._at[signal, parts].get(tuple(where[part] for part in parts), []))

    def _known(self, signal: str) -> list[Series]:
        if signal not in self._read:
            masks = [(place, values, ~np.isnan(values)) for place, values in self._by_signal.get(signal, [])]
            self._read[signal] = [
                Series(signal, place, self.steps[read], values[read]) for place, values, read in masks if read.any()
            ]
        return self._read[signal]

    def mean(self, signal: str) -> Series | None:
        """The mean over all places of `signal`, where it was read; None where it never was."""
        parts = [values for _, values in self._by_signal.get(signal, [])]
        values = np.stack(parts) if parts else np.empty((0, len(self.steps)))
        with np.errstate(all="ignore"):  # inf - inf is NaN, and so is the mean of nothing
            mean = np.nansum(values, axis=0) / (~np.isnan(values)).sum(0)
        read = ~np.isnan(mean)
        return Series(signal, {}, self.steps[read], mean[read]) if read.any() else None

    def until(self, steps: int) -> Recording:
        """What was known at `steps`."""
        known = int(np.searchsorted(self.steps, steps, side="right"))
        part = Recording(self.steps[:known], {})
        part._by_signal = {
            signal: [(place, values[:known]) for place, values in parts] for signal, parts in self._by_signal.items()
        }
        return part

    def joined(self, other: Recording) -> Recording:
        """Both, by steps; where both have a signal, this one's."""
        steps = np.union1d(self.steps, other.steps)
        columns: dict[Column, NDArray[np.float64]] = {}
        for part in (self, other):
            at = np.searchsorted(steps, part.steps)
            for signal, places in part._by_signal.items():
                if part is other and signal in self:
                    continue
                for place, values in places:
                    column = columns[Column(signal, tuple(place.items()))] = np.full(len(steps), np.nan)
                    column[at] = values
        return Recording(steps, columns)


EMPTY = Recording(np.empty(0, np.int64), {})


def row_type(columns: int) -> np.dtype[Any]:
    """How a row lies on disk."""
    return np.dtype([("steps", "<i8"), ("values", "<f4", (columns,))])


def encode_columns(columns: Sequence[Column]) -> bytes:
    """A segment's list of columns."""
    return json.dumps([[column.signal, dict(column.place)] for column in columns]).encode()


def encode_row(steps: int, values: NDArray[np.float64]) -> bytes:
    """One row; a number beyond float32 becomes infinite, which is what a detector makes of it anyway."""
    row = np.zeros(1, row_type(len(values)))
    with np.errstate(over="ignore"):
        row["steps"], row["values"] = steps, values
    return row.tobytes()


def read_columns(file: Path) -> list[Column] | None:
    """A segment's columns; None where they were not written whole. Raises OSError."""
    data = file.read_bytes()
    try:
        return [Column(signal, tuple(place.items())) for signal, place in json.loads(data)]
    except (ValueError, TypeError, AttributeError):
        return None


def read_rows(file: Path, columns: int) -> NDArray[Any]:
    """A segment's whole rows. Raises OSError."""
    kind = row_type(columns)
    data = file.read_bytes() if file.exists() else b""
    rows = np.frombuffer(data[: len(data) // kind.itemsize * kind.itemsize], kind)
    return rows[np.diff(rows["steps"], prepend=-1) > 0]  # a power cut may leave zeros where a file had grown


def segments(folder: Path) -> list[Path]:
    """The lists of columns of a recording's segments, in order."""
    files = (file for file in folder.glob("*.json") if re.fullmatch(r"\d{3,}", file.stem))
    return sorted(files, key=lambda file: int(file.stem))


def read_recording(folder: Path) -> Recording:
    """The recording in `folder`, also of a run under way; an empty one where there is none."""
    parts: list[tuple[list[Column], NDArray[Any]]] = []
    for file in segments(folder):
        with contextlib.suppress(OSError):  # such as one that a resumed run deletes at this moment
            if columns := read_columns(file):
                parts.append((columns, read_rows(file.with_suffix(".bin"), len(columns))))
    if not parts:
        return EMPTY
    steps = np.concatenate([rows["steps"] for _, rows in parts])
    table: dict[Column, NDArray[np.float64]] = {}
    start = 0
    for columns, rows in parts:
        for i, column in enumerate(columns):
            table.setdefault(column, np.full(len(steps), np.nan))[start : start + len(rows)] = rows["values"][:, i]
        start += len(rows)
    return Recording(steps.astype(np.int64), table)


def of_metrics(table: Mapping[str, Sequence[float]], groups: Iterable[str]) -> Recording:
    """What a metrics.csv tells, tag by tag; `tag/group` beside `tag` is the tag at that group."""
    places = {f"{tag}/{group}": (tag, group) for group in groups for tag in table}
    columns: dict[Column, NDArray[np.float64]] = {}
    for tag, values in table.items():
        if tag in ("steps", "seconds"):
            continue
        base, group = places.get(tag, (tag, None))
        signal, network = signal_of(base)
        place: Place = (("group", group),) if group is not None else ()
        place += (("network", network),) if network else ()
        columns[Column(signal, place)] = np.asarray(values, dtype=np.float64)
    return Recording(np.asarray(table.get("steps", []), dtype=np.int64), columns)
