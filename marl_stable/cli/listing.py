"""`marl-stable envs`, `algos` and `presets`: what there is."""

from __future__ import annotations

from dataclasses import dataclass

from marl_stable import configs
from marl_stable.agents.config import ALGORITHMS
from marl_stable.cli.words import Usage, say
from marl_stable.envs import catalog
from marl_stable.report.files import to_json

ENVS, ALGOS, PRESETS = (Usage(name, "[--json]") for name in ("envs", "algos", "presets"))


@dataclass(frozen=True)
class Listing:
    """List what there is, one a line."""

    json: bool = False
    """Print a list of objects with a name."""


def envs(words: list[str]) -> int:
    """List environments"""
    return _list(ENVS, words, dict(catalog.ids()))


def algos(words: list[str]) -> int:
    """List algorithms"""
    return _list(ALGOS, words, {name: (kind.__doc__ or "") for name, kind in ALGORITHMS.items()})


def presets(words: list[str]) -> int:
    """List shipped presets"""
    return _list(PRESETS, words, configs.presets())


def _list(usage: Usage, words: list[str], entries: dict[str, str]) -> int:
    others, asked = usage.read(words, Listing())
    usage.refuse(others)
    if asked.json:
        say(to_json([{"name": name, "description": text} for name, text in entries.items()]))
    else:
        width = max(len(name) for name in entries)
        say("\n".join(f"{name:{width}}  {text}" for name, text in entries.items()))
    return 0
