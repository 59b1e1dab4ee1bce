"""`marl-stable selftest`."""

from __future__ import annotations

from dataclasses import dataclass

from marl_stable.agents.config import ALGORITHMS, default_config
from marl_stable.cli.words import Usage, say

USAGE = Usage("selftest", "[--algo NAME] [--json]")


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


def selftest(words: list[str]) -> int:
    """Play games with known answers, with every algorithm"""
    others, asked = USAGE.read(words, Selftest())
    USAGE.refuse(others)
    names = list(ALGORITHMS) if asked.algo.name is None else [default_config(asked.algo.name).name]
    from marl_stable.investigate import selftest as tests

    return 0 if tests.report(names, asked.json, say) else 1
