"""`marl-stable train`."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from marl_stable.cli.configured import configured
from marl_stable.cli.words import EXIT, Usage, tell
from marl_stable.config import RunConfig
from marl_stable.envs import catalog

if TYPE_CHECKING:
    from marl_stable.run import Run

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

        return _ended(resume(Path(asked.resume or ""), asked.total_steps, asked.quiet), asked.quiet)
    config = train_config(words)
    catalog.require_known(config.env.id)
    from marl_stable.run.beginning import start

    return _ended(start(config), config.quiet)


def train_config(words: list[str]) -> RunConfig:
    """The run that `train [PRESET] [flags]` describes."""
    return configured(words, USAGE, lambda base: base)


def _ended(run: Run, quiet: bool) -> int:
    """The exit code of a run that has ended. How to go on is in the summary; without one it is said here."""
    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started
    if quiet and first and run.status == "interrupted":
        tell(f"interrupted; go on with: marl-stable train --resume {shlex.quote(str(run.path))}")
    return EXIT[run.status]
