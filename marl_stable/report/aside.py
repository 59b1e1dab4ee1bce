"""Standard output kept for a command's answer: programs read it, and environments print."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def prints_aside() -> Iterator[None]:
    """What anybody prints within, in C and in other processes too, goes to standard error."""
    _write_out()
    with contextlib.ExitStack() as afterwards:  # the last that is named is done first
        with contextlib.suppress(OSError):  # one of the two is closed: then Python's prints alone can be led aside
            answers = os.dup(1)
            afterwards.callback(os.close, answers)
            os.dup2(2, 1)
            afterwards.callback(os.dup2, answers, 1)
            afterwards.callback(_write_out)
        afterwards.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield


def _write_out() -> None:
    """What Python and C still hold back goes where standard output leads now."""
    with contextlib.suppress(AttributeError, OSError, ValueError):  # there is none, its disk is full, it is closed
        sys.stdout.flush()
    ctypes.CDLL(None).fflush(None)
