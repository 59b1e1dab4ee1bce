"""Beginning, going on with and looking back at runs: what the command line and Python users call."""

from __future__ import annotations

import contextlib
import math
import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from marl_stable import configs, defence, distributed, threads, transfer
from marl_stable import training as loop
from marl_stable.agents import algorithm
from marl_stable.agents.config import ActorCriticConfig, MADDPGConfig, MAPPOConfig
from marl_stable.checkpoint import load_newest
from marl_stable.config import RunConfig
from marl_stable.diagnosing import diagnose_run, write_diagnosis
from marl_stable.envs import catalog
from marl_stable.envs.base import BatchedEnv
from marl_stable.folder import RunFolder, read_incidents
from marl_stable.interruption import Signals, signals_taken
from marl_stable.investigate import baselines, contributions, preflight
from marl_stable.monitor.detectors import Incident
from marl_stable.observer import Follower, RunObserver
from marl_stable.profile import Stopwatch
from marl_stable.provenance import git_commit, versions
from marl_stable.replay_files import ReplayFiles, load_divided, own_folder
from marl_stable.report.page import page
from marl_stable.report.terminal import Outcome, Progress, show, summary
from marl_stable.training import Training, evaluate, with_own
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

    Where `torchrun` starts it again after a process failed, it goes on. Raises UsageError where the configuration, the
    run folder or the environment is not fit to begin with.
    """
    with distributed.joined(_device(config.device)) as device:
        if begun := distributed.told(_begun(config)):
            return _again(Path(begun), config.quiet)
        folder = _create(config)
        with signals_taken() as signals:
            try:
                training = _begin(folder, config, device)
            except BaseException as error:
                folder.discard()
                if isinstance(error, EnvironmentFailure):
                    raise UsageError(str(error)) from error
                raise
            return _conduct(folder, training, signals)


def _create(config: RunConfig) -> RunFolder:
    """The run folder, made by the first process."""
    path = Path(distributed.told(config.run_dir or str(_default_path(config))))
    with distributed.together(UsageError):
        return RunFolder.create(path) if distributed.leads() else RunFolder(path)


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
        envs, eval_env = _environments(config, device)
        at_random = baselines.random_play(eval_env, config.seed)
    mean_return = float(at_random.episodes.mean_returns().mean())
    horizon, mean_return = distributed.told((at_random.horizon(), mean_return))
    config = replace(config, algo=_with_gamma(config.algo, horizon))
    training = _training(config, envs, eval_env, device, mean_return)
    training.agent.initialize_statistics({name: distributed.part(x) for name, x in at_random.obs.items()})
    origin = {"init_from": transfer.take_over(training.agent, config.init_from)} if config.init_from else {}
    with distributed.together(UsageError, EnvironmentFailure), distributed.alone():
        if distributed.leads():
            _begin_folder(folder, training, at_random, origin)
    return training


def _begin_folder(
    folder: RunFolder, training: Training, at_random: baselines.RandomPlay, origin: dict[str, Any]
) -> None:
    """The folder's first files, and what is measured for them."""
    config, envs, eval_env = training.config, training.envs, training.eval_env
    if training.watched:
        origin["preflight"] = preflight.inspect(training.agent, eval_env, at_random, config.seed)
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
        baselines=baselines.measure(eval_env, at_random, config.seed),
        spec=spec_to_dict(envs.spec),
        returns=[],
        **origin,
    )


def resume(path: Path, total_steps: int | None = None, quiet: bool = False) -> Run:
    """Go on with a run, exactly as if it had never stopped. Raises UsageError where that cannot be."""
    folder = RunFolder.open(path)
    config = replace(configs.read_run(folder.config), quiet=quiet)
    with distributed.joined(_device(config.device)) as device, signals_taken() as signals:
        with distributed.together(UsageError):
            if distributed.leads():
                folder.lock()
        try:
            training, warnings = _reload(folder, config, device, total_steps)
        except BaseException:
            folder.release()
            raise
        return _conduct(folder, training, signals, training.steps, warnings)


def _reload(
    folder: RunFolder, config: RunConfig, device: torch.device, total_steps: int | None
) -> tuple[Training, list[str]]:
    """The training as its newest good checkpoint has it, and warnings where that is not all of `last.pt`."""
    ended = folder.metadata.get("status") == "finished" or total_steps not in (None, config.total_steps)
    config = config if total_steps is None else replace(config, total_steps=total_steps)
    config = threads.settle(config, device)
    state, warnings = _load(folder, device)
    if ended and state["steps"] >= config.total_steps:  # else it was interrupted in its last evaluation
        where = f"{str(folder.path)!r} has {state['steps']} of {config.total_steps} steps"
        raise UsageError(f"{where}; add --total-steps to train longer.")
    envs, eval_env = _environments(config, device)
    random = (folder.metadata.get("baselines") or {}).get("random") or {}
    training = _training(config, envs, eval_env, device, random.get("return"))
    warnings += _restore(folder, training, state)
    if distributed.leads():
        launch = distributed.launch()
        folder.begin(configs.write(config), total_steps=config.total_steps, **({"launch": launch} if launch else {}))
        folder.diagnosis.unlink(missing_ok=True)  # it was of the run as it stood
    return training, warnings


def _load(folder: RunFolder, device: torch.device) -> tuple[dict[str, Any], list[str]]:
    """The newest good checkpoint, and a warning where it is not `last.pt`; the first process sets a bad one aside."""
    for turn in (True, False):
        with distributed.together(UsageError):
            if distributed.leads() is turn:
                state, warning = load_newest(folder.checkpoints, device)
    return state, [warning] if warning else []


def _restore(folder: RunFolder, training: Training, state: dict[str, Any]) -> list[str]:
    """Go on where `state` was taken; a warning where more or fewer processes do than before."""
    others = state.get("others", [])
    rank, now, before = distributed.rank(), distributed.world_size(), 1 + len(others)
    if now != before:
        training.take_over(state["training"])
        load_divided(folder.replay, training.agent.rings(), before)
        return [
            f"{before} processes trained this run so far, and {now} go on: with what was learned, in new episodes, and "
            "not bit for bit as before."
        ]
    training.load_state_dict(with_own(state["training"], others[rank - 1]) if rank else state["training"])
    rings = training.agent.rings()
    ReplayFiles(own_folder(folder.replay, rank, now), rings).load(rings)
    return []


def _conduct(
    folder: RunFolder,
    training: Training,
    signals: Signals,
    resumed_at: int | None = None,
    warnings: Sequence[str] = (),
) -> Run:
    """Train with a terminal, files, signals and a final word; of several processes, the first."""
    if not distributed.leads():
        return _follow(folder, training, signals, resumed_at)
    config = training.config
    shown = {name: found["return"] for name, found in folder.metadata["baselines"].items() if found is not None}
    watch = Stopwatch() if config.profile else None
    status, reason = "failed", ""
    with Progress(config.total_steps, training.steps, config.quiet) as progress:
        observer = RunObserver(folder, progress, shown, resumed_at, None if _evaluated(training) else "eval/")
        observer.begin(training)
        if resumed_at is None:
            _shorten_first_steps(folder, training, observer)
            observer.save(training)  # a run killed before its first checkpoint can go on as well
        for warning in warnings:
            progress.warn(warning)
        if resumed_at is None and "init_from" in folder.metadata:
            progress.note(transfer.in_words(folder.metadata["init_from"]))
        for copy in training.envs.replay_differs:
            where = {"copy": copy}
            observer.happened(Incident(training.steps, "replay_differs", where, 1.0, 0.0, "restarted", {}))
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
        if status == "finished" and not _evaluated(training) and not evaluate(training, observer, signals):
            status = "interrupted"
    except (EnvironmentFailure, Stopped) as error:
        loop.report_failures(training, observer)
        observer.save(training)
        return "stopped", str(error)
    return status, ""


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
    copies, algo = config.env.num_envs, config.algo
    assert isinstance(algo, MAPPOConfig | MADDPGConfig)
    distributed.divided(algo.batch_size, "algo.batch_size")
    envs = catalog.make(config.env, device, distributed.divided(copies, "env.num_envs"))
    return envs, catalog.make(config.env, device, min(copies, config.eval_episodes))


def _training(
    config: RunConfig, envs: BatchedEnv, eval_env: BatchedEnv, device: torch.device, random_return: float | None
) -> Training:
    algo = config.algo
    assert isinstance(algo, ActorCriticConfig)
    refuse, watch = config.stability in ("guard", "repair"), config.stability != "off"
    agent = algorithm(algo.name)(envs.spec, algo, envs.num_envs, device, config.seed, refuse, watch)
    if config.compile and distributed.world_size() == 1:  # messages between processes are no part of a recording
        agent.compile()
    first = envs.reset(distributed.own_seed(config.seed))
    return Training(config, agent, envs, eval_env, first, random_return=random_return)


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
