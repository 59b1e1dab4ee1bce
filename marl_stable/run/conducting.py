"""Conducting a run from its first step to its last word, with a terminal, files and signals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from marl_stable import defence, distributed, loop, reporting, transfer
from marl_stable.diagnosing import diagnose_run, write_diagnosis
from marl_stable.folder import RunFolder
from marl_stable.interruption import Signals
from marl_stable.investigate import contributions, preflight
from marl_stable.monitor.detectors import Incident
from marl_stable.observer import Follower, RunObserver
from marl_stable.profile import Stopwatch
from marl_stable.report.files import replace_file
from marl_stable.report.page import page
from marl_stable.report.terminal import Outcome, Progress, show, summary
from marl_stable.run import Run
from marl_stable.training import Training
from marl_stable.types import EnvironmentFailure, Stopped


def conduct(
    folder: RunFolder,
    training: Training,
    signals: Signals,
    resumed_at: int | None = None,
    warnings: Sequence[str] = (),
) -> Run:
    """Train with a terminal, files, signals and a final word; of several processes, the first does that.

    `resumed_at` is the step at which a run goes on, None for a new one; `warnings` are told before its first step.
    """
    if not distributed.leads():
        return _follow(folder, training, signals, resumed_at)
    config = training.config
    known = folder.metadata.get("baselines", {})  # none where they were lost since the run began
    shown = {name: found["return"] for name, found in known.items() if found and found["return"] is not None}
    watch = Stopwatch() if config.profile else None
    status, reason = "failed", ""
    with Progress(config.total_steps, training.steps, config.quiet) as progress:
        observer = RunObserver(folder, progress, shown, resumed_at, None if _evaluated(training) else "eval/")
        _open(folder, training, observer, progress, resumed_at, warnings)
        if watch:
            watch.attach(training, observer)
        try:
            status, reason = _trained(training, observer, signals)
        except BaseException as error:
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            folder.end(status, reason=f"{type(error).__name__}: {error}")
            raise
    returns = [list(point) for point in training.returns]
    measured = _contributions(training, signals, progress) if status == "finished" else {}
    folder.end(status, reason=reason, steps=training.steps, seconds=training.seconds, returns=returns, **measured)
    found = _diagnosis(folder, training, progress)
    _report(folder, progress)
    if reason:
        progress.warn(f"stopped: {reason}")
    if not config.quiet:
        summary(_outcome(folder, training, status, shown, observer))
        if found and found["findings"]:
            show(page(found, str(folder.path)))
        if watch:
            watch.show()
    training.envs.close()
    training.eval_env.close()
    return Run(folder)


def _open(
    folder: RunFolder,
    training: Training,
    observer: RunObserver,
    progress: Progress,
    resumed_at: int | None,
    warnings: Sequence[str],
) -> None:
    """All that is told and saved before the first step."""
    observer.begin(training)
    if resumed_at is None:
        _shorten_first_steps(folder, training, observer)
        observer.save(training)  # a run killed before its first checkpoint can go on as well
    before = preflight.warnings(folder.metadata.get("preflight", {})) if resumed_at is None else []
    for warning in [*warnings, *before]:
        progress.warn(warning)
    if resumed_at is None and "init_from" in folder.metadata:
        progress.note(transfer.in_words(folder.metadata["init_from"]))
    for copy in training.envs.replay_differs:
        where = {"copy": copy}
        observer.happened(Incident(training.steps, "replay_differs", where, 1.0, 0.0, "restarted", {}))


def _follow(folder: RunFolder, training: Training, signals: Signals, resumed_at: int | None) -> Run:
    """Train as one of several processes, and not the first: without files and terminal."""
    observer = Follower(folder)
    observer.begin(training)
    if resumed_at is None:
        _shorten_first_steps(folder, training, observer)
        observer.save(training)
    status, _ = _trained(training, observer, signals)
    folder.metadata |= {"status": status, "returns": [list(point) for point in training.returns]}
    training.envs.close()
    training.eval_env.close()
    return Run(folder)


def _shorten_first_steps(folder: RunFolder, training: Training, observer: Follower) -> None:
    """Where the guard acts: by what the first process's preflight found."""
    if training.acts:
        measured = folder.metadata["preflight"] if distributed.leads() else {}
        defence.begin(training, distributed.told(measured.get("first_step", {})), observer)


def _trained(training: Training, observer: Follower, signals: Signals) -> tuple[str, str]:
    """Train, save and evaluate; how it ended, and why where that was not foreseen."""
    try:
        signals.saving = True
        status: str = loop.train(training, observer, signals)
        observer.save(training)
        # Evaluated after saving: going on takes back what only the end calls for.
        if status == "finished" and not _evaluated(training) and not loop.evaluate(training, observer, signals):
            status = "interrupted"
    except (EnvironmentFailure, Stopped) as error:
        loop.report_failures(training, observer)
        observer.save(training)
        return "stopped", str(error)
    return status, ""


def _contributions(training: Training, interrupted: Signals, progress: Progress) -> dict[str, Any]:
    """What each agent contributes, for the diagnosis; nothing where it was not watched, would take too long or cannot
    be had: the run is over, and no trouble of the environment may cost it."""
    if not training.watched:
        return {}
    try:
        found = contributions.measure(training.agent, training.eval_env, training.config.seed, interrupted)
    except EnvironmentFailure as error:
        progress.warn(f"what agents contribute could not be measured ({error}).")
        return {}
    return {"contributions": found} if found else {}


def _diagnosis(folder: RunFolder, training: Training, progress: Progress) -> dict[str, Any] | None:
    """Written beside the run that has ended; None where nothing was watched, or where it cannot be made or written:
    no fault of the diagnosis may cost a run."""
    if not training.watched:
        return None
    try:
        found = diagnose_run(folder.path)
        write_diagnosis(folder.path, found)
    except Exception as error:
        progress.warn(f"diagnosis.json could not be written ({type(error).__name__}: {error}).")
        return None
    return found


def _report(folder: RunFolder, progress: Progress) -> None:
    """Written beside the run that has ended; what goes wrong with it costs a warning."""
    try:
        replace_file(folder.report, [reporting.report([folder.path]).encode()])
    except Exception as error:
        progress.warn(f"report.html could not be written ({type(error).__name__}: {error}).")


def _evaluated(training: Training) -> bool:
    return bool(training.returns) and training.returns[-1][0] == training.steps


def _outcome(
    folder: RunFolder, training: Training, status: str, shown: dict[str, float], observer: RunObserver
) -> Outcome:
    values = [value for _, value in training.returns]
    numbers = [value for value in values if not math.isnan(value)]
    if training.best is not None and math.isfinite(training.best):  # of an evaluation that a resume did not find again
        numbers.append(training.best)
    return Outcome(
        folder=folder.path,
        status=status,
        steps=training.steps,
        total_steps=training.config.total_steps,
        seconds=training.seconds,
        steps_per_second=training.steps / max(training.seconds, 1e-9),
        last_return=values[-1] if values else None,
        best_return=max(numbers) if numbers else None,
        baselines=shown,
        incidents=observer.incidents.counts,
    )
