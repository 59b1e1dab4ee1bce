"""The one rule by which text becomes values of a configuration's dataclasses.

The command line, YAML presets and ``ms.train(...)`` all go through :func:`override`, so a value means the same
wherever it is written, and a mistake is refused with the same sentence.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from marl_stable.types import UsageError

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
        except (ValueError, TypeError, OverflowError):
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
    if isinstance(value, os.PathLike):  # a folder, as Python's users have it
        value = os.fspath(value)
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
    return {str(key): _plain(item) for key, item in value.items()}


def _plain(value: Any) -> Any:
    """`value` as YAML and JSON can hold it, since `config.yaml` tells of a run; ValueError where they cannot."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    elif not isinstance(value, list | tuple | Mapping) and hasattr(value, "tolist"):  # NumPy's numbers and arrays
        value = value.tolist()
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise ValueError


_SCALARS: dict[Any, typing.Callable[[Any], Any]] = {
    bool: _bool,
    int: _int,
    float: _float,
    str: _str,
    type(None): _none,
}
