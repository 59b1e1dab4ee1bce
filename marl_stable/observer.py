"""Who is told what happens in a training: writes it to the run folder and to the terminal."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from marl_stable import checkpoint, distributed
from marl_stable.conversion import to_dict
from marl_stable.evaluation import Episodes, summarize
from marl_stable.folder import IncidentFile, RunFolder
from marl_stable.monitor.detectors import Incident, in_words
from marl_stable.monitor.table import Host
from marl_stable.recorder import Recorder, labels
from marl_stable.replay_files import ReplayFiles, own_folder
from marl_stable.report.sinks import Sink, Sinks
from marl_stable.report.terminal import Progress
from marl_stable.terms import told_of_left_out
from marl_stable.training import Training
from marl_stable.types import Box, spec_to_dict

HISTOGRAM_DIMENSIONS = 32  # per agent; the first ones


class Follower:
    """One of several processes that train together, and not the first: it has its part in every checkpoint."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def begin(self, training: Training) -> None:
        """Learn how much of this process's replay is on disk."""
        place = own_folder(self.folder.replay, distributed.rank(), distributed.world_size())
        self._replay = ReplayFiles(place, training.agent.rings())

    def logged(self, steps: int, row: dict[str, float], found: Host, counts: dict[str, list[float]]) -> None:
        """Left to the first process, as all that follows."""

    def evaluated(self, training: Training, episodes: Episodes) -> None:
        """Nothing."""

    def happened(self, incident: Incident) -> None:
        """Nothing."""

    def keep_policy(self, training: Training) -> None:
        """Nothing."""

    def save(self, training: Training) -> None:
        """Write `last.pt`, keeping the one before; a disk that is full costs a warning, not the run."""
        state, rings = training_state(training), training.agent.rings()
        try:
            with distributed.together(OSError, RuntimeError):
                self._replay.save(rings)  # first, so that no checkpoint names steps that are not there
            with distributed.together(OSError, RuntimeError):
                self._write(training, state)
            self._replay.forget(rings)
        except (OSError, RuntimeError) as error:
            self._warn(f"the checkpoint at {training.steps:,} steps could not be written ({error}).")

    def _write(self, training: Training, state: dict[str, Any]) -> None:
        """Nothing."""

    def _warn(self, text: str) -> None:
        """Nothing."""


class RunObserver(Follower):
    """One run's folder and terminal."""

    def __init__(
        self,
        folder: RunFolder,
        progress: Progress,
        baselines: dict[str, float],
        resumed_at: int | None = None,
        undo: str | None = None,
    ) -> None:
        """`resumed_at`: go on with the files there as they were at that step, without tags that begin with `undo`."""
        super().__init__(folder)
        self.progress, self.baselines = progress, baselines
        self.sinks = Sinks(folder.path, progress.warn, resumed_at, undo)
        self._resumed_at = resumed_at
        self.incidents = IncidentFile(folder.incidents, resumed_at)
        self._discrete: dict[str, bool] = {}
        self._return: float | None = None
        self._told_of_terms = bool((folder.metadata.get("preflight") or {}).get("unaccounted"))

    def begin(self, training: Training) -> None:
        """Learn which agents have discrete actions, and how much of the replay is on disk."""
        groups = training.envs.spec.groups
        super().begin(training)
        self._agents = {group.name: group.agents for group in groups}
        self._discrete = {agent: not isinstance(g.action, Box) for g in groups for agent in g.agents}
        terms = training.terms.names if training.terms else {}
        named = labels(training.envs.spec, training.agent.layer_names(), terms)
        at, folder = self._resumed_at, self.folder.recording
        self._recorder = None
        if training.watched:
            self._recorder = Sink("the recording", lambda: Recorder(folder, named, at), self.progress.warn)

    def logged(self, steps: int, row: dict[str, float], found: Host, counts: dict[str, list[float]]) -> None:
        """Write an iteration's figures and show where the run stands."""
        row = {tag: value for tag, value in row.items() if not (tag.startswith("charts/") and value != value)}
        self.sinks.write({"steps": steps, **row})
        if self._recorder:
            self._recorder.call(lambda recorder: recorder.write(steps, found))
        self._tell_of_terms(steps, found)
        for place, bins in counts.items():
            agent, _, dimension = place.rpartition("/")
            if int(dimension) < HISTOGRAM_DIMENSIONS:
                self.sinks.histogram(f"actions/{place}", steps, bins, self._edges(agent, len(bins)))
        self._return = row.get("charts/return", self._return)
        self.progress.update(steps, row["charts/steps_per_second"], self._return, self.baselines)

    def _tell_of_terms(self, steps: int, found: Host) -> None:
        """Warn once of rewards that begin to be more than their terms: a rare one has no name, or is not reported."""
        shares = found.get("stability/term_left_out", {})
        by_agent = {
            agent: share for name in shares for agent, share in zip(self._agents[name], shares[name], strict=True)
        }
        wrong = {agent: float(share) for agent, share in by_agent.items() if share > 0}
        if wrong and not self._told_of_terms:
            self._told_of_terms = True
            self.progress.warn(told_of_left_out(f"at {steps:,} steps", wrong))

    def _edges(self, agent: str, bins: int) -> list[float]:
        """Bin edges: discrete actions at their numbers, boxes over the canonical range."""
        if self._discrete[agent]:
            return [a - 0.5 for a in range(bins + 1)]
        return [-1 + 2 * i / bins for i in range(bins + 1)]

    def evaluated(self, training: Training, episodes: Episodes) -> None:
        """Complete the iteration's row, and show the evaluation."""
        found = summarize(episodes, training.envs.spec)
        value, groups = found["return"]["mean"], found["per_group"]
        parts = {f"eval/return/{name}": mean for name, mean in groups.items()} if len(groups) > 1 else {}
        row = {"eval/return": value, "eval/episode_length": found["episode_length"]} | parts
        self.sinks.amend({"steps": training.steps} | row)
        low, high = found["return"]["ci95"]
        self.progress.note(f"{training.steps:,} steps: evaluation return {value:.2f} (95% {low:.2f} to {high:.2f})")

    def happened(self, incident: Incident) -> None:
        """Write down and show an incident."""
        entry = incident._asdict() | incident.evidence
        entry.pop("evidence")
        with contextlib.suppress(OSError):  # a full disk must not end the training that the line is about
            self.incidents.write(entry)
        self.progress.warn(in_words(incident))

    def _write(self, training: Training, state: dict[str, Any]) -> None:
        checkpoints = self.folder.checkpoints
        checkpoint.save(checkpoints / "last.pt", state, keep_as=checkpoints / "previous.pt")
        self.folder.write_metadata(steps=training.steps, returns=[list(point) for point in training.returns])

    def _warn(self, text: str) -> None:
        self.progress.warn(text)

    def keep_policy(self, training: Training) -> None:
        """Write `best.pt`."""
        agent = training.agent
        state = {
            "steps": training.steps,
            "return": training.best,
            "algo": to_dict(agent.config),
            "spec": spec_to_dict(agent.spec),
            "policy": agent.policy_state(),
        }
        try:
            checkpoint.save(self.folder.checkpoints / "best.pt", state)
        except (OSError, RuntimeError) as error:
            self.progress.warn(f"the best policy at {training.steps:,} steps could not be written ({error}).")


def training_state(training: Training) -> dict[str, Any]:
    """The whole of `last.pt`; of several processes, the first one's state and what the others have for themselves.

    In one file, which is there or not: with one for each, a run killed between two of them could not be gone on with.
    """
    state = {
        "steps": training.steps,
        "algo": to_dict(training.agent.config),
        "spec": spec_to_dict(training.agent.spec),
        "training": training.state_dict(),
    }
    if distributed.world_size() == 1:
        return state
    return state | {"others": distributed.collected(_on_cpu(training.own_state()))[1:]}


def _on_cpu(state: Any) -> Any:
    """Nested dictionaries, lists and tuples with their tensors where every process can read them."""
    if isinstance(state, dict):
        return {key: _on_cpu(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_on_cpu(value) for value in state)
    return state.cpu() if isinstance(state, torch.Tensor) else state
