"""What a sweep trains: `--seeds` and `--grid` as text, and the combinations that they mean."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, get_args, get_origin

from marl_stable.agents.config import ALGORITHMS, default_config
from marl_stable.config import RunConfig
from marl_stable.conversion import kinds, unknown
from marl_stable.types import UsageError

SHORT = {"algo": "algo.name", "env": "env.id"}
NOT_SWEPT = {
    "seed": "give seeds by --seeds",
    "run_dir": "each run has a folder of its own below --run-dir",
    "quiet": "it is the same for all runs",
}
SHAPE = "KEY=V1,V2, such as algo.lr=1e-3,3e-4"
MOST_RUNS = 10_000  # a misprint such as 1..50000 must not fill the disk


def taken(words: Sequence[str], flag: str = "--grid", shape: str = SHAPE) -> tuple[list[str], list[str]]:
    """The words of a command without `flag`, and what followed each `flag`: one or several KEY=..., of this `shape`."""
    rest: list[str] = []
    found: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        name, equals, value = word.partition("=")
        if name != flag:
            rest.append(word)
            continue
        axes = [value] if equals else list(itertools.takewhile(lambda other: not other.startswith("-"), left))
        if not axes:
            raise UsageError(f"{flag} has no value; it must be {shape}.")
        found += axes
        left = left if equals else left[len(axes) :]
    return rest, found


def points(axes: Sequence[str]) -> Iterator[dict[str, str]]:
    """Every combination of the axes' values, by key, as typed; without axes a single empty one.

    Raises UsageError for an axis that is malformed, unknown, named twice, or not to be swept over, and for more
    combinations than anyone means.
    """
    values: dict[str, list[str]] = {}
    for key, text in keyed(axes, "--grid", SHAPE):
        values[key] = texts_of(key, text, "--grid")
    require_few(math.prod(map(len, values.values())))
    for chosen in itertools.product(*values.values()):
        yield dict(zip(values, chosen, strict=True))


def flags(settings: dict[str, str]) -> list[str]:
    """A combination as words of a command."""
    return [word for key, text in settings.items() for word in ("--" + key.replace("_", "-"), text)]


def seeds(text: str) -> list[int]:
    """Seeds such as `1,2,3`, `1..5` or both; UsageError where they are none, too many, or one is named twice."""
    ranges = [_range(part.strip(), text) for part in text.split(",")]
    require_few(sum(part.stop - part.start for part in ranges))  # before any is counted out; len() has a limit
    found = [seed for part in ranges for seed in part]
    twice = [seed for seed, times in Counter(found).items() if times > 1]
    if twice:
        raise UsageError(f"seeds is {text!r}; seed {twice[0]} is named twice.")
    return found


def require_few(runs: int) -> None:
    """UsageError for more runs than anyone means."""
    if runs > MOST_RUNS:
        raise UsageError(f"the sweep has {runs:,} runs; it must be at most {MOST_RUNS:,}: give fewer seeds or values.")


def _range(part: str, text: str) -> range:
    first, dots, last = part.partition("..")
    last = last if dots else first
    if not (first.isdecimal() and last.isdecimal()) or int(first) > int(last):
        raise UsageError(f"seeds is {text!r}; it must be seeds such as 1,2,3 or 1..5.")
    return range(int(first), int(last) + 1)


def keyed(axes: Sequence[str], flag: str, shape: str) -> Iterator[tuple[str, str]]:
    """What `flag` was given as (key of the configuration, text); UsageError for a key that cannot be varied."""
    seen = set()
    for axis in axes:
        name, equals, text = axis.partition("=")
        if not (name and equals and text):
            raise UsageError(f"{flag} is {axis!r}; it must be {shape}.")
        key = name.removeprefix("--").replace("-", "_")
        key = SHORT.get(key, key)
        if key in NOT_SWEPT:
            raise UsageError(f"{flag} cannot vary {key}: {NOT_SWEPT[key]}.")
        if key not in kinds_of_flags():
            word = flag.removeprefix("--")
            raise unknown(f"{word} key", key, kinds_of_flags(), "`marl-stable train --help` lists the flags of train.")
        if key in seen:
            raise UsageError(f"{flag} names {key} twice; give all its values in one place.")
        seen.add(key)
        yield key, text


def texts_of(key: str, text: str, flag: str) -> list[str]:
    """The values that `flag` names for `key`, two or more."""
    separator = ";" if _holds_commas(kinds_of_flags()[key]) else ","
    texts = [value.strip() for value in text.split(separator)]
    if len(texts) < 2 or "" in texts:
        remedy = f"two values or more with {separator!r} between them, else a flag --{key.replace('_', '-')}"
        raise UsageError(f"{flag} {key} is {text!r}; it must be {remedy}.")
    return texts


@cache
def kinds_of_flags() -> dict[str, Any]:
    """Every flag of train, whatever the algorithm, and its type."""
    return {key: kind for name in ALGORITHMS for key, kind in kinds(RunConfig(algo=default_config(name)))}


def _holds_commas(kind: Any) -> bool:
    return any(get_origin(choice) in (tuple, dict) for choice in (kind, *get_args(kind)))
