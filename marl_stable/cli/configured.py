"""Commands that train: a preset, flags over it, and the run that both describe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from marl_stable import configs, flags
from marl_stable.cli.words import Asked, Usage
from marl_stable.config import RunConfig


def configured(words: list[str], usage: Usage, defaults: Callable[[RunConfig], Asked]) -> Asked:
    """What `COMMAND [PRESET] [flags]` asks for, by flags over what `defaults` makes of the preset."""
    layers = []
    if words and not words[0].startswith("-"):
        layers.append(configs.read_preset(words[0]))
        words = words[1:]
    algorithm, measures = flags.find(words, "--algo.name"), flags.find(words, "--measures")
    first = {"algo": {"name": algorithm}} if algorithm is not None else {}  # it decides which flags there are
    base = configs.resolve(*layers, first | ({"measures": measures} if measures else {}))
    others, config = usage.read(words, defaults(base))
    usage.refuse(others)
    return config


def fields_of(config: RunConfig) -> dict[str, Any]:
    """Its fields by name, not copied."""
    return {field.name: getattr(config, field.name) for field in fields(config)}


def run_config(asked: RunConfig, own: Sequence[str]) -> RunConfig:
    """The run that a command asks for, without the flags of its `own`."""
    return RunConfig(**{name: value for name, value in fields_of(asked).items() if name not in own})
