"""The commands, a file each. Torch is loaded by those that need it, and only once their arguments are in order."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

from marl_stable.cli import check, diagnose, export, ladder, listing, play, report, reward, selftest, sweep, train
from marl_stable.cli.words import EXIT, Usage, say
from marl_stable.conversion import unknown
from marl_stable.types import EnvironmentFailure, UsageError

Run = Callable[[list[str]], int]  # from the words behind a command to an exit code

_ALL: tuple[tuple[Run, Usage], ...] = (
    (train.train, train.USAGE),
    (play.evaluate, play.EVAL),
    (diagnose.diagnose, diagnose.USAGE),
    (check.check, check.USAGE),
    (reward.reward, reward.USAGE),
    (ladder.ladder, ladder.USAGE),
    (sweep.sweep, sweep.USAGE),
    (play.render, play.RENDER),
    (report.report, report.USAGE),
    (export.export, export.USAGE),
    (selftest.selftest, selftest.USAGE),
    (listing.envs, listing.ENVS),
    (listing.algos, listing.ALGOS),
    (listing.presets, listing.PRESETS),
)
COMMANDS = {usage.command: (run, usage) for run, usage in _ALL}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code of the contract: 0, 2 bad usage, 3 stopped, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        with _terminable():
            return _run_command(words)
    except (UsageError, EnvironmentFailure) as error:
        print("error:", " ".join(str(error).splitlines()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT["interrupted"]


def _run_command(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        say(_overview())
        return 0 if words else 2
    name, *rest = words
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS, "`marl-stable --help` lists them.")
    return COMMANDS[name][0](rest)


def _overview() -> str:
    lines = ["usage: marl-stable COMMAND ...", ""]
    lines += [f"  {name:8} {usage.words:52} {run.__doc__}" for name, (run, usage) in COMMANDS.items()]
    return "\n".join([*lines, "", "marl-stable COMMAND --help explains a command and its flags."])


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends a command as SIGINT does; a training has its own ways with both."""
    if threading.current_thread() is not threading.main_thread():  # Python lets no other thread set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
