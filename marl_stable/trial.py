"""Brief runs that are compared with one another: of the ladder's rungs, and of the remedies of an experiment.

The monitor watches them and nothing acts, so that what is compared is the configurations alone.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from marl_stable.config import RunConfig
from marl_stable.run import Run

EVALUATIONS = 5  # of a brief run; what it brought is the mean over the latest two
LATEST = 2


class Trial(NamedTuple):
    """What one brief run brought."""

    seed: int
    value: float | None  # greedy return by the latest evaluations; None where it was not a finite number
    symptoms: list[str]
    incidents: int
    random: float | None  # return of random play


def brief(config: RunConfig, steps: int, seed: int, folder: Path) -> RunConfig:
    """`config` as a brief run of `steps` in `folder`."""
    return replace(
        config,
        total_steps=steps,
        seed=seed,
        stability="monitor",
        eval_every=max(1, steps // EVALUATIONS),
        checkpoint_every=steps,
        run_dir=str(folder),
        quiet=True,
        profile=False,
    )


def outcome(ran: Run, seed: int) -> Trial:
    """What a brief run brought. Raises KeyboardInterrupt where the user ended it."""
    if ran.status == "interrupted":
        raise KeyboardInterrupt
    random = (ran.folder.metadata.get("baselines") or {}).get("random") or {}
    found = ran.diagnose()
    return Trial(seed, _latest(ran.returns), found["symptoms"], len(ran.incidents), random.get("return"))


def mean(values: list[float | None]) -> float | None:
    """The mean of numbers; None where there are none, or where one of them is not known."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _latest(returns: list[tuple[int, float]]) -> float | None:
    values = [value for _, value in returns[-LATEST:]]
    return sum(values) / len(values) if values and all(math.isfinite(value) for value in values) else None
