"""The command line of a configuration, made by tyro from its dataclasses. The one file that knows tyro; no torch here.

Every field is a flag: the key `a.b_c` is `--a.b-c`, its values are those of `conversion.convert`, like those of presets
and of Python, and its text below the field is its help. A mistake is one sentence, wherever it was made.
"""

from __future__ import annotations

import itertools
import json
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from marl_stable.conversion import convert, describe, kinds, unknown
from marl_stable.types import UsageError

Asked = TypeVar("Asked")

SHORT = {"--algo": "--algo.name", "--env": "--env.id", "-o": "--output"}
"""Flags that go by a shorter name as well."""
SHORT_WORDS = {
    "a whole number": "INT",
    "a number": "FLOAT",
    "text": "TEXT",
    "numbers such as 64,64": "INT,INT",
    "two numbers such as 0.9,0.999": "FLOAT,FLOAT",
    'JSON such as {"N": 3}': "JSON",
    " or ": "|",
}
SWITCHED = ("on", "off", "true", "false")


class _Unfit(Exception):
    """A value that is not of its flag's type; tyro does not say whose it was."""

    def __init__(self, text: str, wanted: Any) -> None:
        super().__init__(text)
        self.text, self.wanted = text, wanted


def read(words: Sequence[str], defaults: Asked, command: str, usage: str) -> tuple[list[str], Asked]:
    """The words that are no flags, and `defaults` with the flags. With `--help`, prints it and raises SystemExit.

    A switch, a boolean outside of sections, may stand without its value. Raises UsageError for a flag that there is
    not, with the nearest that there are, and for a value that is missing or does not fit.
    """
    known = {"--" + key.replace("_", "-"): kind for key, kind in kinds(defaults)}
    spelt = [part for word in words for part in _long(word)]
    complete = [part for i in range(len(spelt)) for part in _with_value(spelt, i, known, command)]
    width = shutil.get_terminal_size().columns
    texts = (f"marl-stable {command} {usage}", " ".join(str(type(defaults).__doc__).split()))
    try:
        asked, others = tyro.cli(
            type(defaults),
            prog=f"marl-stable {command}",
            description="\n\n".join(textwrap.fill(text, width) for text in texts),
            default=defaults,
            args=complete,
            return_unknown_args=True,
            registry=_one_rule(),
            config=(tyro.conf.FlagConversionOff,),
        )
    except _Unfit as unfit:
        _refuse(complete, known, unfit)
    return others, asked


def find(words: Sequence[str], name: str) -> str | None:
    """The last value given to the flag `name`, read before it is known which other flags there are."""
    spelt = [part for word in words for part in _long(word)]
    values = [value for flag, value in itertools.pairwise(spelt) if flag == name]
    return values[-1] if values else None


def _long(word: str) -> Iterator[str]:
    """A word as flag and value apart, the flag by its long name."""
    if not word.startswith("-"):
        yield word
        return
    name, equals, value = word.partition("=")
    name = SHORT.get(name, name)
    yield name.replace("_", "-") if name.startswith("--") else name
    if equals:
        yield value


def _with_value(words: list[str], i: int, known: dict[str, Any], command: str) -> Iterator[str]:
    """The i-th word, and `on` after a switch that has no value; `known`: flags and the types of their values."""
    word, following = words[i], words[i + 1] if i + 1 < len(words) else "--"
    yield word
    is_value = i > 0 and words[i - 1] in known and not word.startswith("--")  # such as -3
    if is_value or not word.startswith("-") or word in ("-h", "--help"):
        return
    if word not in known:
        names = [*known, *(short for short, long in SHORT.items() if long in known)]
        raise unknown("flag", word, names, f"`marl-stable {command} --help` lists them.")
    if known[word] is bool and "." not in word and following not in SWITCHED:
        yield "on"
    elif following.startswith("--"):
        raise UsageError(f"{word} has no value; it must be {describe(known[word])}.")


def _one_rule() -> ConstructorRegistry:
    """Every value is read by `conversion.convert`."""
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def by_convert(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        try:
            words = describe(info.type)
        except KeyError:  # a section
            return None

        def value(texts: list[str]) -> Any:
            try:
                return convert(texts[0], info.type, "")
            except UsageError as error:
                raise _Unfit(texts[0], info.type) from error

        return PrimitiveConstructorSpec(
            nargs=1,
            metavar=_short(words),
            instance_from_str=value,
            is_instance=lambda _: True,
            str_from_instance=lambda instance: [_as_typed(instance)],
        )

    return registry


def _refuse(words: list[str], known: dict[str, Any], unfit: _Unfit) -> NoReturn:
    wanted = describe(unfit.wanted)
    given = ((flag, value) for flag, value in itertools.pairwise(words) if flag in known)
    flag = next(flag for flag, value in given if value == unfit.text and describe(known[flag]) == wanted)
    raise UsageError(f"{flag} is {unfit.text!r}; it must be {wanted}.") from unfit


def _short(words: str) -> str:
    for long, short in SHORT_WORDS.items():
        words = words.replace(long, short)
    return words


def _as_typed(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value)
    return json.dumps(value) if isinstance(value, dict) else "none" if value is None else str(value)
