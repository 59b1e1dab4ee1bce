"""Ending a run when the user asks for it, at a moment when everything can be saved."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


class Signals:
    """Whether SIGINT or SIGTERM has asked for an end; a second one, or one before there is anything to save, is an end.

    The loop asks between steps, so that what it saves is whole.
    """

    def __init__(self) -> None:
        self.saving = False
        self._asked = False

    def __call__(self) -> bool:
        """Whether an end was asked for."""
        return self._asked

    def handle(self, number: int, frame: object) -> None:
        """What Python calls at a signal."""
        if self._asked or not self.saving:
            raise KeyboardInterrupt
        self._asked = True


@contextlib.contextmanager
def signals_taken() -> Iterator[Signals]:
    """Take SIGINT and SIGTERM while a run is under way; handlers are as before when it ends."""
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():  # Python lets no other thread set handlers
        yield signals
        return
    before = {number: signal.signal(number, signals.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
