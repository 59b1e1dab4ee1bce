"""How many threads torch is to use inside one operation: the number asked for, or what is fastest here and now.

Tried are small iterations of the run's own algorithm and networks, on made-up data, so that no environment is stepped
and nothing of the run is touched. Shapes: E copies, A agents of one group, O observation features.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import torch

from marl_stable.agents import algorithm
from marl_stable.agents.base import Agent
from marl_stable.agents.config import ActorCriticConfig, MADDPGConfig, MAPPOConfig
from marl_stable.config import RunConfig
from marl_stable.envs import catalog
from marl_stable.types import EnvSpec, PerGroup, Step, legal_features

SECONDS = 0.5  # of trying, where rounds are short
FEWEST_ROUNDS, MOST_ROUNDS = 3, 9
LONGEST = 0.03  # seconds of one iteration with one thread; beyond it threads have enough to do in a part of the batch
FEWEST_ROWS = 64
EPOCHS = 3  # most of an iteration is optimiser steps
SPINNING = 0.005  # seconds for which OpenMP's threads look for work after the last; meanwhile they take a core each
HOPELESS = 3.0  # times as long as the fastest: not tried again
WORTH = 1.1  # as many times faster more threads must be: cores have other uses

Work = Callable[[float], float]
"""Does something, in as many seconds as it returns; gives up after as many as it is told."""


def settle(config: RunConfig, device: torch.device) -> RunConfig:
    """Have torch use `config.threads`, which is a number in what is returned; `auto` is tried out, on a GPU it is 1."""
    if config.threads == "auto":
        config = replace(config, threads=1 if device.type == "cuda" else _measured(config))
    assert isinstance(config.threads, int)
    torch.set_num_threads(config.threads)
    return config


def candidates(cores: int) -> list[int]:
    """1, 2, 4 and so on, and the number of cores."""
    return sorted({cores} | {2**power for power in range(cores.bit_length()) if 2**power <= cores})


def fastest(counts: Sequence[int], timed: Callable[[int, float], float]) -> int:
    """The fewest threads that are about as fast as any, by the median of the seconds that `timed` says, in rounds.

    Not one count after the other: what else the machine does for a moment then slows all of them.
    `timed` is also told after how many seconds a count is hopeless, and may give up then.
    """
    found: dict[int, list[float]] = {count: [] for count in counts}
    began, rounds = time.perf_counter(), 0
    while rounds < FEWEST_ROUNDS or (rounds < MOST_ROUNDS and time.perf_counter() - began < SECONDS):
        for count, seconds in found.items():
            known = [median(times) for times in found.values() if times]
            seconds.append(timed(count, HOPELESS * min(known, default=math.inf)))
        best = min(median(seconds) for seconds in found.values())
        found = {count: seconds for count, seconds in found.items() if median(seconds) <= HOPELESS * best}
        rounds += 1
    return min(count for count, seconds in found.items() if median(seconds) <= WORTH * best)


def _measured(config: RunConfig) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores == 1:
        return 1
    torch.set_num_threads(1)
    env = catalog.make(replace(config.env, workers=min(config.env.workers, 1)), torch.device("cpu"), 1)
    spec = env.spec
    env.close()
    work = _work(config, spec)

    def timed(count: int, limit: float) -> float:
        time.sleep(SPINNING)
        torch.set_num_threads(count)
        return work(limit)

    return fastest(candidates(cores), timed)


def _work(config: RunConfig, spec: EnvSpec) -> Work:
    """A small iteration, of as many rows as an optimiser step has, or fewer where that takes long."""
    algo = config.algo
    assert isinstance(algo, ActorCriticConfig)
    rows = algo.batch_size // algo.num_minibatches if isinstance(algo, MAPPOConfig) else _drawn(algo)
    tried = min(rows, FEWEST_ROWS)
    while True:
        work = _iteration(algo, spec, tried)
        work(math.inf)  # what is made at first use
        if tried == rows or work(math.inf) > LONGEST / 2:
            return work
        tried = min(rows, 4 * tried)


def _drawn(algo: ActorCriticConfig) -> int:
    assert isinstance(algo, MADDPGConfig)
    return algo.batch_size


def _iteration(algo: ActorCriticConfig, spec: EnvSpec, rows: int) -> Work:
    """Acts until a batch of `rows` is full, and learns from it."""
    brief, copies = _brief(replace(algo, gamma=0.99), rows)
    agent: Agent = algorithm(algo.name)(spec._replace(turn_based=False), brief, copies, torch.device("cpu"), 0)
    step = _made_up(spec, copies)

    def work(limit: float) -> float:
        began = time.perf_counter()
        while not agent.ready():
            agent.act(step.obs)
            agent.observe(step)
        agent.update(0.0, lambda: time.perf_counter() - began > limit)
        return time.perf_counter() - began

    return work


def _brief(algo: Any, rows: int) -> tuple[ActorCriticConfig, int]:
    """`algo` with a batch of `rows`, of as many copies as are returned."""
    if isinstance(algo, MAPPOConfig):
        steps = min(algo.chunk_length, rows)  # of each copy: a sample of a recurrent network
        copies = rows // steps
        epochs = min(algo.update_epochs, EPOCHS)
        return replace(algo, batch_size=copies * steps, num_minibatches=1, update_epochs=epochs, target_kl=None), copies
    copies, updates = min(rows, FEWEST_ROWS), EPOCHS * algo.policy_delay
    every = max(1, rows // updates)
    sizes = {"batch_size": rows, "buffer_size": rows, "train_every": every * updates, "steps_per_update": every}
    return replace(algo, **sizes, warm_up=0), copies


def _made_up(spec: EnvSpec, copies: int) -> Step:
    """A step in which every agent acts and nothing ends, of normally distributed observations and rewards."""
    draw = torch.Generator().manual_seed(0)
    obs: PerGroup = {}
    for group in spec.groups:
        seen = torch.randn(copies, len(group.agents), group.obs_size, generator=draw)  # (E, A, O)
        seen[..., group.obs_size - legal_features(group) :] = 1.0
        obs[group.name] = seen
    reward = {name: torch.randn(seen.shape[:2], generator=draw) for name, seen in obs.items()}
    never = {name: torch.zeros(seen.shape[:2], dtype=torch.bool) for name, seen in obs.items()}
    acting = {name: ~ended for name, ended in never.items()}
    return Step(obs, obs, reward, never, never, acting, torch.zeros(copies, dtype=torch.bool))
