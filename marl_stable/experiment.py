"""`marl-stable diagnose RUN --experiment`: short paired trainings with one remedy each name the cause that they undo.

Every remedy is compared with an unchanged control: same beginning, same seeds, same number of steps, nothing acting.
Where both begin depends on when the trouble did:

- *anew*, where it came in the first tenth of the run: the run's own beginning shows it again;
- from `best.pt`, where that is from before the trouble: its weights and normalisers as by `init_from`, optimisers anew;
- from `last.pt` otherwise: a copy of the run goes on with networks, optimisers, replay and environments as they were.
  Only settings that leave all of these their meaning can change there (`remedies.CONTINUABLE`); the last layer of
  saturated actors is shrunk. The second of a pair draws other random numbers from there on.

A remedy that changes what weights mean (normalisers, squashing, shape of networks, the environment) always begins anew,
and so does the control that it is compared with. Step sizes are constant, at what they were when the trouble began.
Nothing is written to the run folder: all happens in a temporary one.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from marl_stable import checkpoint, configs
from marl_stable.agents.base import decay
from marl_stable.agents.config import ActorCriticConfig, MADDPGConfig, MAPPOConfig
from marl_stable.config import RunConfig
from marl_stable.diagnosing import read_case
from marl_stable.folder import RunFolder
from marl_stable.investigate.remedies import RATES, Remedy, applied, continuable, remedies
from marl_stable.investigate.verdicts import Outcome, judge, named
from marl_stable.monitor.case import Case
from marl_stable.monitor.diagnosis import DOUBTFUL, diagnose
from marl_stable.monitor.symptoms import symptoms
from marl_stable.report.page import flags
from marl_stable.run import Run, beginning
from marl_stable.run.resuming import resume
from marl_stable.training import SAVED
from marl_stable.trial import Trial, brief, outcome

PAIRS = 2
EARLY = 0.1  # of the run: a trouble that came before is looked for from the beginning
SHARE, FEWEST, SECONDS = 0.1, 5, 60.0  # of the run's steps, iterations at least, and seconds at most for one training
SLOWEST = 0.05  # of the step size, at the end of a schedule
STUCK = 1.0  # what a saturated last layer is shrunk to: 95% of its outputs are below it


def examine(path: Path, tell: Callable[[str], None]) -> tuple[dict[str, Any], list[Outcome]]:
    """The diagnosis of the run in `path` after an experiment, and what each remedy brought; `tell` hears of each.

    Where the diagnosis is healthy there is nothing to try. Raises UsageError where `path` has nothing to diagnose, or
    no configuration to train with, and KeyboardInterrupt where the user ends it.
    """
    case = read_case(path)
    found, tried = diagnose(case), []
    if found["verdict"] == "healthy":
        return found, []
    with tempfile.TemporaryDirectory(prefix="experiment-") as room:
        experiment = Experiment(path.absolute(), Path(room), case, found)
        for result in experiment.outcomes(remedies(found["findings"], experiment.config, _reward_std(case))):
            tried.append(result)
            tell(in_words(result))
    return named(found, tried), tried


def in_words(result: Outcome) -> str:
    """One line: what was tried, and what it brought."""
    where = {"anew": "anew", "best": "from best.pt", "last": "from last.pt"}[result.start]
    value, control = ("not finite" if known is None else f"{known:.2f}" for known in (result.value, result.control))
    gone = f", without {', '.join(symptom.replace('_', ' ') for symptom in result.gone)}" if result.gone else ""
    said = f"{flags(result.remedy.config)} ({where}): return {value}, unchanged {control}"
    return f"{said}, {result.gain:+.1f} standard errors{gone}"


class Experiment:
    """The trainings of one run's experiment, in the temporary folder `room`."""

    def __init__(self, path: Path, room: Path, case: Case, found: Mapping[str, Any]) -> None:
        """Raises UsageError where `path` is no run folder, or its configuration cannot be read."""
        self.path, self.room, self.case = path, room, case
        self.metadata = RunFolder.open(path).metadata
        self.config = configs.read_run(RunFolder(path).config)
        self.onset = _onset(case, found)
        self.start = self._start()
        self._count = 0

    def _start(self) -> str:
        if self.onset <= EARLY * (self.case.recording.steps[-1] if len(self.case.recording.steps) else 0):
            return "anew"
        for name in ("best", "last"):
            try:
                if self._begins(name, self.path / "checkpoints" / f"{name}.pt"):
                    return name
            except checkpoint.Damaged:
                continue
        return "anew"

    def _begins(self, name: str, path: Path) -> bool:
        """Whether trainings can begin at this checkpoint. Raises Damaged where it cannot be read."""
        device = torch.device("cpu")
        if name == "best":
            return checkpoint.load_run(path, device).steps < self.onset
        return bool(checkpoint.load_training(path, device, SAVED)) and self.config.stability != "off"

    def outcomes(self, tried: Sequence[Remedy]) -> Iterator[Outcome]:
        """What each remedy brings over a control that began where it did.

        Raises KeyboardInterrupt where the user ends it.
        """
        controls: dict[str, list[Trial]] = {}
        for remedy in tried:
            start = self.start if continuable(remedy, self.config) else "anew"
            if start not in controls:
                controls[start] = self._trials(None, start)
            yield judge(remedy, start, self._trials(remedy, start), controls[start])

    def steps(self, start: str) -> int:
        """Of one training: a tenth of the run's, as far as they take no longer than a minute."""
        algo = self.config.algo
        assert isinstance(algo, MAPPOConfig | MADDPGConfig)
        each = algo.batch_size if isinstance(algo, MAPPOConfig) else algo.train_every
        before = algo.warm_up if isinstance(algo, MADDPGConfig) and start != "last" else 0
        wanted = before + max(FEWEST * each, round(SHARE * self.config.total_steps))
        done, seconds = self.metadata.get("steps") or 0, self.metadata.get("seconds") or 0.0
        affordable = round(SECONDS * done / seconds) if done and seconds else wanted
        return max(min(wanted, affordable, self.config.total_steps), before + 2 * each)

    def _trials(self, remedy: Remedy | None, start: str) -> list[Trial]:
        """The trainings of each pair with `remedy`, or without for the control."""
        config, found = self._configured(remedy, start), []
        for seed in range(self.config.seed, self.config.seed + PAIRS):
            self._count += 1
            folder = self.room / str(self._count)
            short = brief(config, self.steps(start), seed, folder)
            found.append(
                outcome(self._go_on(short, remedy, folder) if start == "last" else beginning.start(short), seed)
            )
            shutil.rmtree(folder)
        return found

    def _configured(self, remedy: Remedy | None, start: str) -> RunConfig:
        algo = self.config.algo
        assert isinstance(algo, ActorCriticConfig)
        factor = 1.0
        if start != "anew":
            factor = max(SLOWEST, decay(algo.lr_schedule, self.onset / self.config.total_steps))
        if algo.lr_schedule in ("linear", "cosine"):
            algo = replace(algo, lr_schedule="constant")
        rates = {key: rate * factor for key in ("lr", "actor_lr", "critic_lr") if (rate := getattr(algo, key))}
        config = replace(self.config, algo=replace(algo, **rates))
        if start == "best":
            config = replace(config, init_from=str(self.path))
        changes = dict(remedy.config) if remedy else {}
        scaled = {key: value * factor if key in RATES else value for key, value in changes.items()}
        return applied(config, scaled)

    def _go_on(self, config: RunConfig, remedy: Remedy | None, folder: Path) -> Run:
        """A copy of the run, gone on with from `last.pt`."""
        others = ("events.out.tfevents*", "best.pt", "previous.pt", "report.html", "diagnosis.json")
        shutil.copytree(self.path, folder, ignore=shutil.ignore_patterns(*others))
        last = folder / "checkpoints" / "last.pt"
        state = checkpoint.load(last, torch.device("cpu"))
        learned = state["training"]["agent"]["learning"]
        if config.seed != self.config.seed:
            device = "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"
            learned["generator"] = torch.Generator(device).manual_seed(config.seed).get_state()
        if remedy is not None and remedy.shrinks:
            for name, group in learned["groups"].items():
                shrink(group, self._reach(name))
        checkpoint.save(last, state)
        end = state["steps"] + config.total_steps
        (folder / "config.yaml").write_text(configs.write(replace(config, total_steps=end)), encoding="utf-8")
        return resume(folder, end, quiet=True)

    def _reach(self, group: str) -> float:
        """How far out the last layer of the group's actors is: the largest 95th percentile of |u|; 0 where unknown."""
        read = (series.values for series in self.case.recording.series("preactivation", group=group))
        return max((float(values[-1]) for values in read if len(values)), default=0.0)


def shrink(group: dict[str, Any], reach: float) -> None:
    """Divide the last layer of every actor in a group's state so that what reached `reach` reaches 1."""
    if not reach > STUCK:
        return
    for part in (part for part in group if "actor" in part and "optimizer" not in part):
        for name, tensor in group[part].items():
            if ".final." in f".{name}":
                tensor.div_(reach)


def _reward_std(case: Case) -> float | None:
    """The largest deviation of an agent's rewards in random play."""
    found = ((case.facts.get("preflight") or {}).get("rewards") or {}).values()
    known = [agent["std"] for agent in found if agent.get("std") is not None]
    return max(known, default=None)


def _onset(case: Case, found: Mapping[str, Any]) -> float:
    """When the trouble began: the first of what is not doubtful, and of the symptoms."""
    sure = [finding["onset_steps"] for finding in found["findings"] if finding["confidence"] >= DOUBTFUL]
    return min([*sure, *(symptom.onset_steps for symptom in symptoms(case))], default=0)
