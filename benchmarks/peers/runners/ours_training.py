"""Whole iterations of `ms.train` with the flags of its settings."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import marl_stable as ms
from benchmarks.peers.orders import Orders, settings
from marl_stable import loop
from marl_stable.training import Training

given, log, orders, before = settings(), loop.log, Orders(), 0


def logged(run: Training, *told: Any) -> None:
    """Log as ever; when the iterations of a turn are done, wait for the next order."""
    global before
    log(run, *told)
    if run.iteration % given["iterations"] == 0:
        steps, before = run.steps - before, run.steps
        orders.done(steps)


loop.log = logged  # type: ignore[assignment]
endless: dict[str, Any] = {"total_steps": 10**9, "eval_every": 0, "checkpoint_every": 10**9, "quiet": True}
with suppress(KeyboardInterrupt):
    ms.train(run_dir="run", seed=1, **endless, **given["flags"])
