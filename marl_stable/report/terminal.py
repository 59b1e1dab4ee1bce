"""What a training shows in the terminal: a bar, notes and warnings while it runs, a table when it ends."""

from __future__ import annotations

import math
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from marl_stable.report.console import open_console

SECONDS_BETWEEN_DRAWINGS = 0.5  # one drawing takes 1.5 ms
SHORTEST_BAR = 10  # characters


class Progress:
    """A bar on stderr with steps, speed, return beside its baselines, and remaining time; a context manager.

    Where stderr is not a terminal no bar is drawn: a plain line appears at most every tenth of the run. `quiet`
    shows nothing but warnings.
    """

    def __init__(
        self, total_steps: int, start_steps: int = 0, quiet: bool = False, console: Console | None = None
    ) -> None:
        self._console = open_console(sys.stderr) if console is None else console
        self._total, self._quiet = total_steps, quiet
        self._steps, self._steps_per_second, self._return = start_steps, 0.0, ""
        self._tenths_told = self._percent() // 10
        self._drawn_at = 0.0
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal and self._console.is_interactive and not self._quiet:
            # No thread of its own: it would take turns with the training. What others print appears above the bar.
            self._live = Live(
                get_renderable=self._bar,
                console=self._console,
                auto_refresh=False,
                redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def update(
        self, steps: int, steps_per_second: float, mean_return: float | None, baselines: Mapping[str, float]
    ) -> None:
        """Show where the run stands. `mean_return` is None as long as no episode has ended."""
        self._steps, self._steps_per_second = steps, steps_per_second
        self._return = _return_beside(mean_return, baselines)
        if self._quiet:
            return
        if self._live is None:
            self._tell_tenth()
        elif time.monotonic() - self._drawn_at >= SECONDS_BETWEEN_DRAWINGS:
            self._live.refresh()
            self._drawn_at = time.monotonic()

    def note(self, text: str) -> None:
        """Print a line above the bar; nothing when quiet."""
        if not self._quiet:
            self._print(Text(text))

    def warn(self, text: str) -> None:
        """Print a warning above the bar, also when quiet."""
        self._print(Text(f"warning: {text}", style="yellow"))

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=self._live is None)  # a soft-wrapped line would tear the bar

    def _tell_tenth(self) -> None:
        tenths = self._percent() // 10
        if tenths > self._tenths_told:
            self._tenths_told = tenths
            details = ", ".join([*self._details(), self._return])
            self._print(Text(f"{self._percent():3d}%  {details}"))

    def _percent(self) -> int:
        return min(100, 100 * self._steps // self._total)

    def _details(self) -> list[str]:
        """Steps, speed and remaining time; without the last where no speed is known yet."""
        details = [f"{self._steps:,} of {self._total:,} steps", f"{self._steps_per_second:,.0f} steps/s"]
        if math.isfinite(self._steps_per_second) and self._steps_per_second > 0:
            left = max(0, self._total - self._steps) / self._steps_per_second
            details.append(f"{timedelta(seconds=math.ceil(left))} left")
        return details

    def _bar(self) -> RenderableType:
        steps, speed, *left = self._details()
        percent = f"{self._percent()}%"
        room = self._console.width - len(percent) - SHORTEST_BAR - 2
        choices: tuple[list[str], ...] = ([steps, speed, *left], [steps, *left], left, [])
        details = next(text for choice in choices if len(text := "  ".join(choice)) <= room or not choice)
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1)
        grid.add_column(no_wrap=True)
        grid.add_row(percent, ProgressBar(total=self._total, completed=min(self._steps, self._total)), details)
        return Group(grid, Text(self._return))


class Outcome(NamedTuple):
    """What `summary` shows of a run. Returns are per-agent means, undiscounted; None where there was no evaluation."""

    folder: Path
    status: str
    steps: int
    total_steps: int
    seconds: float
    steps_per_second: float
    last_return: float | None
    best_return: float | None
    baselines: Mapping[str, float]
    incidents: Mapping[str, int]
    """How often, by kind."""


def summary(outcome: Outcome, console: Console | None = None) -> None:
    """Print the table of a run that has ended, and the commands that a user may want next, ready to paste."""
    console = open_console(sys.stdout) if console is None else console
    table = Table(show_header=False)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for name, value in _rows(outcome):
        table.add_row(Text(name), Text(value))
    console.print(table)
    for purpose, command in _next_commands(outcome):
        console.print(Text(f"{purpose:9} {command}"), soft_wrap=True)  # whole, so that it can be copied


def show(text: str, console: Console | None = None) -> None:
    """Print plain text as it stands, lines uncut."""
    (open_console(sys.stdout) if console is None else console).print(Text(text), soft_wrap=True)


def _rows(outcome: Outcome) -> Iterator[tuple[str, str]]:
    yield "status", outcome.status
    yield "steps", f"{outcome.steps:,} of {outcome.total_steps:,}"
    yield "time", str(timedelta(seconds=round(outcome.seconds)))
    yield "steps/s", f"{outcome.steps_per_second:,.0f}"
    yield "last evaluation return", _number(outcome.last_return)
    yield "best evaluation return", _number(outcome.best_return)
    for name, value in outcome.baselines.items():
        yield f"{_words(name)} return", _number(value)
    yield "unit of returns", "per-agent mean, undiscounted"
    counts = (f"{kind} {count:,}" for kind, count in outcome.incidents.items())
    yield "incidents", ", ".join(counts) or "none"
    yield "run folder", str(outcome.folder)
    if (page := outcome.folder / "report.html").exists():
        yield "report", str(page)


def _next_commands(outcome: Outcome) -> Iterator[tuple[str, str]]:
    marl_stable = _program("marl-stable", "marl_stable")
    run = shlex.quote(str(outcome.folder))
    longer = f" --total-steps {outcome.steps + outcome.total_steps}" if outcome.status == "finished" else ""
    yield "evaluate", f"{marl_stable} eval {run}"
    yield "render", f"{marl_stable} render {run} -o {shlex.quote(str(outcome.folder / 'episode.gif'))}"
    yield "resume", f"{marl_stable} train --resume {run}{longer}"
    yield "curves", f"{_program('tensorboard', 'tensorboard.main')} --logdir {run}"


def _program(name: str, module: str) -> str:
    """How the user's shell starts a program of this environment: by name where that is on the path, else by Python."""
    found = shutil.which(name)
    if found is not None and Path(found).parent == Path(sys.executable).parent:
        return name
    return f"{shlex.quote(sys.executable)} -m {module}"


def _return_beside(mean_return: float | None, baselines: Mapping[str, float]) -> str:
    beside = ", ".join(f"{_words(name)} {_number(value)}" for name, value in baselines.items())
    return f"return {_number(mean_return)}" + (f" ({beside})" if beside else "")


def _words(name: str) -> str:
    return name.replace("_", " ")


def _number(value: float | None) -> str:
    """Three significant digits, thousands in full."""
    if value is None:
        return "not measured yet"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
