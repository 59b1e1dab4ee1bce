"""The commands. Only this file knows the command-line library; torch is loaded by the commands that need it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from marl_stable import configs
from marl_stable.agents.config import ALGORITHMS
from marl_stable.config import RunConfig, convert, describe, keys, unknown
from marl_stable.envs import catalog
from marl_stable.types import UsageError

if TYPE_CHECKING:
    from marl_stable.run import Run

EXIT = {"finished": 0, "stopped": 3, "interrupted": 130}
Parsed = TypeVar("Parsed")


@dataclass(frozen=True)
class Evaluate:
    """Play greedy episodes with a trained policy."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder."""
    env: str | None = None
    """Another environment with the same spaces; unset: the run's own."""
    env_kwargs: Annotated[dict[str, Any] | None, tyro.conf.arg(name="env.kwargs")] = None
    """Its arguments, as JSON; unset: the run's own."""
    episodes: int = 100
    """Number of episodes."""
    seed: int = 0
    """Seed of the episodes."""
    checkpoint: Literal["best", "last"] | None = None
    """Which checkpoint; unset: the best, else the last."""
    stochastic: bool = False
    """Draw actions instead of taking the likeliest."""
    json: bool = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Render:
    """Draw greedy episodes as an animation."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder."""
    output: Annotated[str, tyro.conf.arg(aliases=("-o",))]
    """File to write, .gif or .webp."""
    env: str | None = None
    """Another environment with the same spaces; unset: the run's own (a particle/ run is drawn by its mpe2 twin)."""
    episodes: int = 3
    """Number of episodes."""
    seed: int = 0
    """Seed of the first episode."""
    checkpoint: Literal["best", "last"] | None = None
    """Which checkpoint; unset: the best, else the last."""


@dataclass(frozen=True)
class Resume:
    """Go on with a run."""

    resume: str
    """Run folder."""
    total_steps: int | None = None
    """New end, counted from the run's very beginning; unset: as before."""
    quiet: bool = False
    """No progress bar and no summary; warnings still appear."""


@dataclass(frozen=True)
class Listing:
    """List what there is."""

    json: bool = False
    """Print a list of objects with a name."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code of the contract: 0, 2 bad usage, 3 stopped, 130 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if not arguments or arguments[0] in ("-h", "--help", "help"):
            print(_overview())
            return 0 if arguments else 2
        name, *rest = arguments
        if name not in COMMANDS:
            raise unknown("command", name, COMMANDS, "`marl-stable --help` lists them.")
        return COMMANDS[name][0](rest)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def train(arguments: list[str]) -> int:
    """Train agents, or go on with a run (--resume RUN)"""
    if any(a == "--resume" or a.startswith("--resume=") for a in arguments):
        asked = _parse(Resume, "train", arguments)
        from marl_stable import run

        return _exit_code(run.resume(Path(asked.resume), asked.total_steps, asked.quiet))
    config = train_config(arguments)
    from marl_stable import run

    return _exit_code(run.start(config))


def train_config(arguments: list[str]) -> RunConfig:
    """The run that `train [PRESET] [flags]` describes."""
    layers = []
    if arguments and not arguments[0].startswith("-"):
        layers.append(configs.read_preset(arguments[0]))
        arguments = arguments[1:]
    flags = _long_names(arguments)
    chosen = {"algo": {"name": name}} if (name := _value(flags, "--algo.name")) else {}
    measures = {"measures": value} if (value := _value(flags, "--measures")) else {}
    base = configs.resolve(*layers, chosen | measures)
    return _parse(RunConfig, "train [PRESET]", flags, default=base)


def evaluate(arguments: list[str]) -> int:
    """Evaluate a trained policy"""
    asked = _parse(Evaluate, "eval", arguments)
    from marl_stable import showing

    found = showing.evaluate(
        Path(asked.run),
        asked.env,
        asked.env_kwargs,
        asked.episodes,
        asked.seed,
        asked.checkpoint,
        asked.stochastic,
    )
    print(json.dumps(found) if asked.json else showing.in_words(found))
    return 0


def render(arguments: list[str]) -> int:
    """Draw greedy episodes as GIF or WebP"""
    asked = _parse(Render, "render", arguments)
    from marl_stable import showing

    output = Path(asked.output)
    showing.render(Path(asked.run), output, asked.env, asked.episodes, asked.seed, asked.checkpoint)
    print(output)
    return 0


def envs(arguments: list[str]) -> int:
    """List environments"""
    return _list("envs", arguments, dict(catalog.ids()))


def algos(arguments: list[str]) -> int:
    """List algorithms"""
    return _list("algos", arguments, {name: (kind.__doc__ or "") for name, kind in ALGORITHMS.items()})


def presets(arguments: list[str]) -> int:
    """List shipped presets"""
    return _list("presets", arguments, configs.presets())


COMMANDS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "train": (train, "[PRESET] [flags] | --resume RUN [--total-steps N]"),
    "eval": (evaluate, "RUN [--env ID] [--episodes N] [--json]"),
    "render": (render, "RUN -o FILE.gif"),
    "envs": (envs, "[--json]"),
    "algos": (algos, "[--json]"),
    "presets": (presets, "[--json]"),
}


def _overview() -> str:
    lines = ["usage: marl-stable COMMAND ...", ""]
    lines += [f"  {name:8} {usage:52} {run.__doc__}" for name, (run, usage) in COMMANDS.items()]
    return "\n".join([*lines, "", "marl-stable COMMAND --help explains a command and its flags."])


def _list(command: str, arguments: list[str], entries: dict[str, str]) -> int:
    asked = _parse(Listing, command, arguments)
    if asked.json:
        print(json.dumps([{"name": name, "description": text} for name, text in entries.items()]))
    else:
        width = max(len(name) for name in entries)
        print("\n".join(f"{name:{width}}  {text}" for name, text in entries.items()))
    return 0


def _exit_code(run: Run) -> int:
    return EXIT[run.status]


def _parse(kind: type[Parsed], command: str, arguments: list[str], default: Parsed | None = None) -> Parsed:
    """Flags as an instance of a dataclass; UsageError with the nearest flags for one that is unknown."""
    switches = _switches(default if default is not None else kind)
    arguments = [word for i, word in enumerate(arguments) for word in _with_on(arguments, i, switches)]
    given: dict[str, Any] = {} if default is None else {"default": default}
    parsed: Parsed
    parsed, rest = tyro.cli(
        kind,
        prog=f"marl-stable {command}",
        args=arguments,
        return_unknown_args=True,
        registry=_registry(),
        config=(tyro.conf.FlagConversionOff, tyro.conf.AvoidSubcommands),
        **given,
    )
    if rest:
        known = ["--" + key.replace("_", "-") for key in keys(default if default is not None else parsed)]
        raise unknown(
            "flag", rest[0].partition("=")[0], known, f"`marl-stable {command.split()[0]} --help` lists them."
        )
    return parsed


def _registry() -> ConstructorRegistry:
    """One rule for every value: `config.convert`, which YAML and Python go through as well."""
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def convert_any(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        try:
            words = describe(info.type)
        except KeyError:
            return None

        def read(texts: list[str]) -> Any:
            try:
                return convert(texts[0], info.type, "the value")
            except UsageError as error:
                raise ValueError(str(error)) from error

        return PrimitiveConstructorSpec(
            nargs=1,
            metavar=_metavar(words),
            instance_from_str=read,
            is_instance=lambda value: True,
            str_from_instance=lambda value: [_text(value)],
        )

    return registry


def _metavar(words: str) -> str:
    for long, short in (("a whole number", "INT"), ("a number", "FLOAT"), ("text", "TEXT"), (" or ", "|")):
        words = words.replace(long, short)
    return words


def _switches(described: Any) -> set[str]:
    """Flags whose values are on and off."""
    return {"--" + f.name.replace("_", "-") for f in fields(described) if f.type in (bool, "bool")}


def _with_on(arguments: list[str], i: int, switches: set[str]) -> list[str]:
    """The i-th word, and `on` after a switch that is given without a value, as in `--json`."""
    following = arguments[i + 1] if i + 1 < len(arguments) else ""
    bare = arguments[i] in switches and following not in ("on", "off", "true", "false")
    return [arguments[i], "on"] if bare else [arguments[i]]


def _text(value: Any) -> str:
    """A value as it would be typed."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value)
    if isinstance(value, dict):
        return json.dumps(value)
    return "none" if value is None else str(value)


def _long_names(arguments: list[str]) -> list[str]:
    """`--algo X` and `--env X` name the keys `algo.name` and `env.id`."""
    short = {"--algo": "--algo.name", "--env": "--env.id"}
    return ["=".join([short.get(head, head), *tail]) for head, *tail in (a.split("=", 1) for a in arguments)]


def _value(flags: list[str], name: str) -> str | None:
    """The value of a flag that decides how the others are read."""
    for flag, following in zip(flags, [*flags[1:], ""], strict=True):
        if flag == name:
            return following
        if flag.startswith(name + "="):
            return flag.partition("=")[2]
    return None
