"""Trainings so short that a fault has just the time to show: where, and with which settings."""

from __future__ import annotations

from typing import Any

SPREAD = "particle/simple_spread_v3"
PROBE = "marl_stable.envs.probe:"
ON: dict[str, Any] = {"algo": "mappo", "algo__batch_size": 160, "algo__num_minibatches": 2, "total_steps": 4_000}
OFF: dict[str, Any] = {
    "algo": "maddpg",
    "algo__batch_size": 64,
    "algo__train_every": 200,
    "algo__warm_up": 400,
    "algo__steps_per_update": 20,
    "total_steps": 4_000,
}
