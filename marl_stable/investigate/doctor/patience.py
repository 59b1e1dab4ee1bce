"""An end to what does not end by itself: a step that waits for ever must not make the doctor wait."""

from __future__ import annotations

import contextlib
import signal
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType


class TimeUp(BaseException):
    """The time is over; no Exception, which an environment might catch. `place`: what was running, as file:line."""

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self.place = place


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise TimeUp where the body takes longer; where Python lets nobody set alarms, wait like everybody else."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise TimeUp(_place(frame))

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _place(frame: FrameType | None) -> str:
    last = traceback.extract_stack(frame)[-1]
    return f"{Path(last.filename).name}:{last.lineno} {last.name}"
