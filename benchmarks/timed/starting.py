"""How long one waits: for the package, for the first logged iteration, for a good return."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from marl_stable.report.metrics import read_metrics

ROOT = Path(__file__).parents[2]
TIMED = "import time; began = time.perf_counter(); {}; print(time.perf_counter() - began)"


def seconds_of(code: str) -> float:
    """Of a line of Python in a new process, such as an import."""
    timed = [sys.executable, "-c", TIMED.format(code)]
    return float(subprocess.run(timed, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def seconds_to_first_row() -> float:
    """Wall time from typing `marl-stable train` to the first logged iteration; nan where it ends before that."""
    began = time.perf_counter()
    with _training() as (process, run):
        while process.poll() is None:
            time.sleep(0.02)
            if _columns(run).get("steps"):
                return time.perf_counter() - began
    return float("nan")


def seconds_to(goal: float, seed: int = 1) -> tuple[float, int]:
    """Wall time and steps from typing the command to the first evaluation on the twin at or above `goal`; nan and 0
    where there is none.

    The schedule ends at the presets' 1.2 million steps: a shorter one is sooner there with some seeds, and with others
    never.
    """
    began = time.perf_counter()
    with _training("--seed", str(seed), "--eval-every", "50000", "--eval-episodes", "200") as (process, run):
        while process.poll() is None:
            time.sleep(0.2)
            columns = _columns(run)
            points = zip(columns.get("steps", []), columns.get("eval/return", []), strict=False)
            reached = [int(steps) for steps, value in points if value >= goal]
            if reached:
                return time.perf_counter() - began, reached[0]
    return float("nan"), 0


@contextmanager
def _training(*flags: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A default training as a process of its own, and its folder; ended when one has seen enough."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "marl_stable", "train", "--total-steps", "1.2e6", "--quiet", *flags]
        quiet = subprocess.DEVNULL  # being ended early, it says how to go on
        process = subprocess.Popen([*command, "--run-dir", str(run)], cwd=ROOT, stderr=quiet)
        try:
            yield process, run
        finally:
            process.terminate()
            process.wait()


def _columns(run: Path) -> dict[str, list[float]]:
    """The run's metrics so far."""
    file = run / "metrics.csv"
    return read_metrics(file) if file.exists() else {}
