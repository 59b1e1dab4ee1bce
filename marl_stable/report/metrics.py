"""metrics.csv: one row per logged iteration, one column per tag, written so that nothing logged is ever lost."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from marl_stable.report.files import RecordFile
from marl_stable.types import UsageError

FIRST_COLUMNS = ("steps", "seconds")


class MetricsFile:
    """Writes metrics.csv: `steps` and `seconds`, then tags in order of first appearance; missing values are empty.

    `keep_until` (resume) goes on with the file that is there: rows of later steps and a torn last line are dropped,
    earlier rows stay byte for byte. Without it a new file is begun at the first row. Raises OSError where the file
    cannot be read or written.
    """

    def __init__(self, path: Path, keep_until: int | None = None, undo: str | None = None) -> None:
        """`undo`: a prefix of tags whose cells are emptied in the row of step `keep_until`."""
        self._file = RecordFile(path)
        self._columns: tuple[str, ...] = ()
        if keep_until is not None and path.exists():
            self._resume(keep_until, undo)

    def write(self, row: Mapping[str, float | int]) -> None:
        """Add one row; `row` has `steps` and any of `seconds` and the tags. Raises OSError."""
        values = {_one_line(tag): value for tag, value in row.items()}
        self._make_room(values)
        cells = (_text(values[tag]) if tag in values else "" for tag in self._columns)
        self._file.append(f"{','.join(cells)}\n".encode())

    def amend(self, row: Mapping[str, float | int]) -> None:
        """Fill in cells of the row of step `row["steps"]`, the last one. Raises OSError."""
        values = {_one_line(tag): value for tag, value in row.items()}
        self._make_room(values)
        rows = list(_rows(self._file.path, len(self._columns)))
        if rows and _steps(rows[-1]) == row["steps"]:
            cells = dict(zip(self._columns, rows[-1].decode().rstrip("\n").split(","), strict=True))
            cells |= {tag: _text(value) for tag, value in values.items()}
            self._file.begin(_header(self._columns), (*rows[:-1], f"{','.join(cells.values())}\n".encode()))

    def _make_room(self, tags: Iterable[str]) -> None:
        known = self._columns or FIRST_COLUMNS
        columns = (*known, *(tag for tag in tags if tag not in known))
        if columns != self._columns:
            self._widen(columns)

    def _widen(self, columns: tuple[str, ...]) -> None:
        rows = _rows(self._file.path, len(self._columns)) if self._columns else ()
        commas = b"," * (len(columns) - len(self._columns))
        self._file.begin(_header(columns), (row[:-1] + commas + b"\n" for row in rows))
        self._columns = columns

    def _resume(self, keep_until: int, undo: str | None) -> None:
        columns = _read_columns(self._file.path)
        if columns[:2] != FIRST_COLUMNS:  # a run killed while it wrote the header has no rows to keep
            return
        rows = [row[:-1].split(b",") for row in _rows(self._file.path, len(columns)) if _steps(row) <= keep_until]
        for row in rows:
            if undo is not None and _number(row[0]) == keep_until:
                row[:] = [b"" if tag.startswith(undo) else cell for tag, cell in zip(columns, row, strict=True)]
        # A column that has lost all its values has not appeared yet: tags stand in the order of their first value.
        used = [i for i, tag in enumerate(columns) if tag in FIRST_COLUMNS or any(row[i] for row in rows)]
        self._columns = tuple(columns[i] for i in used)
        self._file.begin(_header(self._columns), (b",".join(row[i] for i in used) + b"\n" for row in rows))


def read_metrics(path: Path, for_nan: Mapping[str, float] | None = None) -> dict[str, list[float]]:
    """The columns of a metrics.csv, also of one being written; an empty cell is nan, and so is a written one but for
    columns that `for_nan` has another number for.

    Raises UsageError where `path` is no metrics.csv.
    """
    try:
        columns = _read_columns(path)
        rows = [row[:-1].split(b",") for row in _rows(path, len(columns))]
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read ({error.strerror}); name a run folder that holds metrics.csv."
        ) from None
    if columns[:2] != FIRST_COLUMNS:
        raise UsageError(f"{path} is no metrics.csv: its first columns are not steps,seconds; name a run folder.")
    written = for_nan or {}
    return {
        tag: [written[tag] if tag in written and row[i] == b"nan" else _number(row[i]) for row in rows]
        for i, tag in enumerate(columns)
    }


def _rows(path: Path, width: int) -> Iterator[bytes]:
    """Whole rows below the header, line ends included; a torn line has no line end, or not all cells."""
    if not path.exists():
        return
    with path.open("rb") as file:
        file.readline()
        for line in file:
            if line.endswith(b"\n") and line.count(b",") == width - 1 and not math.isnan(_steps(line)):
                yield line


def _read_columns(path: Path) -> tuple[str, ...]:
    with path.open("rb") as file:
        line = file.readline()
    if not line.endswith(b"\n"):
        return ()
    return tuple(next(csv.reader([line.decode(errors="replace")])))


def _header(columns: Sequence[str]) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(columns)
    return line.getvalue().encode()


def _one_line(tag: str) -> str:
    return " ".join(tag.splitlines())


def _text(value: float | int) -> str:
    return repr(int(value)) if isinstance(value, int) else repr(float(value))


def _number(cell: bytes) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _steps(row: bytes) -> float:
    return _number(row.split(b",", 1)[0])
