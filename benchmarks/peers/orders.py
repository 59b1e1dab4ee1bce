"""A process that takes turns with others: for every line it reads a piece of work, and then a line about it.

Runs in every virtual environment, so it needs nothing but Python.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

MARK = "turn: "  # what libraries print begins otherwise


class Turn(NamedTuple):
    """What a piece of work took."""

    steps: int  # environment steps, all copies together
    seconds: float
    processor: float  # seconds of processor time, of this process without its children

    @property
    def rate(self) -> float:
        """Environment steps per second."""
        return self.steps / self.seconds


class Orders:
    """The clock of a process under orders; it runs from here to the first `done`, which is the warm-up."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self.began, self.processor = time.perf_counter(), time.process_time()

    def done(self, steps: int) -> None:
        """Tell what `steps` took, and wait for the next order. KeyboardInterrupt where there is none."""
        turn = Turn(steps, time.perf_counter() - self.began, time.process_time() - self.processor)
        sys.stdout.write(f"{MARK}{json.dumps(turn._asdict())}\n")
        sys.stdout.flush()
        if not sys.stdin.readline():
            raise KeyboardInterrupt
        self._start()


def serve(work: Callable[[], int]) -> None:
    """Do `work`, which returns its environment steps, once for every order."""
    orders = Orders()
    with suppress(KeyboardInterrupt):
        while True:
            orders.done(work())


def settings() -> dict[str, Any]:
    """What this process was started with: the JSON of its first argument."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    return given


def read(line: str) -> Turn | None:
    """What a line of such a process tells; None where it is something else that the library printed."""
    if not line.startswith(MARK):
        return None
    return Turn(**json.loads(line[len(MARK) :]))
