"""`marl-stable check`."""

from __future__ import annotations

from dataclasses import dataclass

from marl_stable.cli.words import Made, Usage, say
from marl_stable.report.files import to_json

USAGE = Usage("check", "ENV [--env.kwargs JSON] [--json]")


@dataclass(frozen=True)
class Check:
    """Examine an environment in under a minute, without training. Exit code 1 where training would be wrong or fail."""

    json: bool = False
    """Print one JSON object."""
    env: Made = Made()


def check(words: list[str]) -> int:
    """Examine an environment before anything is trained"""
    others, asked = USAGE.read(words, Check())
    env = USAGE.environment(others)
    from marl_stable.investigate.doctor.checkup import examine
    from marl_stable.report.checkup_page import page

    found = examine(env, asked.env.kwargs or {})
    told = found.as_dict()
    say(to_json(told, indent=2) if asked.json else page(told, found.played()))
    return 0 if told["passed"] else 1
