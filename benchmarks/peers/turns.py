"""Processes that take turns, A B A B, so that a machine that is slow for a while is slow for all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.peers.orders import Turn, read
from benchmarks.peers.venvs import Missing, python_of, reason

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 600.0  # seconds of one turn, the warm-up with its start included
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Arm(NamedTuple):
    """One of those that are compared."""

    name: str
    runner: str  # the module in `benchmarks.peers.runners`
    settings: dict[str, Any]
    peer: str | None = None  # whose virtual environment; None: this interpreter


class Worker:
    """A runner's process."""

    def __init__(self, arm: Arm) -> None:
        """Missing where the peer cannot be installed."""
        self.arm = arm
        python = python_of(arm.peer) if arm.peer else sys.executable
        self.folder = tempfile.TemporaryDirectory()  # where libraries leave what they write
        self.errors = (Path(self.folder.name) / "stderr").open("w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [python, "-m", f"benchmarks.peers.runners.{arm.runner}", json.dumps(arm.settings)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, cwd=self.folder.name,
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    def turn(self, order: bool = True) -> Turn:
        """One piece of work; without `order` the first, which needs none. Missing where the process fails."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        began = time.perf_counter()
        limit = threading.Timer(LONGEST, self.process.kill)
        limit.start()
        try:
            if order:
                self.process.stdin.write("go\n")
                self.process.stdin.flush()
            for line in self.process.stdout:
                if (turn := read(line)) is not None:
                    return turn
        except BrokenPipeError:
            pass
        finally:
            limit.cancel()
        self.process.wait()
        if time.perf_counter() - began >= LONGEST:
            raise Missing(f"{self.arm.name} needed more than {LONGEST:.0f} s for a turn.")
        self.errors.seek(0)
        raise Missing(f"{self.arm.name} failed: {reason(self.errors.read())}")

    def close(self) -> None:
        """End the process; what it wrote is gone."""
        self.process.kill()
        self.process.communicate()
        self.errors.close()
        self.folder.cleanup()


def in_turn(arms: list[Arm], rounds: int) -> dict[str, list[Turn] | str]:
    """Each arm's turns, after the warm-up, which stands first; or why there are none."""
    found: dict[str, list[Turn] | str] = {}
    workers: dict[str, Worker] = {}
    try:
        for number in range(rounds + 1):
            for arm in arms if number % 2 else reversed(arms):
                _take(arm, number, workers, found)
    finally:
        for worker in workers.values():
            worker.close()
    return found


def _take(arm: Arm, number: int, workers: dict[str, Worker], found: dict[str, list[Turn] | str]) -> None:
    turns = found.setdefault(arm.name, [])
    if isinstance(turns, str):
        return
    try:
        if number == 0:
            workers[arm.name] = Worker(arm)
        turns.append(workers[arm.name].turn(order=number > 0))
    except Missing as why:
        found[arm.name] = str(why)
