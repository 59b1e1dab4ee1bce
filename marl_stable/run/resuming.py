"""Going on with a run exactly where its newest good checkpoint was taken."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import torch

from marl_stable import configs, distributed, threads
from marl_stable.checkpoint import Damaged, Kept, load_newest, load_run
from marl_stable.config import RunConfig
from marl_stable.folder import RunFolder
from marl_stable.interruption import signals_taken
from marl_stable.replay_files import ReplayFiles, load_divided, own_folder
from marl_stable.run import Run, assembling, conducting, fitting
from marl_stable.training import SAVED, Training, with_own
from marl_stable.types import UsageError


def resume(path: Path, total_steps: int | None = None, quiet: bool = False) -> Run:
    """Go on with a run, exactly as if it had never stopped. Raises UsageError where that cannot be."""
    folder = RunFolder.open(path)
    config = replace(configs.read_run(folder.config), quiet=quiet)
    with distributed.joined(assembling.device_named(config.device)) as device, signals_taken() as signals:
        with distributed.together(UsageError):
            if distributed.leads():
                folder.lock()
        try:
            training, warnings = _reload(folder, config, device, total_steps)
        except BaseException:
            folder.release()
            raise
        return conducting.conduct(folder, training, signals, training.steps, warnings)


def _reload(
    folder: RunFolder, config: RunConfig, device: torch.device, total_steps: int | None
) -> tuple[Training, list[str]]:
    """The training as its newest good checkpoint has it, and warnings where that is not all of `last.pt`."""
    ended = folder.metadata.get("status") == "finished" or total_steps not in (None, config.total_steps)
    config = config if total_steps is None else replace(config, total_steps=total_steps)
    kept, warnings = _load(folder, device)
    if ended and kept.steps >= config.total_steps:  # else it was interrupted in its last evaluation
        where = f"{str(folder.path)!r} has {kept.steps} of {config.total_steps} steps"
        raise UsageError(f"{where}; add --total-steps to train longer.")
    fitting.require_same_settings(kept, config, folder.path)
    config = threads.settle(config, device)
    envs, eval_env = assembling.environments(config, device)
    fitting.require_same_environment(kept.spec, envs.spec, folder.path)
    random = (folder.metadata.get("baselines") or {}).get("random") or {}
    training = assembling.assemble(config, envs, eval_env, device, random.get("return"))
    warnings += _restore(folder, training, kept)
    if distributed.leads():
        training.best = _best(folder, training)
        launch = distributed.launch()
        folder.begin(configs.write(config), total_steps=config.total_steps, **({"launch": launch} if launch else {}))
        folder.diagnosis.unlink(missing_ok=True)  # it was of the run as it stood
    return training, warnings


def _load(folder: RunFolder, device: torch.device) -> tuple[Kept, list[str]]:
    """The newest good checkpoint, and a warning where it is not `last.pt`; the first process sets a bad one aside."""
    for turn in (True, False):
        with distributed.together(UsageError):
            if distributed.leads() is turn:
                kept, warning = load_newest(folder.checkpoints, device, SAVED)
    return kept, [warning] if warning else []


def _best(folder: RunFolder, training: Training) -> float | None:
    """The evaluation return of `best.pt`, None where there is none to keep.

    Not the best of `returns`: they are those of the checkpoint, from before the evaluation that ended the run.
    """
    try:
        found = load_run(folder.checkpoints / "best.pt", training.envs.device).state.get("return")
    except Damaged:
        return None
    known = [value for _, value in training.returns if math.isfinite(value)]
    return found if isinstance(found, float) else max(known, default=None)  # put there by hand: it has to be beaten


def _restore(folder: RunFolder, training: Training, kept: Kept) -> list[str]:
    """Go on where the checkpoint was taken; a warning where more or fewer processes do than before."""
    state, rank, now, before = kept.state, distributed.rank(), distributed.world_size(), fitting.processes(kept)
    if now != before:
        training.take_over(state["training"])
        load_divided(folder.replay, training.agent.rings(), before)
        return [
            f"{before} processes trained this run so far, and {now} go on: with what was learned, in new episodes, and "
            "not bit for bit as before."
        ]
    training.load_state_dict(with_own(state["training"], state["others"][rank - 1]) if rank else state["training"])
    rings = training.agent.rings()
    ReplayFiles(own_folder(folder.replay, rank, now), rings).load(rings)
    return []
