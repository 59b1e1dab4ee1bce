"""The trials that this process trains: taken up where they were left, else asked for; seed by seed, and told of.

A trial's folder is named by its number, which no other trial of the study has, so that machines may share a disk; a
lock on a file in it says who is at work there.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marl_stable.config import RunConfig
from marl_stable.sweep.plan import Member, Point, Todo, todo
from marl_stable.sweep.results import outcome
from marl_stable.sweep.search import Axis
from marl_stable.sweep.study import Study
from marl_stable.types import UsageError

if TYPE_CHECKING:
    from optuna.trial import Trial

LOCK = "lock"


@dataclass
class Taken:
    """A trial that this process trains."""

    trial: Trial
    members: list[Member]
    lock: int | None
    begun: int = 0
    runs: list[dict[str, Any]] = field(default_factory=list)  # that have ended
    pruned: bool = False

    @property
    def over(self) -> bool:
        """Whether nothing of it is under way, and nothing will be."""
        return len(self.runs) == (self.begun if self.pruned else len(self.members))

    def release(self) -> None:
        """Let others take it up."""
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None


class Trials:
    """The work of this process, asked for run by run, and its results."""

    def __init__(
        self,
        study: Study,
        axes: Sequence[Axis],
        configured: Callable[[dict[str, str]], RunConfig],
        seeds: Sequence[int],
        most: int,
        prune: bool,
        folder: Path,
        finished: Callable[[int], None],
    ) -> None:
        """`configured`: settings to a run; `most`: trials of the whole study; `finished` is told the number of each
        trial that ends here."""
        self.study, self.axes, self.configured, self.seeds = study, axes, configured, seeds
        self.most, self.prune, self.folder, self.finished = most, prune, folder, finished
        self._of: dict[Path, Taken] = {}

    def work(self) -> Iterator[tuple[Member, Todo]]:
        """The runs to train, each decided on when it is asked for."""
        for taken in self._taken():
            for member in taken.members:
                if taken.pruned:
                    break
                taken.begun += 1
                self._of[member.path] = taken
                if (what := todo(member)) == "keep":
                    self.ended(member)
                else:
                    yield member, what

    def ended(self, member: Member) -> None:
        """Take in what a run brought, and tell the study where it was its trial's last."""
        taken = self._of[member.path]
        taken.runs.append(outcome(member))
        if self.prune and not taken.pruned and len(taken.runs) < len(taken.members):
            taken.pruned = self.study.hopeless(taken.trial, taken.runs)
        if taken.over:
            self.study.tell(taken.trial, member.point.values, taken.runs, taken.pruned)
            self.finished(taken.trial.number)
            taken.release()

    def release(self) -> None:
        """Let others take up what has not ended."""
        for taken in self._of.values():
            taken.release()

    def _taken(self) -> Iterator[Taken]:
        for trial, settings in self.study.unfinished():
            home = self._home(trial)
            if not home.exists() or (lock := _locked(home)) is None:
                continue
            if self.study.goes_on(trial):
                yield self._take(trial, Point(settings, self.configured(settings)), lock)
            else:  # whoever had it has just ended it
                os.close(lock)
        while (asked := self.study.ask(self.axes, self.most)) is not None:
            if (taken := self._begin(*asked)) is not None:
                yield taken

    def _begin(self, trial: Trial, settings: dict[str, str]) -> Taken | None:
        """A new trial; None for settings that are unfit together, though each by itself is fit."""
        try:
            config = self.configured(settings)
        except UsageError as error:
            self.study.give_up(trial, settings, str(error))
            self.finished(trial.number)
            return None
        home = self._home(trial)
        try:
            home.mkdir(parents=True)
        except OSError as error:
            there = isinstance(error, FileExistsError)
            told = "is there already, from another study" if there else f"cannot be made ({error.strerror})"
            self.study.give_up(trial, settings, f"{str(home)!r} {told}")
            raise UsageError(f"{str(home)!r} {told}; name another folder with --run-dir.") from error
        taken = self._take(trial, Point(settings, config), _locked(home))
        self.study.offer(trial, settings)  # only now that it is locked
        return taken

    def _take(self, trial: Trial, point: Point, lock: int | None) -> Taken:
        home = self._home(trial)
        members = [Member(point, replace(point.config, seed=s, run_dir=None), home / f"seed-{s}") for s in self.seeds]
        return Taken(trial, members, lock)

    def _home(self, trial: Trial) -> Path:
        return self.folder / f"trial-{trial.number}"


def _locked(folder: Path) -> int | None:
    """A lock that ends with this process; None where another has it, or where there are no locks.

    A file and not the folder itself is locked: NFS locks only what is open for writing.
    """
    descriptor = None
    try:
        descriptor = os.open(folder / LOCK, os.O_CREAT | os.O_WRONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        if descriptor is not None:
            os.close(descriptor)
        return None
    return descriptor
