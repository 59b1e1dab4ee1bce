"""Readings of anyone's loop: kept in memory as they are taken, and written in the form of a run folder."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marl_stable.monitor.recording import Recording, encode_columns, encode_row
from marl_stable.monitor.table import SIGNALS, Column
from marl_stable.types import UsageError


class Journal:
    """One row of numbers per reading."""

    def __init__(self) -> None:
        self._columns: dict[Column, int] = {}
        self._rows: list[NDArray[np.float64]] = []  # early ones are shorter: later columns were not known
        self.steps: list[int] = []
        self._seconds: list[float] = []
        self._began = time.monotonic()

    def add(self, steps: int, numbers: Mapping[Column, float]) -> None:
        """Add the reading at `steps`; NaN means not read."""
        at = [self._columns.setdefault(column, len(self._columns)) for column in numbers]
        row = np.full(len(self._columns), np.nan)
        row[at] = list(numbers.values())
        self._rows.append(row)
        self.steps.append(steps)
        self._seconds.append(time.monotonic() - self._began)

    def table(self) -> NDArray[np.float64]:
        """`(readings, columns)`."""
        table = np.full((len(self._rows), len(self._columns)), np.nan)
        for i, row in enumerate(self._rows):
            table[i, : len(row)] = row
        return table

    def recording(self) -> Recording:
        """As detectors read it."""
        table = self.table()
        columns = {column: table[:, i] for column, i in self._columns.items()}
        return Recording(np.asarray(self.steps, dtype=np.int64), columns)

    def save(self, folder: Path, config: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        """Write `recording/`, `metrics.csv`, `config.yaml` and `metadata.json`, in place of what this wrote before."""
        try:
            (folder / "recording").mkdir(parents=True, exist_ok=True)
            rows = [encode_row(steps, row) for steps, row in zip(self.steps, self.table(), strict=True)]
            _replace(folder / "recording" / "000.bin", b"".join(rows))
            _replace(folder / "recording" / "000.json", encode_columns(list(self._columns)))
            _replace(folder / "metrics.csv", self._metrics().encode())
            _replace(folder / "config.yaml", (json.dumps(_nested(config), indent=2) + "\n").encode())
            _replace(folder / "metadata.json", (json.dumps(dict(metadata), indent=2) + "\n").encode())
        except OSError as error:
            raise UsageError(f"{str(folder)!r} cannot be written ({error.strerror}); name another folder.") from error

    def _metrics(self) -> str:
        """The text of a metrics.csv: a tag for each signal and network, which stands for all places."""
        tags: dict[str, list[int]] = {}
        for column, i in self._columns.items():
            tags.setdefault(_tag(column), []).append(i)
        table, text = self.table(), io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["steps", "seconds", *tags])
        for row, steps, seconds in zip(table, self.steps, self._seconds, strict=True):
            told = [_told(tag, row[places]) for tag, places in tags.items()]
            writer.writerow([steps, repr(seconds), *("" if math.isnan(x) else repr(x) for x in told)])
        return text.getvalue()


def _tag(column: Column) -> str:
    if "/" in column.signal:
        return column.signal
    network = dict(column.place).get("network")
    if column.signal in ("grad_norm", "non_finite"):
        return f"{column.signal}/{network}"
    return f"stability/{column.signal}" + (f"/{network}" if network else "")


def _told(tag: str, values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    name = tag.removeprefix("stability/").split("/")[0]
    worst = tag.startswith("stability/") and SIGNALS[name].told_as == "max"
    return math.nan if not len(known) else float(known.max() if worst else known.mean())


def _nested(config: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as sections."""
    sections: dict[str, Any] = {}
    for key, value in config.items():
        *path, last = key.split(".")
        section = sections
        for part in path:
            section = section.setdefault(part, {})
        section[last] = value
    return sections


def _replace(path: Path, content: bytes) -> None:
    """A reader sees the old file or the whole new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
