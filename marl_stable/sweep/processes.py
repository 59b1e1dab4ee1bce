"""Running the trainings of a sweep as processes, some at a time, and ending them whole."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from marl_stable.interruption import Signals
from marl_stable.sweep.plan import Member, Todo, prepare

SECONDS_BETWEEN_LOOKS = 0.2
PACKAGE = str(Path(__file__).resolve().parents[2])  # the folder that marl_stable is in


class Child(NamedTuple):
    """A training under way."""

    member: Member
    process: subprocess.Popen[bytes]
    began: float


def arguments(member: Member, todo: Todo) -> list[str]:
    """How Python is to be called for a run."""
    if todo == "resume":
        words = ["--resume", str(member.path), *(["--quiet"] if member.config.quiet else [])]
    else:
        words = [str(member.preset), "--run-dir", str(member.path)]
    return ["-m", "marl_stable", "train", *words]


def run_all(
    work: Iterable[tuple[Member, Todo]], jobs: int, signals: Signals, ended: Callable[[Member, float], None]
) -> bool:
    """Run `work`, `jobs` at once, and tell of each that has ended, whatever way, after how many seconds.

    `work` is asked for another run only when there is room for it, so that it may depend on what others brought.
    False where `signals` asked for an end before that: then all that were running have saved what they had.
    """
    waiting, running = iter(work), list[Child]()
    try:
        with _hanging_up_ends(signals):
            while not signals():
                for member, todo in itertools.islice(waiting, jobs - len(running)):
                    running.append(_start(member, todo))
                if not running:
                    return True
                time.sleep(SECONDS_BETWEEN_LOOKS)
                for child in [child for child in running if child.process.poll() is not None]:
                    running.remove(child)
                    ended(child.member, time.monotonic() - child.began)
            return False
    finally:
        _end(running)


def _start(member: Member, todo: Todo) -> Child:
    if todo == "begin":
        prepare(member)
    path = os.pathsep.join([PACKAGE, *filter(None, [os.environ.get("PYTHONPATH")])])
    with member.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments(member, todo)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": path},
            process_group=0,  # a terminal's Ctrl-C is for the sweep alone: a second signal would end a run unsaved
        )
    return Child(member, process, time.monotonic())


def _end(running: Sequence[Child]) -> None:
    """End all at once, and wait until they have saved. At a second Ctrl-C they end unsaved, and at a third they are
    killed."""
    # SIGTERM and not SIGINT: before a run takes signals it ends by this one, even where Ctrl-C is ignored (nohup, &).
    for number in itertools.chain([signal.SIGTERM] * 2, itertools.repeat(signal.SIGKILL)):
        try:
            for child in running:
                child.process.send_signal(number)
            for child in running:
                child.process.wait()
            return
        except KeyboardInterrupt:
            continue


@contextlib.contextmanager
def _hanging_up_ends(signals: Signals) -> Iterator[None]:
    """A terminal that is closed ends the sweep as Ctrl-C does: else its runs would go on with nobody to end them."""
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGHUP) != signal.SIG_DFL:  # nohup ignores it
        yield
        return
    signal.signal(signal.SIGHUP, signals.handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
