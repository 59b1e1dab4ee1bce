"""What a run is made of, as frozen dataclasses, and the one rule by which text becomes their values.

The command line, YAML presets and ``ms.train(...)`` all go through :func:`override`, so a value means the same
wherever it is written, and a mistake is refused with the same sentence.
"""

from __future__ import annotations

import difflib
import json
import math
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from marl_stable.types import UsageError

Activation = Literal["tanh", "relu", "leaky_relu", "elu", "gelu", "silu"]
Norm = Literal["none", "layer", "batch"]
Block = Literal["plain", "residual"]
Init = Literal["orthogonal", "xavier", "he"]
Memory = Literal["none", "gru", "lstm"]


@dataclass(frozen=True)
class NetworkConfig:
    """Shape and start of a network."""

    hidden: tuple[int, ...] = (128, 128)
    """Width of each hidden layer; with `block residual`, one block per entry, all of the first width."""
    norm: Norm = "layer"
    """Normalisation in hidden layers. Bounds what one layer hands to the next; costs a little speed. batch: by running
    statistics that move between updates only, for acting, learning and targets alike."""
    block: Block = "plain"
    """`residual` adds each block to its input, with the norm before it (SimBa). Worth it beyond three layers."""
    activation: Activation = "tanh"
    """Non-linearity of hidden layers."""
    init: Init = "orthogonal"
    """Initialisation of hidden layers."""
    final_init: float | None = 3e-3
    """Half-width of the uniform that starts the last layer; none: like a hidden layer. Large values let early
    updates pin actions at their bounds."""
    recurrent: Memory = "none"
    """A cell after the hidden layers that remembers within an episode (MAPPO and IPPO only). For tasks where what is
    seen now does not tell what to do; costs speed."""


@dataclass(frozen=True)
class NetworkOverride:
    """Fields of `algo.network` that hold for one network only; unset fields follow `algo.network`."""

    hidden: tuple[int, ...] | None = None
    """Width of each hidden layer."""
    norm: Norm | None = None
    """Normalisation in hidden layers."""
    block: Block | None = None
    """Plain or residual blocks."""
    activation: Activation | None = None
    """Non-linearity of hidden layers."""
    init: Init | None = None
    """Initialisation of hidden layers."""
    final_init: float | None = None
    """Half-width of the uniform that starts the last layer."""
    recurrent: Memory | None = None
    """A cell that remembers within an episode."""

    def over(self, base: NetworkConfig) -> NetworkConfig:
        """`base` with the fields set here."""
        return replace(base, **{f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None})


@dataclass(frozen=True)
class EnvConfig:
    """The environment and how many copies of it run at once."""

    id: str = "particle/simple_spread_v3"
    """Environment, `--env` for short: see `marl-stable envs`; or package.module:factory, path/to/file.py:factory."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments for the environment, as JSON."""
    num_envs: int | Literal["auto"] = "auto"
    """Copies stepped together. auto: 256 on the device, 32 for environments written in Python. The amount of data
    per update does not depend on it (`algo.batch_size`)."""
    workers: int = 0
    """Processes that step the copies of an environment written in Python, never more than copies; results do not depend
    on it. 0: in this process, where an environment that fails in training ends the run at once."""
    step_timeout: float = 60.0
    """Seconds after which workers that have not finished one step (or one reset) count as hung and are replaced."""
    max_failures: int = 10
    """Failures of workers, and of environments in them, that a run survives, each at the price of the episodes it hits
    (training and evaluation count apart). Too few: rare crashes end long runs; too many: a broken one goes on."""
    time_limit_as: Literal["truncation", "termination"] | None = None
    """Reads every episode end as this, for environments that mislabel theirs; unset: believe the environment."""
    teams: dict[str, Any] | None = None
    """Who belongs together, as {"team": ["agent", ...]} with every agent once; unset: a table for known environments,
    else the environment's attribute `teams`, else one team."""
    reward: Literal["own", "mean"] = "own"
    """What agents learn from: own: each from its own reward; mean: all from the mean over their team. Returns,
    evaluations and logged rewards are each agent's own either way."""


@dataclass(frozen=True)
class AlgoConfig:
    """What all algorithms have in common for the run: a name. Their own fields are in `agents/config.py`."""

    name: str = ""
    """Algorithm, `--algo` for short: see `marl-stable algos`."""


@dataclass(frozen=True)
class RunConfig:
    """One training run."""

    algo: AlgoConfig
    env: EnvConfig = EnvConfig()
    total_steps: int = 1_000_000
    """Environment steps (all copies together); training ends at the first iteration boundary at or after it."""
    seed: int = 1
    """Seed of everything random in the run."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks, storage and batched environments live; auto: cuda where there is one."""
    threads: int = 1
    """Threads torch uses inside one operation. More than one is often many times slower on small networks."""
    measures: Literal["default", "none"] = "default"
    """none: the plain algorithm, without any stability measure; later flags add single measures again."""
    stability: Literal["off", "monitor", "guard", "repair"] = "guard"
    """off: nothing watched; monitor: warns when actions repeat; guard: also refuses non-finite updates."""
    eval_every: int = 100_000
    """Steps between evaluations; 0: only at the end."""
    eval_episodes: int = 100
    """Greedy episodes per evaluation."""
    checkpoint_every: int = 250_000
    """Steps between checkpoints; the end of the run and an interruption always save."""
    init_from: str | None = None
    """Run folder whose weights and normalisers this run begins with (best checkpoint, else last). Optimisers,
    counters and schedules start anew."""
    run_dir: str | None = None
    """The run folder itself; default runs/ENV/ALGO/TIME-sSEED."""
    quiet: bool = False
    """No progress bar and no summary; warnings still appear."""
    profile: bool = False
    """Measures where the time goes and prints the table at the end."""

    def __post_init__(self) -> None:
        require(self.total_steps > 0, "total_steps", self.total_steps, "a positive number of steps")
        require(self.threads > 0, "threads", self.threads, "at least 1")
        require(self.eval_every >= 0, "eval_every", self.eval_every, "0 (only at the end) or a number of steps")
        require(self.eval_episodes > 0, "eval_episodes", self.eval_episodes, "at least 1")
        require(self.checkpoint_every > 0, "checkpoint_every", self.checkpoint_every, "a positive number of steps")
        require(0 <= self.seed < 2**31, "seed", self.seed, "a whole number from 0 to 2147483647")
        copies = self.env.num_envs
        require(copies == "auto" or copies > 0, "env.num_envs", copies, "auto or at least 1")
        require(self.env.workers >= 0, "env.workers", self.env.workers, "0 (in this process) or a number of processes")
        require(self.env.step_timeout > 0, "env.step_timeout", self.env.step_timeout, "a positive number of seconds")
        require(self.env.max_failures >= 0, "env.max_failures", self.env.max_failures, "0 (none survived) or more")


ConfigT = TypeVar("ConfigT")


def require(holds: bool, key: str, value: object, wanted: str) -> None:
    """Refuse a value that is out of range, naming the key, the value and what is allowed."""
    if not holds:
        raise UsageError(f"{key} is {value!r}; it must be {wanted}.")


def unknown(kind: str, name: str, known: Iterable[str], remedy: str = "") -> UsageError:
    """The error for a misspelt name, with the nearest known ones."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return UsageError(f"unknown {kind} {name!r}.{hint}{' ' + remedy if remedy else ''}")


def override(base: ConfigT, values: Mapping[str, Any], prefix: str = "") -> ConfigT:
    """A copy of the dataclass instance `base` with `values` (nested mappings, keys with `_`) put in.

    Raises UsageError for an unknown key (with the nearest known ones) and for a value of the wrong type.
    """
    hints = get_type_hints(type(base))
    changed: dict[str, Any] = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        path = f"{prefix}{name}"
        if name not in hints:
            raise unknown("configuration key", path, keys(base, prefix))
        current = getattr(base, name)
        if is_dataclass(current):
            if not isinstance(value, Mapping):
                raise UsageError(f"{path} is {value!r}; it must be a section with keys of its own.")
            changed[name] = override(current, value, f"{path}.")
        else:
            changed[name] = convert(value, hints[name], path)
    return replace(base, **changed)  # type: ignore[type-var]


def convert(value: Any, wanted: Any, key: str) -> Any:
    """`value` (text, or what YAML, JSON and Python give) as the annotated type `wanted`; UsageError otherwise."""
    for choice in sorted(_choices(wanted), key=lambda choice: choice is str):  # text fits everything, so it comes last
        try:
            return _convert_one(value, choice)
        except (ValueError, TypeError):
            continue
    raise UsageError(f"{key} is {value!r}; it must be {describe(wanted)}.")


def describe(wanted: Any) -> str:
    """The values of a type in words, as shown in help and in errors."""
    names = {int: "a whole number", float: "a number", bool: "on|off", str: "text", type(None): "none"}
    parts = []
    for choice in _choices(wanted):
        origin = get_origin(choice)
        if origin is Literal:
            parts.append("|".join(str(option) for option in get_args(choice)))
        elif origin is tuple:
            parts.append("numbers such as 64,64" if get_args(choice)[0] is int else "two numbers such as 0.9,0.999")
        elif origin is dict:
            parts.append('JSON such as {"N": 3}')
        elif names[choice] not in "|".join(parts).split("|"):  # a Literal may have a none of its own
            parts.append(names[choice])
    return " or ".join(parts)


def keys(base: Any, prefix: str = "") -> list[str]:
    """Every key of a configuration, dotted."""
    return [prefix + name for name, _ in leaves(base)]


def leaves(base: Any) -> Iterator[tuple[str, Any]]:
    """Every (dotted key, value) of a configuration, in the order of the fields."""
    for f in fields(base):
        value = getattr(base, f.name)
        if is_dataclass(value):
            yield from ((f"{f.name}.{name}", leaf) for name, leaf in leaves(value))
        else:
            yield f.name, value


def kinds(base: Any) -> Iterator[tuple[str, Any]]:
    """Every (dotted key, annotated type) of a configuration, in the order of the fields."""
    hints = get_type_hints(type(base))
    for f in fields(base):
        value = getattr(base, f.name)
        if is_dataclass(value):
            yield from ((f"{f.name}.{name}", kind) for name, kind in kinds(value))
        else:
            yield f.name, hints[f.name]


def to_dict(base: Any) -> dict[str, Any]:
    """The configuration as plain nested dictionaries, as it is written to YAML; unset (None) overrides left out."""
    plain: dict[str, Any] = {}
    for f in fields(base):
        value = getattr(base, f.name)
        if is_dataclass(value):
            if section := to_dict(value):
                plain[f.name] = section
        elif value is not None or f.default is not None:
            plain[f.name] = list(value) if isinstance(value, tuple) else value
    return plain


def _choices(wanted: Any) -> tuple[Any, ...]:
    return get_args(wanted) if get_origin(wanted) in (Union, types.UnionType) else (wanted,)


def _convert_one(value: Any, wanted: Any) -> Any:
    origin = get_origin(wanted)
    if origin is Literal:
        return _literal(value, get_args(wanted))
    if origin is tuple:
        return _numbers(value, get_args(wanted))
    if origin is dict:
        return _mapping(value)
    return _SCALARS[wanted](value)


def _literal(value: Any, options: tuple[Any, ...]) -> Any:
    if value is False and "off" in options:  # YAML 1.1 habits: an unquoted off
        value = "off"
    if value is None and "none" in options:
        value = "none"
    if value not in options:
        raise ValueError
    return value


def _bool(value: Any) -> bool:
    table = {"on": True, "off": False, "true": True, "false": False, True: True, False: False}
    if isinstance(value, str | bool) and value in table:
        return table[value]
    raise ValueError


def _int(value: Any) -> int:
    number = _float(value)
    if number != int(number):
        raise ValueError
    return int(value) if isinstance(value, int) else int(number)


def _float(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _str(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _none(value: Any) -> None:
    if value is not None and value != "none":
        raise ValueError


def _numbers(value: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    items = value.split(",") if isinstance(value, str) else list(value) if isinstance(value, list | tuple) else [value]
    if args[-1] is not Ellipsis and len(items) != len(args):
        raise ValueError
    return tuple(_SCALARS[args[0]](item) for item in items)


def _mapping(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        value = json.loads(value)
    if not isinstance(value, Mapping):
        raise ValueError
    return {str(key): item for key, item in value.items()}


_SCALARS: dict[Any, typing.Callable[[Any], Any]] = {
    bool: _bool,
    int: _int,
    float: _float,
    str: _str,
    type(None): _none,
}
