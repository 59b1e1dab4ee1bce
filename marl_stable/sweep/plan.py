"""The runs of a sweep: where each lives, what is to be done about it, and what may not be begun."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from marl_stable import configs
from marl_stable.config import RunConfig
from marl_stable.conversion import leaves
from marl_stable.folder import METADATA, RunFolder
from marl_stable.report.files import replace_file
from marl_stable.types import UsageError

LONGEST_NAME = 120  # characters of a folder's name; file systems allow 255 bytes
Todo = Literal["begin", "resume", "keep"]


class Point(NamedTuple):
    """One combination of settings, as typed, and the run that it makes with any seed."""

    settings: dict[str, str]
    config: RunConfig

    @property
    def name(self) -> str:
        """What tables and folders call it; empty where nothing is varied."""
        return ",".join(f"{key}={text}" for key, text in self.settings.items())

    @property
    def values(self) -> dict[str, Any]:
        """Its settings as values: flags to paste."""
        known = dict(leaves(self.config))
        return {key: known[key] for key in self.settings}


class Member(NamedTuple):
    """One run of a sweep."""

    point: Point
    config: RunConfig
    path: Path  # the run folder

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.point.name} seed {self.config.seed}".strip()

    @property
    def preset(self) -> Path:
        """What `train` reads to make it."""
        return self.path.with_name(f"{self.path.name}.yaml")

    @property
    def log(self) -> Path:
        """What it printed."""
        return self.path.with_name(f"{self.path.name}.log")


def members(points: Sequence[Point], seeds: Sequence[int], folder: Path) -> list[Member]:
    """Every run, seed by seed, so that all points are known a little before one is known well.

    Raises UsageError for a seed out of range and for two points that are the same run.
    """
    for i, point in enumerate(points):
        for other in points[:i]:
            if point.config == other.config:
                raise UsageError(f"{other.name} and {point.name} are the same run; leave one of them out.")
    homes = _homes(points, folder)
    return [
        Member(point, replace(point.config, seed=seed, run_dir=None), home / f"seed-{seed}")
        for seed in seeds
        for point, home in zip(points, homes, strict=True)
    ]


def _homes(points: Sequence[Point], folder: Path) -> list[Path]:
    names = [re.sub(r"[^\w.=,+-]", "_", point.name, flags=re.ASCII) for point in points]
    if len({name.lower() for name in names}) < len(names) or max(map(len, names)) > LONGEST_NAME:
        names = [f"point-{number}" for number in range(1, len(points) + 1)]
    return [folder / name for name in names]


def default_folder() -> Path:
    """A new folder's name under `runs`."""
    path = Path("runs") / f"sweep-{time.strftime('%Y%m%d-%H%M%S')}"
    twin = 1
    while path.exists():  # two sweeps begun in one second
        twin += 1
        path = path.with_name(f"{path.name.partition('_')[0]}_{twin}")
    return path


def default_jobs(found: Iterable[RunConfig], on_gpu: bool) -> int:
    """As many runs at once as there are cores for their threads and workers; 1 on a GPU.

    A run whose threads are `auto` may take every core.
    """
    if on_gpu:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    needed = max((cores if c.threads == "auto" else c.threads) + c.env.workers for c in found)
    return max(1, cores // needed)


def claim(folder: Path) -> RunFolder:
    """Make the sweep's folder where it is missing, and keep other sweeps from it until `release`; UsageError where that
    cannot be."""
    if (folder / METADATA).exists():
        raise UsageError(f"{str(folder)!r} holds a run; name another folder for the sweep with --run-dir.")
    claimed = RunFolder(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        claimed.lock()
    except OSError as error:
        told = f"run folder {str(folder)!r} cannot be written ({error.strerror}); name another with --run-dir."
        raise UsageError(told) from error
    except UsageError:
        raise UsageError(f"a sweep in {str(folder)!r} is running; end that first, or name another folder.") from None
    return claimed


def todo(member: Member) -> Todo:
    """What is to be done about a run; reads only. UsageError where its place is taken by another, or it is running."""
    if member.preset.exists() and configs.read_run(member.preset) != member.config:
        told = f"{str(member.preset)!r} describes another run than {member.name} of this sweep"
        raise UsageError(f"{told}; name another folder with --run-dir.")
    if not (member.path / METADATA).exists():
        return "begin"
    folder = RunFolder.open(member.path)
    if not member.preset.exists():
        raise UsageError(f"{str(member.path)!r} holds a run that is none of this sweep; name another with --run-dir.")
    folder.lock()
    folder.release()
    if folder.metadata.get("status") in ("finished", "stopped"):
        return "keep"
    return "resume" if any(folder.checkpoints.glob("*.pt")) else "begin"


def prepare(member: Member) -> None:
    """Write what `train` reads to begin the run, and clear away what is left of one that had nothing saved yet.

    UsageError where that cannot be written.
    """
    try:
        if (member.path / METADATA).exists():  # ended before its first checkpoint
            shutil.rmtree(member.path)
        member.path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(member.preset, [configs.write(member.config).encode()])
    except OSError as error:
        told = f"{str(member.path.parent)!r} cannot be written ({error.strerror}); name another with --run-dir."
        raise UsageError(told) from error
