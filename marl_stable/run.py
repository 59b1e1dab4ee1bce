"""Beginning, going on with and looking back at runs: what the command line and Python users call."""

from __future__ import annotations

import math
import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from marl_stable import configs, defence, threads, transfer
from marl_stable import training as loop
from marl_stable.agents import algorithm
from marl_stable.agents.config import ActorCriticConfig
from marl_stable.checkpoint import load_newest
from marl_stable.config import RunConfig
from marl_stable.diagnosing import diagnose_run, write_diagnosis
from marl_stable.envs import catalog
from marl_stable.envs.base import BatchedEnv
from marl_stable.folder import RunFolder, read_incidents
from marl_stable.interruption import Signals, signals_taken
from marl_stable.investigate import baselines, contributions, preflight
from marl_stable.monitor.detectors import Incident
from marl_stable.observer import RunObserver
from marl_stable.profile import Stopwatch
from marl_stable.provenance import git_commit, versions
from marl_stable.replay_files import ReplayFiles
from marl_stable.report.page import page
from marl_stable.report.terminal import Outcome, Progress, show, summary
from marl_stable.training import Training, evaluate
from marl_stable.types import EnvironmentFailure, Stopped, UsageError, spec_to_dict

MAX_AUTO_GAMMA = 0.995


class Run:
    """A run on disk: where it is, how it ended, and what its evaluations brought."""

    def __init__(self, path: Path | RunFolder) -> None:
        """Raises UsageError where `path` is no run folder."""
        self.folder = path if isinstance(path, RunFolder) else RunFolder.open(path)

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.folder.path

    @property
    def status(self) -> str:
        """`running`, `finished`, `stopped`, `interrupted` or `failed`."""
        return str(self.folder.metadata["status"])

    @property
    def returns(self) -> list[tuple[int, float]]:
        """(steps, evaluation return), per-agent mean and undiscounted, in the order of evaluation."""
        points = self.folder.metadata["returns"]
        return [(int(steps), math.nan if value is None else float(value)) for steps, value in points]

    def diagnose(self) -> dict[str, Any]:
        """What went wrong, why, since when, and what to change: the content of `diagnosis.json`."""
        return diagnose_run(self.path)

    @property
    def incidents(self) -> list[dict[str, Any]]:
        """What the monitor saw and did, as in `incidents.jsonl`."""
        return read_incidents(self.folder.incidents)


def train(preset: str | None = None, **flags: Any) -> Run:
    """Train a new run: any flag of `marl-stable train` as a keyword, with `__` for dots.

    `train(algo="mappo", env="mpe2/simple_spread_v3", total_steps=200_000, algo__lr=1e-3)`. Raises UsageError for an
    unknown flag, an unfit value, or an environment that is not fit to begin with.
    """
    layers = [configs.read_preset(preset)] if preset else []
    return start(configs.resolve(*layers, configs.nested(flags)))


def start(config: RunConfig) -> Run:
    """Train a new run; what went wrong underway is in its `status`.

    Raises UsageError where the configuration, the run folder or the environment is not fit to begin with.
    """
    device = _device(config.device)
    folder = RunFolder.create(Path(config.run_dir) if config.run_dir else _default_path(config))
    with signals_taken() as signals:
        try:
            training = _begin(folder, config, device)
        except BaseException as error:
            folder.discard()
            if isinstance(error, EnvironmentFailure):
                raise UsageError(str(error)) from error
            raise
        return _conduct(folder, training, signals)


def _begin(folder: RunFolder, config: RunConfig, device: torch.device) -> Training:
    """Everything before the first step, ending with the folder's first files."""
    config = replace(config, env=replace(config.env, num_envs=catalog.resolve_num_envs(config.env)))
    config = threads.settle(config, device)
    if config.init_from:  # config.yaml must repeat the run from another working directory as well
        config = replace(config, init_from=str(Path(config.init_from).absolute()))
    envs, eval_env = _environments(config, device)
    at_random = baselines.random_play(eval_env, config.seed)
    config = replace(config, algo=_with_gamma(config.algo, at_random.horizon()))
    training = _training(config, envs, eval_env, device, float(at_random.episodes.mean_returns().mean()))
    training.agent.initialize_statistics(at_random.obs)
    origin = {"init_from": transfer.take_over(training.agent, config.init_from)} if config.init_from else {}
    if training.watched:
        origin["preflight"] = preflight.inspect(training.agent, eval_env, at_random, config.seed)
    folder.begin(
        configs.write(config),
        steps=0,
        total_steps=config.total_steps,
        seed=config.seed,
        device=str(device),
        versions=versions(),
        git_commit=git_commit(),
        baselines=baselines.measure(eval_env, at_random, config.seed),
        spec=spec_to_dict(envs.spec),
        returns=[],
        **origin,
    )
    return training


def resume(path: Path, total_steps: int | None = None, quiet: bool = False) -> Run:
    """Go on with a run, exactly as if it had never stopped. Raises UsageError where that cannot be."""
    folder = RunFolder.open(path)
    folder.lock()
    with signals_taken() as signals:
        try:
            training, warning = _reload(folder, total_steps, quiet)
        except BaseException:
            folder.release()
            raise
        return _conduct(folder, training, signals, training.steps, warning)


def _reload(folder: RunFolder, total_steps: int | None, quiet: bool) -> tuple[Training, str | None]:
    """The training as its newest good checkpoint has it, and a warning where that is not `last.pt`."""
    config = replace(configs.read_run(folder.config), quiet=quiet)
    ended = folder.metadata.get("status") == "finished" or total_steps not in (None, config.total_steps)
    config = config if total_steps is None else replace(config, total_steps=total_steps)
    device = _device(config.device)
    config = threads.settle(config, device)
    state, warning = load_newest(folder.checkpoints, device)
    if ended and state["steps"] >= config.total_steps:  # else it was interrupted in its last evaluation
        where = f"{str(folder.path)!r} has {state['steps']} of {config.total_steps} steps"
        raise UsageError(f"{where}; add --total-steps to train longer.")
    envs, eval_env = _environments(config, device)
    random = (folder.metadata.get("baselines") or {}).get("random") or {}
    training = _training(config, envs, eval_env, device, random.get("return"))
    training.load_state_dict(state["training"])
    rings = training.agent.rings()
    ReplayFiles(folder.replay, rings).load(rings)
    folder.begin(configs.write(config), total_steps=config.total_steps)
    folder.diagnosis.unlink(missing_ok=True)  # it was of the run as it stood
    return training, warning


def _conduct(
    folder: RunFolder,
    training: Training,
    signals: Signals,
    resumed_at: int | None = None,
    warning: str | None = None,
) -> Run:
    """Train with a terminal, files, signals and a final word."""
    config = training.config
    shown = {name: found["return"] for name, found in folder.metadata["baselines"].items() if found is not None}
    watch = Stopwatch() if config.profile else None
    status, reason = "failed", ""
    with Progress(config.total_steps, training.steps, config.quiet) as progress:
        observer = RunObserver(folder, progress, shown, resumed_at, None if _evaluated(training) else "eval/")
        observer.begin(training)
        if resumed_at is None:
            if training.acts:
                defence.begin(training, folder.metadata["preflight"]["first_step"], observer)
            observer.save(training)  # a run killed before its first checkpoint can go on as well
        if warning:
            progress.warn(warning)
        if resumed_at is None and "init_from" in folder.metadata:
            progress.note(transfer.in_words(folder.metadata["init_from"]))
        for copy in training.envs.replay_differs:
            where = {"copy": copy}
            observer.happened(Incident(training.steps, "replay_differs", where, 1.0, 0.0, "restarted", {}))
        if watch:
            watch.attach(training, observer)
        try:
            signals.saving = True
            status = loop.train(training, observer, signals)
            observer.save(training)
            # Evaluated after saving: going on takes back what only the end calls for.
            if status == "finished" and not _evaluated(training) and not evaluate(training, observer, signals):
                status = "interrupted"
        except (EnvironmentFailure, Stopped) as error:
            status, reason = "stopped", str(error)
            loop.report_failures(training, observer)
            observer.save(training)
        except BaseException as error:
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            folder.end(status, reason=f"{type(error).__name__}: {error}")
            raise
    returns = [list(point) for point in training.returns]
    measured = _contributions(training, signals, progress) if status == "finished" else {}
    folder.end(status, reason=reason, steps=training.steps, seconds=training.seconds, returns=returns, **measured)
    found = _diagnosis(folder, training, progress)
    if reason:
        progress.warn(f"stopped: {reason}")
    if not config.quiet:
        summary(_outcome(folder, training, status, shown, observer))
        if found and found["findings"]:
            show(page(found, str(folder.path)))
        if watch:
            watch.show()
    elif status == "interrupted":
        progress.warn(f"interrupted; go on with: marl-stable train --resume {shlex.quote(str(folder.path))}")
    training.envs.close()
    training.eval_env.close()
    return Run(folder)


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


def _evaluated(training: Training) -> bool:
    return bool(training.returns) and training.returns[-1][0] == training.steps


def _environments(config: RunConfig, device: torch.device) -> tuple[BatchedEnv, BatchedEnv]:
    """The environment to train on and another to evaluate on.

    Both have workers where one has: a hang or a crash in an evaluation would end the run that training survives.
    """
    assert isinstance(config.env.num_envs, int)
    copies = config.env.num_envs
    envs = catalog.make(config.env, device, copies)
    return envs, catalog.make(config.env, device, min(copies, config.eval_episodes))


def _training(
    config: RunConfig, envs: BatchedEnv, eval_env: BatchedEnv, device: torch.device, random_return: float | None
) -> Training:
    algo = config.algo
    assert isinstance(algo, ActorCriticConfig)
    refuse, watch = config.stability in ("guard", "repair"), config.stability != "off"
    agent = algorithm(algo.name)(envs.spec, algo, envs.num_envs, device, config.seed, refuse, watch)
    if config.compile:
        agent.compile()
    return Training(config, agent, envs, eval_env, envs.reset(config.seed), random_return=random_return)


def _with_gamma(algo: Any, horizon: float) -> Any:
    """gamma auto: 1 - 1.25/horizon. 0.95 at 25 steps, 0.995 from 250."""
    if algo.gamma != "auto":
        return algo
    return replace(algo, gamma=min(MAX_AUTO_GAMMA, max(0.0, 1 - 1.25 / horizon)))


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "device is 'cuda', but torch finds no CUDA device; use --device cpu, or a CUDA build of torch."
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _default_path(config: RunConfig) -> Path:
    env = config.env.id.replace("/", "_").replace(":", "_")
    path = Path("runs") / env / config.algo.name / f"{time.strftime('%Y%m%d-%H%M%S')}-s{config.seed}"
    twin = 1
    while path.exists():  # two runs begun in one second
        twin += 1
        path = path.with_name(f"{path.name.partition('_')[0]}_{twin}")
    return path


def _outcome(
    folder: RunFolder, training: Training, status: str, shown: dict[str, float], observer: RunObserver
) -> Outcome:
    values = [value for _, value in training.returns]
    numbers = [value for value in values if not math.isnan(value)]
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
