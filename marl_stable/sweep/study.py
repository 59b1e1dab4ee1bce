"""The study that machines share, by Optuna: what it searches, which trials there are, and what they brought.

The storage holds all that is told of a trial; its runs are on the disk of the machine that trains it. No torch here.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from marl_stable.config import RunConfig
from marl_stable.conversion import leaves
from marl_stable.report.files import to_json
from marl_stable.sweep.results import UNIT, merit, over_seeds, summary
from marl_stable.sweep.search import Axis
from marl_stable.types import UsageError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, Trial

ABOUT, SETTINGS, BROUGHT = "marl_stable", "settings", "brought"  # attributes in the storage
OF_THE_MACHINE = ("seed", "run_dir", "quiet", "profile", "device", "threads", "env.workers", "env.step_timeout")
SQLITE_SECONDS = 60  # that a process waits while another writes; 5 by itself, which a slow disk outlasts
SECONDS_APART = 2
TRIALS_FIRST = 5  # trials that nothing is pruned before, as Optuna advises


class Study:
    """One study in one storage; any number of processes may have it open at once.

    All methods raise UsageError where the storage fails.
    """

    def __init__(self, place: str, name: str | None, about: Mapping[str, Any], seed: int) -> None:
        """Open the study `name` at `place`, a database's URL or a file, or begin it; UsageError where it cannot be
        opened, or is about another search. Trials draw their settings by `seed` and their numbers."""
        optuna = _optuna()
        self.name = name or stem(place)
        self._place, self._seed = place, seed
        with self._reached():
            self._study = optuna.create_study(
                storage=_storage(place),
                study_name=self.name,
                direction="maximize",
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(n_startup_trials=TRIALS_FIRST),
            )
            plain = json.loads(to_json(dict(about)))
            if ABOUT not in self._study.user_attrs and not self._study.get_trials(deepcopy=False):
                self._study.set_user_attr(ABOUT, plain)
            known = self._study.user_attrs.get(ABOUT)
            if self._study.direction.name != "MAXIMIZE":  # begun by other hands
                known = None
        self._refuse_other(known, plain)

    def ask(self, axes: Sequence[Axis], most: int) -> tuple[Trial, dict[str, str]] | None:
        """A new trial and its settings as text; None where the study has `most` trials, begun by whomever.

        Machines that ask in the same moment may go beyond by a trial each. Nobody else takes the trial up before it
        is offered.
        """
        optuna = _optuna()
        with self._reached():
            if len(self._trials()) >= most:
                return None
            trial = self._study.ask()
            # By its number, so that no two machines draw the same, and one alone draws the same again.
            mixed = np.random.SeedSequence((self._seed, trial.number)).generate_state(1)
            self._study.sampler = optuna.samplers.TPESampler(seed=int(mixed[0]))
            return trial, {axis.key: axis.draw(trial) for axis in axes}

    def offer(self, trial: Trial, settings: Mapping[str, str]) -> None:
        """From now on, whoever finds the trial's folder with nobody at work there may go on with it."""
        with self._reached():
            trial.set_user_attr(SETTINGS, dict(settings))

    def unfinished(self) -> list[tuple[Trial, dict[str, str]]]:
        """Trials that were offered and have not ended, here or elsewhere, with their settings."""
        optuna = _optuna()
        with self._reached():
            offered = [trial for trial in self._trials("RUNNING") if SETTINGS in trial.user_attrs]
            # Optuna has no other way back to a trial of a process that is gone.
            again = [optuna.trial.Trial(self._study, trial._trial_id) for trial in offered]
            return [(trial, dict(trial.user_attrs[SETTINGS])) for trial in again]

    def goes_on(self, trial: Trial) -> bool:
        """Whether nobody has ended the trial."""
        with self._reached():
            return bool(self._study.get_trials(deepcopy=False)[trial.number].state.name == "RUNNING")

    def hopeless(self, trial: Trial, runs: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the trial is worse, over the seeds that have ended, than the median of others over as many."""
        found = over_seeds(runs)
        if found is None:
            return False
        with self._reached():
            if len(runs) not in self._study.get_trials(deepcopy=False)[trial.number].intermediate_values:
                trial.report(found["iqm"], len(runs))
            return trial.should_prune()

    def tell(self, trial: Trial, values: Mapping[str, Any], runs: Sequence[Mapping[str, Any]], pruned: bool) -> None:
        """End a trial with what its `runs` brought: it has failed where one of them brought no return."""
        from optuna.trial import TrialState

        found = over_seeds(runs)
        with self._reached():
            trial.set_user_attr(BROUGHT, json.loads(to_json({"config": dict(values), "runs": list(runs)})))
            if found is None or any(run["return"] is None for run in runs):
                self._study.tell(trial, state=TrialState.FAIL)
            elif pruned:
                self._study.tell(trial, state=TrialState.PRUNED)
            else:
                self._study.tell(trial, found["iqm"])

    def give_up(self, trial: Trial, settings: Mapping[str, str], reason: str) -> None:
        """End a trial that cannot be trained."""
        from optuna.trial import TrialState

        with self._reached():
            trial.set_user_attr(BROUGHT, {"config": dict(settings), "runs": [], "reason": reason})
            self._study.tell(trial, state=TrialState.FAIL)

    def results(self) -> dict[str, Any]:
        """The answer of `sweep --json`: trials that have ended, wherever they were trained, the best first."""
        with self._reached():
            ended = [trial for trial in self._trials() if BROUGHT in trial.user_attrs and trial.state.is_finished()]
            running = [trial.number for trial in self._trials("RUNNING")]
        points = []
        for trial in ended:
            told = trial.user_attrs[BROUGHT]
            state = {"COMPLETE": "complete", "PRUNED": "pruned"}.get(trial.state.name, "failed")
            point = summary(f"trial {trial.number}", told["config"], told["runs"])
            why = {"reason": told["reason"]} if "reason" in told else {}
            points.append({"trial": trial.number, "state": state} | why | point)
        points.sort(key=lambda point: (point["state"] == "complete", merit(point)), reverse=True)
        return {"unit": UNIT, "study": self.name, "points": points, "running": running}

    def _trials(self, state: str | None = None) -> list[FrozenTrial]:
        """All that have begun, or those in one state."""
        found = self._study.get_trials(deepcopy=False)
        return [trial for trial in found if (trial.state.name == state if state else trial.state.name != "WAITING")]

    def _refuse_other(self, known: Mapping[str, Any] | None, asked: Mapping[str, Any]) -> None:
        where = f"study {self.name!r} in {shown(self._place)}"
        if known is None:
            raise UsageError(f"{where} was not begun by a sweep; name another by --study-name.")
        for key in dict.fromkeys([*known, *asked]):
            if known.get(key) != asked.get(key):
                before, now = (to_json(about.get(key)) for about in (known, asked))
                told = f"{where} was begun with {key} {before}, and this has {now}"
                raise UsageError(f"{told}; name another by --study-name, or go on as it was begun.")

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        """What goes wrong with the storage as one sentence."""
        from optuna.exceptions import OptunaError
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (ImportError, OSError, ValueError, SQLAlchemyError, OptunaError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            remedy = "it must be a database's URL such as sqlite:///study.db, or a file of its own in a folder that is"
            raise UsageError(f"study {shown(self._place)} cannot be used ({reason}); {remedy} there.") from error


def description(config: RunConfig, axes: Sequence[Axis], seeds: Sequence[int]) -> dict[str, Any]:
    """What every process of a study must agree on: all that its returns depend on."""
    settings = {key: value for key, value in leaves(config) if key not in OF_THE_MACHINE}
    searched = {axis.key: axis.text for axis in axes}
    return settings | searched | {"search": sorted(searched), "seeds": list(seeds)}


def stem(place: str) -> str:
    """The study's name where none is given: that of the file or database without its ending."""
    return Path(urlsplit(place).path if "://" in place else place).stem or "study"


def shown(place: str) -> str:
    """`place` as messages show it: a URL without its password."""
    return repr(re.sub(r"^([^/]*//[^/@:]*):[^/@]*@", r"\1:***@", place))


def _storage(place: str) -> BaseStorage:
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend
    from sqlalchemy.exc import DatabaseError

    if "://" not in place:
        with contextlib.suppress(FileNotFoundError), open(place, "rb") as file:
            if file.read(1) not in (b"", b"{"):  # Optuna would write into it without looking
                raise ValueError("it is no journal of Optuna's")
        return JournalStorage(JournalFileBackend(place))
    waiting = {"connect_args": {"timeout": SQLITE_SECONDS}} if place.startswith("sqlite") else {}
    try:
        return RDBStorage(place, engine_kwargs=waiting)
    except DatabaseError:  # two that begin a database in the same moment hinder each other; later its tables are there
        time.sleep(SECONDS_APART)
        return RDBStorage(place, engine_kwargs=waiting)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UsageError("--study needs Optuna, which is not installed; pip install 'marl_stable[optuna]'.") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
