"""Consoles that never end a run: not by a closed pipe, a full disk, or letters that the terminal cannot show."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import IO, TextIO, cast

from rich.console import Console


class SafeStream:
    """Writes to a text stream and raises nothing: what cannot be written is dropped, what cannot be encoded is a `?`.

    Rich by itself exits the process on a closed pipe, and raises UnicodeEncodeError where the locale is ASCII.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream  # None where the process was started with the stream closed
        self.encoding: str = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write what can be written of `text`."""
        if self._stream is not None:
            with self._surviving(self._stream):
                self._stream.write(text.encode(self.encoding, "replace").decode(self.encoding))
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        if self._stream is not None:
            with self._surviving(self._stream):
                self._stream.flush()

    def isatty(self) -> bool:
        """Whether a person may be watching."""
        with contextlib.suppress(ValueError):  # closed
            return self._stream is not None and self._stream.isatty()
        return False

    @staticmethod
    @contextlib.contextmanager
    def _surviving(stream: TextIO) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            # Nobody reads any more (`| head`). What others print there shall not fail either, nor Python at exit.
            with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())
        except (OSError, ValueError):
            pass


def open_console(stream: TextIO | None) -> Console:
    """A console on sys.stdout or sys.stderr that prints text as it is, and control codes only to a terminal."""
    safe = SafeStream(stream)
    return Console(
        file=cast(IO[str], safe),
        force_terminal=None if safe.isatty() else False,  # whatever FORCE_COLOR says: a log file is no terminal
        force_jupyter=False,
        markup=False,
        emoji=False,
        highlight=False,
    )
