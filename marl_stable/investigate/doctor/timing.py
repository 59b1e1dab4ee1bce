"""How long a call takes by itself, also on a machine that is busy with something else."""

from __future__ import annotations

import importlib
import time
from typing import NamedTuple


class Stamp(NamedTuple):
    """A moment by three clocks."""

    wall: float
    cpu: float
    waits: int  # how often this process has waited for something, such as a sleep, a file or another process


def stamp() -> Stamp:
    """Now."""
    return Stamp(time.perf_counter(), time.process_time(), _waits())


def seconds_between(begin: Stamp, end: Stamp) -> float:
    """Wall-clock time where the call waited for something; else computing time: it may have been kept from the
    processor by other programs, which is no fault of its own."""
    wall = end.wall - begin.wall
    return wall if end.waits > begin.waits else min(wall, end.cpu - begin.cpu)


def _waits() -> int:
    if _resource is None:
        return int(time.perf_counter() * 1e6)  # not known: every call counts as one that waits
    return int(_resource.getrusage(_resource.RUSAGE_SELF).ru_nvcsw)


try:
    _resource = importlib.import_module("resource")
except ModuleNotFoundError:  # Windows
    _resource = None  # type: ignore[assignment]
