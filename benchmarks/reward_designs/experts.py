"""Scripted policies that play a task as it is meant, by which a design is found to pay for something else."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np


def spread_expert(observations: dict[str, Any]) -> dict[str, Any]:
    """The scripted policy of simple_spread."""
    found: dict[str, Any] = importlib.import_module("benchmarks.scripted").spread_actions(observations, False)
    return found


def simple_expert(observations: dict[str, Any]) -> dict[str, int]:
    """Straight to the landmark."""
    return _straight(observations, 2)


def formation_expert(observations: dict[str, Any]) -> dict[str, int]:
    """Straight to the landmark, whose place is seen behind one's own."""
    return _straight(observations, 4)


def _straight(observations: dict[str, Any], at: int) -> dict[str, int]:
    actions = {}
    for agent, obs in observations.items():
        to = 16 * (obs[at : at + 2] - 0.25 * obs[:2])
        axis = int(np.argmax(np.abs(to)))
        actions[agent] = 0 if abs(to[axis]) < 0.5 else 1 + 2 * axis + int(to[axis] > 0)
    return actions
