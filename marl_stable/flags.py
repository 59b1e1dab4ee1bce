"""The command line of a configuration: its flags, read from words and explained. Imports no torch.

Every field of a dataclass is a flag; the key `a.b_c` is `--a.b-c`. Values go through `config.convert`, like those of
presets and of Python, so a mistake is refused with the same sentence wherever it is made.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple, get_type_hints

from marl_stable.config import convert, describe, unknown
from marl_stable.types import UsageError

SHORT = {"--algo.name": "--algo", "--env.id": "--env", "--output": "-o"}
"""Flags that go by a shorter name as well."""


class Flag(NamedTuple):
    """One field of a configuration as it is typed."""

    key: str  # dotted, with underscores
    wanted: Any  # its type
    default: Any

    @property
    def name(self) -> str:
        """The key as a flag."""
        return "--" + self.key.replace("_", "-")


def read(words: Sequence[str], config: Any, command: str) -> tuple[list[str], dict[str, Any]]:
    """The words that are no flags, and the flags as nested keys for `config.override`.

    A switch, a boolean outside of sections, may stand without its value. Raises UsageError for a flag that `config`
    does not have, with the nearest that it has, and for a value that is missing or does not fit.
    """
    known = {flag.name: flag for _, _, flags in sections(config) for flag in flags}
    known |= {short: known[name] for name, short in SHORT.items() if name in known}
    others: list[str] = []
    layer: dict[str, Any] = {}
    waiting = deque(words)
    while waiting:
        name, equals, value = waiting.popleft().partition("=")
        if not name.startswith("-"):
            others.append(name + equals + value)
            continue
        flag = known.get(name.replace("_", "-"))
        if flag is None:
            raise unknown("flag", name, known, f"`marl-stable {command} --help` lists them.")
        *path, key = flag.key.split(".")
        place = layer
        for section in path:
            place = place.setdefault(section, {})
        place[key] = convert(value if equals else _value_after(flag, waiting), flag.wanted, flag.name)
    return others, layer


def find(words: Sequence[str], *names: str) -> str | None:
    """The last value given to a flag called one of `names`, read before it is known which other flags there are."""
    found = None
    for word, following in itertools.zip_longest(words, words[1:]):
        name, equals, value = word.partition("=")
        if name in names:
            found = value if equals else following
    return found


def sections(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, list[Flag]]]:
    """(dotted prefix, dataclass instance, its own flags) of `config` and of every section below it."""
    hints = get_type_hints(type(config))
    values = {f.name: getattr(config, f.name) for f in fields(config)}
    yield (
        prefix,
        config,
        [Flag(prefix + name, hints[name], value) for name, value in values.items() if not is_dataclass(value)],
    )
    for name, value in values.items():
        if is_dataclass(value):
            yield from sections(value, f"{prefix}{name}.")


def explain(usage: str, config: Any) -> None:
    """Print what a command takes: the purpose of `config`, and each flag with its values, meaning and default."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.panel import Panel
    from rich.text import Text

    from marl_stable.report.console import open_console

    console = open_console(sys.stdout)
    console.print(Text(f"usage: marl-stable {usage}\n\n{inspect.getdoc(config)}\n"), soft_wrap=True)
    for prefix, section, flags in sections(config):
        texts = _texts_of_fields(type(section))
        lines: list[Any] = [Text(f"{inspect.getdoc(section)}\n", style="dim")] if prefix else []
        for flag in flags:
            text = texts.get(flag.key.removeprefix(prefix), "")
            lines.append(Text(f"{SHORT.get(flag.name, flag.name)} {_values(flag.wanted)}", style="bold"))
            lines.append(Padding(f"{text} (default: {_as_typed(flag.default)})", (0, 0, 0, 6)))
        console.print(Panel(Group(*lines), title=f"{prefix.rstrip('.')} options".strip(), title_align="left"))


def _value_after(flag: Flag, waiting: deque[str]) -> str:
    following = waiting[0] if waiting else "--"
    if flag.wanted is bool and "." not in flag.key and following not in ("on", "off", "true", "false"):
        return "on"
    if following.startswith("--"):
        raise UsageError(f"{flag.name} has no value; it must be {describe(flag.wanted)}.")
    return waiting.popleft()


def _values(wanted: Any) -> str:
    """The values that a flag takes, shortly."""
    words = describe(wanted)
    for long, short in (("a whole number", "INT"), ("a number", "FLOAT"), ("text", "TEXT"), (" or ", "|")):
        words = words.replace(long, short)
    return words


def _as_typed(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value)
    return json.dumps(value) if isinstance(value, dict) else str(value).lower() if value is None else str(value)


def _texts_of_fields(kind: type) -> dict[str, str]:
    """What stands below each field of a dataclass in its source, those of its bases included."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        (tree,) = ast.parse(inspect.getsource(base)).body
        assert isinstance(tree, ast.ClassDef)
        for pair in itertools.pairwise(tree.body):
            match pair:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    texts[name] = " ".join(text.split())
    return texts
