"""Environments by themselves, with random actions."""

from __future__ import annotations

import time

import numpy as np
import torch

from benchmarks.timed.turns import Work
from marl_stable.config import EnvConfig
from marl_stable.envs import catalog


def random_actions(copies: int, steps: int) -> Work:
    """Steps per second of the batched environment alone."""
    env = catalog.make(EnvConfig(id="particle/simple_spread_v3"), torch.device("cpu"), copies)
    env.reset(1)
    actions = [{"agent": torch.randint(5, (copies, 3))} for _ in range(25)]

    def play() -> float:
        began = time.perf_counter()
        for t in range(steps):
            env.step(actions[t % 25])
        return copies * steps / (time.perf_counter() - began)

    return play


def raw_mpe2(steps: int) -> Work:
    """Steps per second of one plain mpe2 environment with random actions."""
    from mpe2 import simple_spread_v3  # type: ignore[import-untyped]

    env = simple_spread_v3.parallel_env()
    rng = np.random.default_rng(0)
    moves = [{f"agent_{i}": int(rng.integers(5)) for i in range(3)} for _ in range(25)]
    env.reset(seed=1)

    def play() -> float:
        began = time.perf_counter()
        for t in range(steps):
            env.step(moves[t % 25])
            if not env.agents:
                env.reset()
        return steps / (time.perf_counter() - began)

    return play
