"""Beginning a run: from flags or a configuration to everything that stands before its first step."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from marl_stable import configs, distributed, threads, transfer
from marl_stable.config import RunConfig
from marl_stable.envs import catalog
from marl_stable.envs.base import BatchedEnv
from marl_stable.folder import RunFolder
from marl_stable.interruption import signals_taken
from marl_stable.investigate import baselines, preflight
from marl_stable.provenance import git_commit, versions
from marl_stable.run import Run, assembling, conducting
from marl_stable.run.resuming import resume
from marl_stable.training import Training
from marl_stable.types import EnvironmentFailure, UsageError, spec_to_dict

MAX_AUTO_GAMMA = 0.995
NO_MEMORY = ("can't allocate memory", "Storage size calculation overflowed")  # what torch says on the CPU


def train(preset: str | None = None, **flags: Any) -> Run:
    """Train a new run: any flag of `marl-stable train` as a keyword, with `__` for dots.

    `train(algo="mappo", env="mpe2/simple_spread_v3", total_steps=200_000, algo__lr=1e-3)`. Raises UsageError for an
    unknown flag, an unfit value, or an environment that is not fit to begin with.
    """
    layers = [configs.read_preset(preset)] if preset else []
    return start(configs.resolve(*layers, configs.nested(flags)))


def start(config: RunConfig) -> Run:
    """Train a new run; what went wrong underway is in its `status`.

    Where `torchrun` starts it again after a process failed, it goes on. Raises UsageError where the configuration, the
    run folder or the environment is not fit to begin with.
    """
    with distributed.joined(assembling.device_named(config.device)) as device:
        if begun := distributed.told(_begun(config)):
            return _again(Path(begun), config.quiet)
        folder = _create(config)
        with signals_taken() as signals:
            try:
                training = _begin(folder, config, device)
            except BaseException as error:
                folder.discard()
                if told := _fault_of_the_asked(error):
                    raise UsageError(told) from error
                raise
            return conducting.conduct(folder, training, signals)


def _fault_of_the_asked(error: BaseException) -> str | None:
    """What to say of an error before the first step that other settings would not have."""
    if isinstance(error, EnvironmentFailure):
        return str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in str(error) for words in NO_MEMORY):
        why = " ".join(str(error).split())
        remedy = "lower env.num_envs, algo.network.hidden or algo.batch_size"
        return f"there is not enough memory for this run ({why}); {remedy}."
    return None


def _create(config: RunConfig) -> RunFolder:
    """The run folder, made by the first process."""
    path = Path(distributed.told(config.run_dir or str(_default_path(config))))
    with distributed.together(UsageError):
        return RunFolder.create(path) if distributed.leads() else RunFolder(path)


def _default_path(config: RunConfig) -> Path:
    env = config.env.id.replace("/", "_").replace(":", "_")
    path = Path("runs") / env / config.algo.name / f"{time.strftime('%Y%m%d-%H%M%S')}-s{config.seed}"
    twin = 1
    while path.exists():  # two runs begun in one second
        twin += 1
        path = path.with_name(f"{path.name.partition('_')[0]}_{twin}")
    return path


def _begun(config: RunConfig) -> str | None:
    """The folder of this very run where `torchrun` starts it again; None where it had no checkpoint yet."""
    if not distributed.restarted():
        return None
    for folder in [Path(config.run_dir)] if config.run_dir else _default_path(config).parent.glob("*"):
        with contextlib.suppress(UsageError):
            same = RunFolder.open(folder).metadata.get("launch") == distributed.launch()
            if same and (folder / "checkpoints" / "last.pt").exists():
                return str(folder)
    return None


def _again(path: Path, quiet: bool) -> Run:
    """Go on after a failure; what ended otherwise has ended."""
    run = Run(path)
    return resume(path, quiet=quiet) if run.status in ("running", "failed") else run


def _begin(folder: RunFolder, config: RunConfig, device: torch.device) -> Training:
    """Everything before the first step, ending with the folder's first files."""
    config = replace(config, env=replace(config.env, num_envs=catalog.resolve_num_envs(config.env)))
    config = threads.settle(config, device)
    if config.init_from:  # config.yaml must repeat the run from another working directory as well
        config = replace(config, init_from=str(Path(config.init_from).absolute()))
    with distributed.together(UsageError, EnvironmentFailure):
        envs, eval_env = assembling.environments(config, device)
        trial_env = assembling.for_random_play(config, eval_env)
        at_random = baselines.random_play(trial_env, config.seed)
    mean_return = float(at_random.episodes.mean_returns().mean())
    horizon, mean_return = distributed.told((at_random.horizon(), mean_return))
    config = replace(config, algo=_with_gamma(config.algo, horizon))
    training = assembling.assemble(config, envs, eval_env, device, mean_return)
    seen, there = (
        {name: distributed.part(x) for name, x in kind.items()} for kind in (at_random.obs, at_random.there())
    )
    training.agent.initialize_statistics(seen, None if envs.spec.turn_based else there)  # all see others' turns
    origin = {"init_from": transfer.take_over(training.agent, config.init_from)} if config.init_from else {}
    with distributed.together(UsageError, EnvironmentFailure), distributed.alone():
        if distributed.leads():
            _begin_folder(folder, training, trial_env, at_random, origin)
    if trial_env is not eval_env:
        trial_env.close()
    return training


def _begin_folder(
    folder: RunFolder,
    training: Training,
    trial_env: BatchedEnv,
    at_random: baselines.RandomPlay,
    origin: dict[str, Any],
) -> None:
    """The folder's first files, and what is measured for them in `trial_env`."""
    config, envs = training.config, training.envs
    if training.watched:
        origin["preflight"] = preflight.inspect(training.agent, trial_env, at_random, config.seed)
    if launch := distributed.launch():
        origin["launch"] = launch
    folder.begin(
        configs.write(config),
        steps=0,
        total_steps=config.total_steps,
        seed=config.seed,
        device=str(envs.device),
        versions=versions(),
        git_commit=git_commit(),
        baselines=baselines.measure(trial_env, at_random, config.seed),
        spec=spec_to_dict(envs.spec),
        returns=[],
        **origin,
    )


def _with_gamma(algo: Any, horizon: float) -> Any:
    """gamma auto: 1 - 1.25/horizon. 0.95 at 25 steps, 0.995 from 250."""
    if algo.gamma != "auto":
        return algo
    return replace(algo, gamma=min(MAX_AUTO_GAMMA, max(0.0, 1 - 1.25 / horizon)))
