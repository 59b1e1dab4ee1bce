"""A run's signals as detectors read them: by name and place, over steps; and the bytes in which they are kept.

A recording on disk is a folder of segments. A segment is a list of columns (`NNN.json`) and rows of fixed width
(`NNN.bin`); a new one begins when a signal appears for the first time. What was torn in mid-write is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
        for column, values in columns.items():
            self._by_signal.setdefault(column.signal, []).append((dict(column.place), values))

    def __contains__(self, signal: str) -> bool:
        return signal in self._by_signal

    def signals(self) -> list[str]:
        """Names of all signals."""
        return list(self._by_signal)

    def series(self, signal: str, **where: Any) -> list[Series]:
        """Every column of `signal` whose place has the given parts; none where it was never read."""
        found = []
        for place, values in self._by_signal.get(signal, []):
            if all(place.get(part) == name for part, name in where.items()):
                read = ~np.isnan(values)
                if read.any():
                    found.append(Series(signal, place, self.steps[read], values[read]))
        return found

    def mean(self, signal: str) -> Series | None:
        """The mean over all places of `signal`, where it was read; None where it never was."""
        values = [part for _, part in self._by_signal.get(signal, [])]
        read = ~np.isnan(values).all(0) if values else np.zeros(0, dtype=bool)
        if not read.any():
            return None
        return Series(signal, {}, self.steps[read], np.nanmean(np.stack(values)[:, read], axis=0))

    def until(self, steps: int) -> Recording:
        """What was known at `steps`."""
        kept = self.steps <= steps
        columns = {
            Column(signal, tuple(place.items())): values[kept]
            for signal, parts in self._by_signal.items()
            for place, values in parts
        }
        return Recording(self.steps[kept], columns)

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
    """A segment's columns; None where they were not written whole."""
    try:
        return [Column(signal, tuple(place.items())) for signal, place in json.loads(file.read_bytes())]
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def read_rows(file: Path, columns: int) -> NDArray[Any]:
    """A segment's whole rows."""
    kind = row_type(columns)
    data = file.read_bytes() if file.exists() else b""
    return np.frombuffer(data[: len(data) // kind.itemsize * kind.itemsize], kind)


def segments(folder: Path) -> list[Path]:
    """The lists of columns of a recording's segments, in order."""
    return sorted(file for file in folder.glob("*.json") if re.fullmatch(r"\d{3,}", file.stem))


def read_recording(folder: Path) -> Recording:
    """The recording in `folder`, also of a run under way; an empty one where there is none."""
    parts: list[tuple[list[Column], NDArray[Any]]] = []
    for file in segments(folder):
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
    """What a metrics.csv tells, tag by tag; `tag/group` is the tag at that group."""
    names = set(groups)
    columns: dict[Column, NDArray[np.float64]] = {}
    for tag, values in _tags(table):
        base, _, last = tag.rpartition("/")
        place: Place = (("group", last),) if last in names and base else ()
        signal, network = signal_of(base if place else tag)
        place += (("network", network),) if network else ()
        columns[Column(signal, place)] = np.asarray(values, dtype=np.float64)
    return Recording(np.asarray(table.get("steps", []), dtype=np.int64), columns)


def _tags(table: Mapping[str, Sequence[float]]) -> Iterator[tuple[str, Sequence[float]]]:
    return ((tag, values) for tag, values in table.items() if tag not in ("steps", "seconds"))
