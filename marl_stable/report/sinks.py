"""Where a logged row goes: metrics.csv and TensorBoard, neither of which may ever end a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from marl_stable.report.metrics import MetricsFile
from marl_stable.report.tensorboard import TensorBoardLog

Log = TypeVar("Log")


class Sink(Generic[Log]):
    """One log whose OSErrors become a warning, once until it works again; what was to be logged then is lost.

    `open_log` is called at once, and again at later calls as long as it fails.
    """

    def __init__(self, name: str, open_log: Callable[[], Log], warn: Callable[[str], None]) -> None:
        self._name, self._open, self._warn = name, open_log, warn
        self._log: Log | None = None
        self._failing = False
        self.call(lambda log: None)

    def call(self, write: Callable[[Log], None]) -> None:
        """Call `write` with the log, and warn where that raises OSError."""
        try:
            if self._log is None:
                self._log = self._open()
            write(self._log)
        except OSError as error:
            if not self._failing:
                reason = error.strerror or type(error).__name__
                self._warn(f"{self._name} cannot be written ({reason}); training goes on, what it would log is lost.")
            self._failing = True
        else:
            self._failing = False


class Sinks:
    """Fans one row out to the logs of a run folder. Never raises OSError; says so through `warn` instead.

    `keep_until` (resume): go on after the rows of that step, with the cells of tags that begin with `undo` emptied in
    its row. Everything is on disk when a call returns.
    """

    def __init__(
        self, folder: Path, warn: Callable[[str], None], keep_until: int | None = None, undo: str | None = None
    ) -> None:
        purge_step = None if keep_until is None else keep_until + 1
        self._metrics = Sink("metrics.csv", lambda: MetricsFile(folder / "metrics.csv", keep_until, undo), warn)
        self._events = Sink("TensorBoard's log", lambda: TensorBoardLog(folder, purge_step), warn)

    def write(self, row: Mapping[str, float | int]) -> None:
        """Log one iteration: `steps`, `seconds` and tags."""
        scalars = {tag: value for tag, value in row.items() if tag not in ("steps", "seconds")}
        self._metrics.call(lambda log: log.write(row))
        self._events.call(lambda log: log.scalars(int(row["steps"]), scalars))

    def amend(self, row: Mapping[str, float | int]) -> None:
        """Complete the row of step `row["steps"]`, the last one, with what was found out after it was logged."""
        scalars = {tag: value for tag, value in row.items() if tag != "steps"}
        self._metrics.call(lambda log: log.amend(row))
        self._events.call(lambda log: log.scalars(int(row["steps"]), scalars))

    def histogram(self, tag: str, steps: int, counts: Sequence[float], edges: Sequence[float]) -> None:
        """Log a histogram, in TensorBoard only: n counts between n + 1 rising edges."""
        self._events.call(lambda log: log.histogram(tag, steps, counts, edges))
