"""The words of a command line: which are flags, which are left over, and how answers are printed."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from marl_stable import flags
from marl_stable.envs import catalog
from marl_stable.types import UsageError

Asked = TypeVar("Asked")
EXIT = {"finished": 0, "stopped": 3, "interrupted": 130}  # by how a run ended


@dataclass(frozen=True)
class Made:
    """How the environment is made."""

    kwargs: dict[str, Any] | None = None
    """Arguments for the environment."""


class Usage(NamedTuple):
    """A command, and what may stand behind it."""

    command: str
    words: str

    def read(self, words: list[str], defaults: Asked) -> tuple[list[str], Asked]:
        """The words that are no flags, and `defaults` with the flags."""
        with answering():
            return flags.read(words, defaults, self.command, self.words)
        raise SystemExit(0)  # it was help, and its reader has gone

    def refuse(self, others: list[str]) -> None:
        """Raises UsageError for words that the command has no use for."""
        if others:
            usage = f"marl-stable {self.command} {self.words}"
            raise UsageError(f"{others[0]!r} is one word too many; the usage is: {usage}.")

    def run_folder(self, others: list[str]) -> Path:
        """The only word, a run folder."""
        if not others:
            raise UsageError(f"RUN is missing; {self.command} needs a run folder, and `ls runs` shows yours.")
        self.refuse(others[1:])
        return Path(others[0])

    def environment(self, others: list[str]) -> str:
        """The only word, an environment that there may be."""
        if not others:
            raise UsageError(f"ENV is missing; {self.command} needs an environment, and `marl-stable envs` lists them.")
        self.refuse(others[1:])
        catalog.require_known(others[0])
        return others[0]


def tell(text: str) -> None:
    """Print on the way to an answer, where it is not read by programs; nobody has to be there."""
    from marl_stable.report.console import open_console
    from marl_stable.report.terminal import show

    show(text, open_console(sys.stderr))


def say(text: str) -> None:
    """Print an answer; it is no mistake where nobody reads it to its end, as in `| head`."""
    with answering():
        print(text)


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """Print an answer within, or help. Raises UsageError where it cannot be written; where its reader has gone, what is
    within ends early."""
    try:
        try:
            yield
        finally:
            print(end="", flush=True)  # whatever is wrong shows here, and not when Python exits
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it exits
    except OSError as error:
        raise UsageError(f"the answer cannot be written to standard output ({error.strerror}).") from error
