"""A crew in processes of its own: orders of one byte over a socket, arrays in shared memory, one deadline for all.

Plain subprocesses: a fork would leave orphans when this process is killed, and multiprocessing's spawn would run the
user's script again. Results do not depend on the number of workers, for each copy depends on its own seeds and actions.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from marl_stable.envs.board import Board, Layout
from marl_stable.envs.crew import Failure
from marl_stable.envs.worker import BEGIN, DONE, FAILED, LENGTH, STEP, read
from marl_stable.types import EnvSpec, UsageError, spec_to_dict

START_SECONDS = 300.0  # for imports and for making the copies; some simulators take minutes
CLOSE_SECONDS = 1.5  # for all workers together, before they are killed
SLICE = 1.0  # seconds; at most this much of a pause of the whole terminal (Ctrl-Z) counts against a deadline
PACKAGE = str(Path(__file__).resolve().parents[2])
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # there is a process per core already


class WorkerCrew:
    """`copies` of an environment in `workers` processes (never more than copies), divided evenly.

    A process that dies, or does not answer within `timeout` seconds, is replaced when its copies next begin.

    Raises UsageError where a worker cannot make its copies, or makes others than `spec` says.
    """

    def __init__(
        self, spec: EnvSpec, kwargs: dict[str, Any], offered: dict[str, Any], copies: int, workers: int, timeout: float
    ) -> None:
        """`kwargs` and `offered` (what the factory gets if it takes it) as `catalog.copy_maker` has them."""
        self.spec = spec
        self._timeout = timeout
        self._limit = f"env.step_timeout {timeout:g} s"
        try:
            json.dumps(kwargs)
        except (TypeError, ValueError) as error:
            raise UsageError(f"env.kwargs cannot be sent to workers ({error}); use numbers, text and lists.") from error
        size = Layout(spec, copies).size
        self._memory = _shared_file(size)
        self.board = Board(spec, copies, mmap.mmap(self._memory.fileno(), size))
        workers = min(workers, copies)
        order = {"id": spec.id, "kwargs": kwargs, "offered": offered, "copies": copies, "spec": _plain(spec)}
        shares = [range(i * copies // workers, (i + 1) * copies // workers) for i in range(workers)]
        self._workers = [_Worker(i, share, order, self._memory.fileno()) for i, share in enumerate(shares)]
        weakref.finalize(self, _end, self._workers, self._memory)
        if failures := self._start(self._workers):
            self.close()
            raise UsageError(f"{spec.id} cannot be made in worker {failures[0].worker}: {failures[0].reason}")

    def begin(self) -> list[Failure]:
        """Begin an episode in every copy that is called, in a new process where the last one is gone."""
        asked = self._asked()
        failures = self._start([worker for worker in asked if not worker.running])
        return failures + self._ask(BEGIN, [worker for worker in asked if worker.running])

    def step(self) -> list[Failure]:
        """Advance every copy that is called."""
        return self._ask(STEP, self._asked())

    def close(self) -> None:
        """End the workers: those that do not go by themselves are killed."""
        _end(self._workers, self._memory)

    def _asked(self) -> list[_Worker]:
        called = self.board.called
        if called.all():  # in nearly every step
            return self._workers
        return [worker for worker in self._workers if called[worker.copies.start : worker.copies.stop].any()]

    def _start(self, workers: list[_Worker]) -> list[Failure]:
        failures = []
        for worker in workers:
            try:
                worker.start()
            except OSError as error:
                failures.append(self._gone(worker, f"no process can be started ({error})"))
        started = [worker for worker in workers if worker.running]
        return failures + self._answers(started, START_SECONDS, "300 s to make environments")

    def _ask(self, order: bytes, workers: list[_Worker]) -> list[Failure]:
        for worker in workers:
            worker.send(order)
        return self._answers(workers, self._timeout, self._limit)

    def _answers(self, workers: list[_Worker], seconds: float, limit: str) -> list[Failure]:
        """Wait for every one of `workers`, together no longer than `seconds`.

        One after the other: who comes first has been done meanwhile, so that this process wakes seldom.
        """
        failures: list[Failure] = []
        waiting = workers[::-1]
        while waiting and seconds > 0:
            began = time.monotonic()
            worker = waiting[-1]
            if worker.answered(min(seconds, SLICE)):
                failures += self._answer(waiting.pop())
            elif worker.process.poll() is not None:  # and a program that the environment started keeps its socket open
                failures.append(self._gone(waiting.pop(), worker.death()))
            seconds -= min(time.monotonic() - began, SLICE)
        for worker in waiting:
            if worker.answered(0):
                failures += self._answer(worker)
                continue
            worker.kill()
            reason = f"no answer in time ({limit}), so its process was killed"
            failures.append(self._gone(worker, reason))
        return sorted(failures, key=lambda failure: failure.worker or 0)

    def _answer(self, worker: _Worker) -> list[Failure]:
        try:
            failed = worker.receive()
        except (EOFError, OSError):
            return [self._gone(worker, worker.death())]
        failures = []
        for copy, reason in failed:
            if copy is None:  # it could not make its copies, and leaves
                worker.kill()
                return [self._gone(worker, reason)]
            failures.append(Failure(reason, (copy,), copy, worker.index))
        return failures

    def _gone(self, worker: _Worker, reason: str) -> Failure:
        """Every episode of a worker that is no more is lost; the copy that was at work is the one at fault."""
        busy = self.board.busy[worker.copies.start : worker.copies.stop]
        copy = worker.copies[int(busy.argmax())] if busy.any() else None
        busy[...] = False
        return Failure(reason, tuple(worker.copies), copy, worker.index)


class _Worker:
    """One process and the way to it."""

    process: subprocess.Popen[bytes]
    connection: socket.socket

    def __init__(self, index: int, copies: range, order: dict[str, Any], memory: int) -> None:
        self.index = index
        self.copies = copies
        self.running = False
        self._cwd, self._environment = os.getcwd(), _environment()  # a later worker must find what the first one found
        self._order = json.dumps(order | {"first": copies.start, "count": len(copies)}).encode()
        self._memory = memory

    def start(self) -> None:
        """Start the process and tell it what to make; it answers when that is done."""
        self.connection, theirs = socket.socketpair()
        descriptors = (theirs.fileno(), self._memory)
        with theirs, _signals_blocked():
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "marl_stable.envs.worker", *map(str, descriptors)],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stdout=2,  # standard output belongs to the command's own answer
                cwd=self._cwd,
                env=self._environment,
            )
        self._watch = select.poll()
        self._watch.register(self.connection, select.POLLIN)
        self.running = True
        self.send(LENGTH.pack(len(self._order)) + self._order)

    def send(self, message: bytes) -> None:
        """Send an order; a worker that is gone is found out when it does not answer."""
        with contextlib.suppress(OSError):
            self.connection.sendall(message)

    def answered(self, seconds: float) -> bool:
        """Whether there is an answer, or none can come any more, within `seconds`."""
        return bool(self._watch.poll(1000 * seconds))

    def receive(self) -> list[tuple[int | None, str]]:
        """The copies that failed, and why; EOFError or OSError where the process is gone."""
        if (answer := self.connection.recv(1)) == DONE:
            return []
        if not answer:
            raise EOFError
        assert answer == FAILED
        (length,) = LENGTH.unpack(read(self.connection, LENGTH.size))
        return [(copy, reason) for copy, reason in json.loads(read(self.connection, length))]

    def kill(self) -> None:
        """End the process at once."""
        self.running = False
        self.connection.close()
        self.process.kill()
        self.process.wait()

    def death(self) -> str:
        """What a process whose socket is closed has died of."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(CLOSE_SECONDS)
        self.kill()
        code = self.process.returncode
        if code < 0:
            return f"its process was killed by {signal.Signals(-code).name}"
        return f"its process ended with exit code {code}"


def _end(workers: list[_Worker], memory: IO[bytes]) -> None:
    memory.close()
    running = [worker for worker in workers if worker.running]
    for worker in running:
        worker.connection.close()
    deadline = time.monotonic() + CLOSE_SECONDS
    for worker in running:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(max(0.0, deadline - time.monotonic()))
        worker.kill()


def _environment() -> dict[str, str]:
    """This process's environment variables, with what makes the worker find the modules that this process finds."""
    path = os.pathsep.join(entry or os.getcwd() for entry in [*sys.path, PACKAGE] if isinstance(entry, str))
    return dict.fromkeys(ONE_THREAD, "1") | os.environ | {"PYTHONPATH": path}


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """A process started meanwhile is deaf to Ctrl-C until it can say what it does about it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _shared_file(size: int) -> IO[bytes]:
    """A file without a name, to be mapped by all workers; gone with the last process that has it open."""
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as workers may be started
        file.write(bytes(size))  # a disk that is full says so now, and not by a signal later
        file.flush()
    except OSError as error:
        raise UsageError(
            f"workers need {size} bytes for temporary files ({error}); free some, or set TMPDIR."
        ) from error
    return file


def _plain(spec: EnvSpec) -> str:
    return json.dumps(spec_to_dict(spec))
