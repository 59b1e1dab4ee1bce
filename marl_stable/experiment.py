"""`marl-stable diagnose RUN --experiment`: short paired trainings with one remedy each name the cause that they undo.

Every remedy is compared with an unchanged control: same beginning, same seeds, same number of steps, nothing acting.
Where both begin depends on when the trouble did:

- *anew*, where it came in the first tenth of the run: the run's own beginning shows it again;
- from `best.pt`, where that is from before the trouble: its weights and normalisers as by `init_from`, optimisers anew;
- from `last.pt` otherwise: a copy of the run goes on with networks, optimisers, replay and environments as they were.
  Only settings that leave all of these their meaning can change there (`remedies.CONTINUABLE`); the last layer of
  saturated actors may be shrunk.

A remedy that changes what weights mean (normalisers, squashing, shape of networks, the environment) always begins anew,
and so does the control that it is compared with. Steps have a constant size, which is that of the moment when the
trouble began. Nothing is written to the run folder: all happens in a temporary one.
"""

from __future__ import annotations

import math
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from marl_stable import checkpoint, configs, run
from marl_stable.agents.base import decay
from marl_stable.agents.config import ActorCriticConfig, MADDPGConfig
from marl_stable.config import RunConfig
from marl_stable.conversion import override
from marl_stable.diagnosing import read_case
from marl_stable.folder import RunFolder
from marl_stable.investigate.remedies import RATES, Remedy, continuable, remedies
from marl_stable.monitor.case import Case
from marl_stable.monitor.diagnosis import DOUBTFUL, diagnose
from marl_stable.trial import Trial, brief, outcome
from marl_stable.types import UsageError

PAIRS = 2
EARLY = 0.1  # of the run: a trouble that came before is looked for from the beginning
SHARE, FEWEST, SECONDS = 0.1, 10, 60.0  # of the run's steps, iterations at least, and seconds at most for one training
HELPS = 2.0  # standard errors
MOST = 99.0  # standard errors that are told of
QUIET = 0.01  # of the return: pairs cannot be known to differ by less
PROVEN, DISPROVEN = 0.5, 0.5  # how much of the doubt, or of the confidence, an outcome takes away
UNNAMED = 0.7  # confidence in a cause that only the experiment has named


class Arm(NamedTuple):
    """One remedy, or none for the control, and what its trainings brought."""

    remedy: Remedy | None
    start: str  # anew, best or last
    trials: list[Trial]


class Outcome(NamedTuple):
    """What a remedy brought over its control."""

    remedy: Remedy
    start: str
    value: float | None  # mean return
    control: float | None
    gain: float  # standard errors
    gone: list[str]  # symptoms of the control that it has not

    @property
    def helps(self) -> bool:
        """Whether it is better than nothing beyond doubt, or without the symptoms and no worse."""
        return self.gain >= HELPS or (bool(self.gone) and self.gain >= 0)


class Experiment:
    """The trainings of one run's experiment, in a temporary `folder`."""

    def __init__(self, path: Path, folder: Path, case: Case, found: Mapping[str, Any]) -> None:
        """Raises UsageError where `path` is no run folder, or its configuration cannot be read."""
        self.path, self.folder, self.case = path, folder, case
        self.metadata = RunFolder.open(path).metadata
        self.config = configs.read_run(RunFolder(path).config)
        self.onset = _onset(case, found)
        self.start = self._start()
        self._count = 0

    def _start(self) -> str:
        steps = int(self.case.recording.steps[-1]) if len(self.case.recording.steps) else 0
        if self.onset <= EARLY * steps:
            return "anew"
        for name in ("best", "last"):
            try:
                state = checkpoint.load(self.path / "checkpoints" / f"{name}.pt", torch.device("cpu"))
            except checkpoint.Damaged:
                continue
            if name == "last" or state["steps"] < self.onset:
                return name
        return "anew"

    @property
    def steps(self) -> int:
        """Of each training: a tenth of the run's, as far as they take no longer than a minute."""
        algo = self.config.algo
        off_policy = isinstance(algo, MADDPGConfig)
        each = algo.train_every if isinstance(algo, MADDPGConfig) else int(getattr(algo, "batch_size", 1))
        before = algo.warm_up if isinstance(algo, MADDPGConfig) and self.start != "last" else 0
        wanted = before + max(FEWEST * each, round(SHARE * self.config.total_steps))
        done, seconds = self.metadata.get("steps") or 0, self.metadata.get("seconds") or 0.0
        affordable = round(SECONDS * done / seconds) if done and seconds else wanted
        return max(min(wanted, affordable, self.config.total_steps), before + 2 * each if off_policy else 2 * each)

    def begin_of(self, remedy: Remedy | None) -> str:
        """Where the trainings with `remedy` begin."""
        if remedy is None or self.start == "anew":
            return self.start
        return self.start if continuable(remedy, self.config) else "anew"

    def arm(self, remedy: Remedy | None, start: str) -> Arm:
        """Train each pair's part with `remedy`. Raises KeyboardInterrupt where the user ends it."""
        config = self._configured(remedy, start)
        trials = []
        for seed in range(self.config.seed, self.config.seed + PAIRS):
            self._count += 1
            folder = self.folder / f"{self._count}"
            went = self._go_on(config, remedy, seed, folder) if start == "last" else run.start(config_in(seed, folder))
            trials.append(outcome(went, seed))
            shutil.rmtree(folder)
        return Arm(remedy, start, trials)
