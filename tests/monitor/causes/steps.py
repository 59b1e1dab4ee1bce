"""Cases made by hand of one actor's steps: its layers, gradients and returns."""

from __future__ import annotations

from typing import Any

import numpy as np

from marl_stable.monitor.case import Case
from marl_stable.monitor.recording import Recording
from marl_stable.monitor.table import Column

N, PER = 40, 1_000  # readings, and steps between them
CONFIG = {"algo.update_epochs": 4, "algo.num_minibatches": 8, "algo.lr": 4e-3, "algo.network.hidden": [64, 64]}
ACTOR = (("group", "team"), ("network", "actor"))
ONCE = np.ones(N)
LAYERS = ("hidden.0", "hidden.1", "final")
FAILED = {"charts/return": -10 * ONCE}
LEARNED = {"charts/return": np.linspace(-10, 0, N)}


def case(columns: dict[Any, Any], config: dict[str, Any] | None = None, total: int = N * PER) -> Case:
    """A recording of N readings; a column is a name (of the actor) or (name, layer), its values an array or number."""
    named = {}
    for key, values in columns.items():
        signal, layer = key if isinstance(key, tuple) else (key, None)
        whose = () if "/" in signal else ACTOR
        place = (*whose, *((("layer", layer),) if layer else ()))
        named[Column(signal, place)] = np.broadcast_to(np.asarray(values, dtype=np.float64), N).copy()
    facts = {"total_steps": total, "baselines": {"random": {"return": -10.0, "ci95": [-10.1, -9.9]}}}
    return Case(Recording(PER * np.arange(1, N + 1), named), CONFIG | (config or {}), facts)


def moving(change: Any, weight: Any = 0.15, layers: tuple[str, ...] = LAYERS) -> dict[Any, Any]:
    """Every layer changes by these shares of its weights."""
    return {("layer_change", name): change for name in layers} | {("layer_weight", name): weight for name in layers}
