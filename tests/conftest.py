"""Fixtures that several folders of tests use."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from marl_stable.interruption import Signals
from marl_stable.investigate import contributions
from tests.runs import Asked, measure_little, train
from tests.trainings import Behaviour, stand_in


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Modules and tests stay to the end: to look for garbage among them took a quarter of the time to collect them."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run waits for the disk dozens of times, so that a power cut finds it whole; no test here cuts the power."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(autouse=True, scope="session")
def interruptible() -> None:
    """Ctrl-C as Python has it: the processes of a parallel test run ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """The user's Ctrl-C while a run in this process trains; what is measured once it has finished is left in peace."""
    found, measure = Asked(), contributions.measure
    monkeypatch.setattr(Signals, "__call__", found)
    monkeypatch.setattr(contributions, "measure", lambda agent, env, seed, interrupted: measure(agent, env, seed))
    return found


@pytest.fixture
def quick_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """For runs that are about something else."""
    measure_little(monkeypatch)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has ended; not to be changed."""
    path = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patched:
        measure_little(patched)
        assert train(path, "--quiet") == 0
    return path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def small_files() -> Callable[[int], AbstractContextManager[None]]:
    """Within `small_files(n)` no file may grow beyond n bytes: a full disk, as the kernel reports it to any writer."""
    resource = pytest.importorskip("resource")

    @contextlib.contextmanager
    def limited(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Callable[[Behaviour], list[tuple[str, str]]]:
    """Put a tiny script in the place of `train`, which does as a behaviour says; what was begun."""
    return lambda behaviour: stand_in(monkeypatch, behaviour)
