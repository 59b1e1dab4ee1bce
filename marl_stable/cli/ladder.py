"""`marl-stable ladder`."""

from __future__ import annotations

from dataclasses import dataclass

from marl_stable.cli.configured import configured, fields_of, run_config
from marl_stable.cli.words import EXIT, Usage, say
from marl_stable.config import RunConfig
from marl_stable.envs import catalog

USAGE = Usage("ladder", "PRESET [flags] [--json]")
OWN = ("rung_steps", "seeds", "json")


@dataclass(frozen=True)
class Ladder(RunConfig):
    """Train the plain network and then each measure on top of the former, briefly; say which are enough."""

    rung_steps: int | None = None
    """Steps of each rung; unset: a fifth of total_steps."""
    seeds: int = 1
    """Runs of each rung, with the seeds from `seed` on."""
    json: bool = False
    """Print one JSON object."""


def ladder(words: list[str]) -> int:
    """Try the measures one after the other, from the plain network upward"""
    asked = configured(words, USAGE, lambda base: Ladder(**fields_of(base)))
    catalog.require_known(asked.env.id)
    from marl_stable import ladder as steps

    config = run_config(asked, OWN)
    return 0 if steps.report(config, asked.rung_steps, asked.seeds, asked.json, say) else EXIT["interrupted"]
