"""`marl-stable train`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from marl_stable.cli.configured import configured
from marl_stable.cli.words import EXIT, Usage
from marl_stable.config import RunConfig
from marl_stable.envs import catalog

USAGE = Usage("train", "[PRESET] [flags] | --resume RUN [--total-steps N]")


@dataclass(frozen=True)
class Resume:
    """Go on with the run in a folder, with the configuration that it has."""

    resume: str | None = None
    """Run folder."""
    total_steps: int | None = None
    """New end, counted from the run's very beginning; unset: as before."""
    quiet: bool = False
    """No progress bar and no summary; warnings still appear."""


def train(words: list[str]) -> int:
    """Train agents, or go on with a run (--resume RUN)"""
    if any(word == "--resume" or word.startswith("--resume=") for word in words):
        others, asked = USAGE.read(words, Resume())
        USAGE.refuse(others)
        from marl_stable.run.resuming import resume

        return EXIT[resume(Path(asked.resume or ""), asked.total_steps, asked.quiet).status]
    config = train_config(words)
    catalog.require_known(config.env.id)
    from marl_stable.run.beginning import start

    return EXIT[start(config).status]


def train_config(words: list[str]) -> RunConfig:
    """The run that `train [PRESET] [flags]` describes."""
    return configured(words, USAGE, lambda base: base)
