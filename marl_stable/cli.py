"""The commands. Torch is loaded by those that need it, and only once their arguments are in order."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from marl_stable import configs, flags
from marl_stable.agents.config import ALGORITHMS, default_config
from marl_stable.config import RunConfig
from marl_stable.conversion import unknown
from marl_stable.envs import catalog
from marl_stable.report.files import require_writable, to_json, write_page
from marl_stable.sweep import grid, search
from marl_stable.types import EnvironmentFailure, UsageError

if TYPE_CHECKING:
    from marl_stable.run import Run

EXIT = {"finished": 0, "stopped": 3, "interrupted": 130}
LADDER_ONLY = ("rung_steps", "seeds", "json")
SWEEP_ONLY = ("seeds", "grid", "jobs", "study", "study_name", "search", "trials", "prune", "json")
STUDY_ONLY = ("study_name", "search", "trials", "prune")
Asked = TypeVar("Asked")


@dataclass(frozen=True)
class Place:
    """Where to play; unset: the run's own environment, with its arguments."""

    id: str | None = None
    """Another environment with the same spaces, `--env` for short."""
    kwargs: dict[str, Any] | None = None
    """Arguments for the environment."""


@dataclass(frozen=True)
class Evaluate:
    """Play greedy episodes with the policy in a run folder."""

    episodes: int = 100
    """Number of episodes."""
    seed: int = 0
    """Seed of the episodes."""
    checkpoint: Literal["best", "last"] | None = None
    """Which checkpoint; unset: the best, else the last."""
    stochastic: bool = False
    """Draw actions instead of taking the likeliest."""
    against: str | None = None
    """Opponent that acts for all other teams: a run folder (its best checkpoint, else its last), or random."""
    team: str | None = None
    """Team that RUN acts for, with --against."""
    json: bool = False
    """Print one JSON object."""
    env: Place = Place()


@dataclass(frozen=True)
class Render:
    """Draw greedy episodes of the policy in a run folder; a particle/ run is drawn by its mpe2 twin."""

    output: str | None = None
    """File to write, .gif or .webp; `-o` for short."""
    episodes: int = 3
    """Number of episodes."""
    seed: int = 0
    """Seed of the first episode."""
    checkpoint: Literal["best", "last"] | None = None
    """Which checkpoint; unset: the best, else the last."""
    env: Place = Place()


@dataclass(frozen=True)
class Ladder(RunConfig):
    """Train the plain network and then each measure on top of the former, briefly; say which are enough."""

    rung_steps: int | None = None
    """Steps of each rung; unset: a fifth of total_steps."""
    seeds: int = 1
    """Runs of each rung, with the seeds from `seed` on."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Sweep(RunConfig):
    """Train seeds and grids of settings, several runs at once; with the same --run-dir, go on where it was stopped.
    With --study, search ranges of settings, on any number of machines at once; the same command goes on."""

    run_dir: str | None = None
    """The folder for all runs, each in one of its own; default runs/sweep-TIME, and for a study runs/NAME."""
    seeds: str | None = None
    """Seeds of every point, such as 1,2,3 or 1..5; unset: `seed` alone."""
    grid: str | None = None
    """KEY=V1,V2 for any flag of train, or several of them: every combination is a point. Where values hold commas
    themselves, `;` is between them: "algo.network.hidden=64,64;128,128"."""
    jobs: int | None = None
    """Runs at once; unset: as many as there are cores for their threads and workers, and 1 on a GPU."""
    study: str | None = None
    """Where an Optuna study is kept that processes with this same command share: a database's URL such as
    sqlite:///study.db, or a journal file, for disks that machines share. Needs marl_stable[optuna]."""
    study_name: str | None = None
    """Its name there; unset: that of the file or database."""
    search: str | None = None
    """KEY=LOW..HIGH, KEY=log:LOW..HIGH or KEY=V1,V2 for any flag of train, or several of them: what trials draw."""
    trials: int | None = None
    """Trials of the study, from all machines together; unset: 50."""
    prune: bool = False
    """Spares a trial its other seeds where, over those that have ended, it is worse than the median of other trials."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Resume:
    """Go on with the run in a folder, with the configuration that it has."""

    resume: str | None = None
    """Run folder."""
    total_steps: int | None = None
    """New end, counted from the run's very beginning; unset: as before."""
    quiet: bool = False
    """No progress bar and no summary; warnings still appear."""


@dataclass(frozen=True)
class Diagnose:
    """Say what went wrong in a run, running, finished or crashed: why, since when, and what to change. Reads only."""

    experiment: bool = False
    """Try one remedy after the other, in short trainings beside an unchanged one: minutes. Leaves the run alone."""
    json: bool = False
    """Print the content of diagnosis.json."""


@dataclass(frozen=True)
class Made:
    """How the environment is made."""

    kwargs: dict[str, Any] | None = None
    """Arguments for the environment."""


@dataclass(frozen=True)
class Check:
    """Examine an environment in under a minute, without training. Exit code 1 where training would be wrong or fail."""

    json: bool = False
    """Print one JSON object."""
    env: Made = Made()


@dataclass(frozen=True)
class Reward:
    """Ask whether it is the reward, of an environment or of a run's: terms, baselines, who moves what, what pays.
    Trains nothing; about a minute."""

    json: bool = False
    """Print one JSON object."""
    expert: str | None = None
    """A scripted policy to compare with, FILE.py:policy: observations by agent to actions by agent."""
    metric: str | None = None
    """A number in infos[agent] that is to rise, with a run or an expert: is what is paid more also better?"""
    html: str | None = None
    """File for a page with pictures: terms over an episode, shares, what each action changes, terms over training."""
    env: Made = Made()


@dataclass(frozen=True)
class Chosen:
    """Which algorithm; unset: all."""

    name: str | None = None
    """Only this algorithm, `--algo` for short."""


@dataclass(frozen=True)
class Selftest:
    """Play tiny games with known answers and take updates apart, for every algorithm: is the machinery sound here?"""

    json: bool = False
    """Print one JSON object."""
    algo: Chosen = Chosen()


@dataclass(frozen=True)
class Listing:
    """List what there is, one a line."""

    json: bool = False
    """Print a list of objects with a name."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code of the contract: 0, 2 bad usage, 3 stopped, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        with _terminable():
            return _run_command(words)
    except (UsageError, EnvironmentFailure) as error:
        print("error:", " ".join(str(error).splitlines()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _run_command(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        _say(_overview())
        return 0 if words else 2
    name, *rest = words
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS, "`marl-stable --help` lists them.")
    return COMMANDS[name][0](rest)


def train(words: list[str]) -> int:
    """Train agents, or go on with a run (--resume RUN)"""
    if any(word == "--resume" or word.startswith("--resume=") for word in words):
        others, asked = _read(words, Resume(), "train")
        _refuse(others, "train")
        from marl_stable import run

        return _exit_code(run.resume(Path(asked.resume or ""), asked.total_steps, asked.quiet))
    config = train_config(words)
    catalog.require_known(config.env.id)
    from marl_stable import run

    return _exit_code(run.start(config))


def ladder(words: list[str]) -> int:
    """Try the measures one after the other, from the plain network upward"""
    asked = _configured(words, "ladder", lambda base: Ladder(**_fields(base)))
    catalog.require_known(asked.env.id)
    from marl_stable import ladder as steps

    config = _run_config(asked, LADDER_ONLY)
    return 0 if steps.report(config, asked.rung_steps, asked.seeds, asked.json, _say) else EXIT["interrupted"]


def sweep(words: list[str]) -> int:
    """Train seeds and grids of settings, several at once"""
    rest, axes = grid.taken(words)
    rest, ranges = grid.taken(rest, search.FLAG, search.SHAPE)
    searched = search.axes(ranges)

    def asked_with(settings: dict[str, str]) -> Sweep:
        asked = _configured([*rest, *grid.flags(settings)], "sweep", lambda base: Sweep(**_fields(base)))
        catalog.require_known(asked.env.id)
        return asked

    combinations = search.corners(searched) if searched else grid.points(axes)
    found = [(settings, asked_with(settings)) for settings in combinations]
    first = found[0][1]
    seeds = grid.seeds(first.seeds) if first.seeds is not None else [first.seed]
    _require_whole(first, bool(axes), bool(searched))
    answer = _say if first.json else None
    if first.study is not None:
        from marl_stable.sweep import study_command

        def configured(settings: dict[str, str]) -> RunConfig:
            return _run_config(asked_with(settings), SWEEP_ONLY)

        asked = (first.study, first.study_name, searched, configured, seeds, first.trials, first.prune, first.jobs)
        config = _run_config(first, SWEEP_ONLY)
        return study_command.take_part(study_command.Search(*asked), config, words, answer, _tell)
    from marl_stable.sweep import command
    from marl_stable.sweep.plan import Point

    points = [Point(settings, _run_config(asked, SWEEP_ONLY)) for settings, asked in found]
    return command.sweep(points, seeds, first.jobs, words, answer, _tell)


def _require_whole(asked: Sweep, gridded: bool, searched: bool) -> None:
    """Flags of a study belong together."""
    if asked.study is None:
        alone = [name for name in STUDY_ONLY if (name == "search" and searched) or getattr(asked, name)]
        if alone:
            raise UsageError(f"--{alone[0].replace('_', '-')} needs a study; name where it is kept with --study.")
    elif gridded:
        raise UsageError("--grid trains every combination and --study searches; give --search instead of --grid.")
    elif not searched:
        raise UsageError(f"--study needs something to search; add --search {search.SHAPE}.")


def train_config(words: list[str]) -> RunConfig:
    """The run that `train [PRESET] [flags]` describes."""
    return _configured(words, "train", lambda base: base)


def _configured(words: list[str], command: str, defaults: Callable[[RunConfig], Asked]) -> Asked:
    """What `COMMAND [PRESET] [flags]` asks for, by flags over what `defaults` makes of the preset."""
    layers = []
    if words and not words[0].startswith("-"):
        layers.append(configs.read_preset(words[0]))
        words = words[1:]
    algorithm, measures = flags.find(words, "--algo.name"), flags.find(words, "--measures")
    first = {"algo": {"name": algorithm}} if algorithm else {}  # it decides which flags there are
    base = configs.resolve(*layers, first | ({"measures": measures} if measures else {}))
    others, config = _read(words, defaults(base), command)
    _refuse(others, command)
    return config


def evaluate(words: list[str]) -> int:
    """Evaluate a trained policy"""
    others, asked = _read(words, Evaluate(), "eval")
    run = _run_folder(others, "eval")
    from marl_stable import showing

    place = asked.env
    found = showing.evaluate(
        run,
        place.id,
        place.kwargs,
        asked.episodes,
        asked.seed,
        asked.checkpoint,
        asked.stochastic,
        asked.against,
        asked.team,
    )
    _say(to_json(found) if asked.json else showing.in_words(found))
    return 0


def render(words: list[str]) -> int:
    """Draw greedy episodes as GIF or WebP"""
    others, asked = _read(words, Render(), "render")
    run = _run_folder(others, "render")
    if asked.output is None:
        raise UsageError("-o has no value; render needs a file to write, such as -o episode.gif.")
    from marl_stable import showing

    place, output = asked.env, Path(asked.output)
    showing.render(run, output, place.id, place.kwargs, asked.episodes, asked.seed, asked.checkpoint)
    _say(str(output))
    return 0


def diagnose(words: list[str]) -> int:
    """Say what went wrong in a run, and why"""
    others, asked = _read(words, Diagnose(), "diagnose")
    run = _run_folder(others, "diagnose")
    from marl_stable import diagnosing
    from marl_stable.report.page import page

    if asked.experiment:
        from marl_stable import experiment

        found = experiment.examine(run, _tell)[0]
    else:
        found = diagnosing.diagnose_run(run)
    _say(to_json(found, indent=2) if asked.json else page(found, str(run)))
    return 0


def check(words: list[str]) -> int:
    """Examine an environment before anything is trained"""
    others, asked = _read(words, Check(), "check")
    env = _environment(others, "check")
    from marl_stable.investigate.doctor.checkup import examine
    from marl_stable.report.checkup_page import page

    found = examine(env, asked.env.kwargs or {})
    told = found.as_dict()
    _say(to_json(told, indent=2) if asked.json else page(told, found.played()))
    return 0 if told["passed"] else 1


def reward(words: list[str]) -> int:
    """Say whether it is the reward"""
    others, asked = _read(words, Reward(), "reward")
    if not others:
        raise UsageError("ENV_OR_RUN is missing; reward needs an environment or a run folder (see `marl-stable envs`).")
    _refuse(others[1:], "reward")
    if not Path(others[0]).is_dir():
        catalog.require_known(others[0])
    pictures = None if asked.html is None else require_writable(asked.html)
    from marl_stable.investigate.reward import debugging
    from marl_stable.report import reward_html
    from marl_stable.report.reward_page import page

    found = debugging.examine(others[0], asked.env.kwargs, asked.expert, asked.metric, pictures is not None)
    if pictures is not None:
        write_page(pictures, reward_html.page(found, others[0]))
    _say(to_json(found, indent=2) if asked.json else page(found, others[0]))
    return 0


def selftest(words: list[str]) -> int:
    """Play games with known answers, with every algorithm"""
    others, asked = _read(words, Selftest(), "selftest")
    _refuse(others, "selftest")
    names = list(ALGORITHMS) if asked.algo.name is None else [default_config(asked.algo.name).name]
    from marl_stable.investigate import selftest as tests

    return 0 if tests.report(names, asked.json, _say) else 1


def envs(words: list[str]) -> int:
    """List environments"""
    return _list("envs", words, dict(catalog.ids()))


def algos(words: list[str]) -> int:
    """List algorithms"""
    return _list("algos", words, {name: (kind.__doc__ or "") for name, kind in ALGORITHMS.items()})


def presets(words: list[str]) -> int:
    """List shipped presets"""
    return _list("presets", words, configs.presets())


COMMANDS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "train": (train, "[PRESET] [flags] | --resume RUN [--total-steps N]"),
    "eval": (evaluate, "RUN [--env ID] [--against RUN|random --team TEAM]"),
    "diagnose": (diagnose, "RUN [--experiment] [--json]"),
    "check": (check, "ENV [--env.kwargs JSON] [--json]"),
    "reward": (reward, "ENV_OR_RUN [--expert FILE.py:policy] [--metric NAME] [--html FILE]"),
    "ladder": (ladder, "PRESET [flags] [--json]"),
    "sweep": (sweep, "[PRESET] [flags] [--seeds 1..5] [--grid KEY=V1,V2]"),
    "render": (render, "RUN -o FILE.gif"),
    "selftest": (selftest, "[--algo NAME] [--json]"),
    "envs": (envs, "[--json]"),
    "algos": (algos, "[--json]"),
    "presets": (presets, "[--json]"),
}


def _overview() -> str:
    lines = ["usage: marl-stable COMMAND ...", ""]
    lines += [f"  {name:8} {usage:52} {run.__doc__}" for name, (run, usage) in COMMANDS.items()]
    return "\n".join([*lines, "", "marl-stable COMMAND --help explains a command and its flags."])


def _list(command: str, words: list[str], entries: dict[str, str]) -> int:
    others, asked = _read(words, Listing(), command)
    _refuse(others, command)
    if asked.json:
        _say(to_json([{"name": name, "description": text} for name, text in entries.items()]))
    else:
        width = max(len(name) for name in entries)
        _say("\n".join(f"{name:{width}}  {text}" for name, text in entries.items()))
    return 0


def _read(words: list[str], defaults: Asked, command: str) -> tuple[list[str], Asked]:
    """The words that are no flags, and `defaults` with the flags."""
    return flags.read(words, defaults, command, COMMANDS[command][1])


def _run_folder(others: list[str], command: str) -> Path:
    if not others:
        raise UsageError(f"RUN is missing; {command} needs a run folder, and `ls runs` shows yours.")
    _refuse(others[1:], command)
    return Path(others[0])


def _environment(others: list[str], command: str) -> str:
    if not others:
        raise UsageError(f"ENV is missing; {command} needs an environment, and `marl-stable envs` lists them.")
    _refuse(others[1:], command)
    catalog.require_known(others[0])
    return others[0]


def _refuse(others: list[str], command: str) -> None:
    """Words that `command` has no use for."""
    if others:
        usage = f"marl-stable {command} {COMMANDS[command][1]}"
        raise UsageError(f"{others[0]!r} is one word too many; the usage is: {usage}.")


def _fields(config: RunConfig) -> dict[str, Any]:
    return {field.name: getattr(config, field.name) for field in fields(config)}


def _run_config(asked: RunConfig, own: Sequence[str]) -> RunConfig:
    """The run that a command asks for, without the flags of its own."""
    return RunConfig(**{name: value for name, value in _fields(asked).items() if name not in own})


def _exit_code(run: Run) -> int:
    return EXIT[run.status]


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends a command as SIGINT does; a training has its own ways with both."""
    if threading.current_thread() is not threading.main_thread():  # Python lets no other thread set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _tell(text: str) -> None:
    """Print on the way to an answer, where it is not read by programs; nobody has to be there."""
    from marl_stable.report.console import open_console
    from marl_stable.report.terminal import show

    show(text, open_console(sys.stderr))


def _say(text: str) -> None:
    """Print an answer; it is no mistake where nobody reads it to its end, as in `| head`."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it exits
    except OSError as error:
        raise UsageError(f"the answer cannot be written to standard output ({error.strerror}).") from error
