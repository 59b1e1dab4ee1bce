"""Training for a given processor time, and what the policy is worth then: greedy episodes on plain mpe2."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from mpe2 import simple_spread_v3

EPISODES = 200
AGENTS = 3
MARK = "learned: "  # what libraries print begins otherwise


class TimeIsUp(BaseException):
    """No Exception, which libraries catch."""


def until(seconds: float, work: Callable[[], Any]) -> None:
    """Do `work` until it ends or this process, imports and all, has used `seconds` of processor time."""

    def ring(*_: Any) -> None:
        raise TimeIsUp

    signal.signal(signal.SIGPROF, ring)
    with suppress(TimeIsUp):
        left = max(seconds - time.process_time(), 1e-3)
        signal.setitimer(signal.ITIMER_PROF, left, 1.0)  # again, where one was swallowed
        work()
    signal.setitimer(signal.ITIMER_PROF, 0)


def tell(steps: int, act: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> None:
    """Play greedily with `act`, `(A, O)` to `(A,)`, and print the mean return per agent beside the training's steps."""
    env = simple_spread_v3.parallel_env()
    returns = []
    for episode in range(EPISODES):
        obs, _ = env.reset(seed=episode)
        total = 0.0
        while env.agents:
            actions = act(np.stack([obs[agent] for agent in env.agents]))
            obs, reward, *_ = env.step({agent: int(a) for agent, a in zip(env.agents, actions, strict=True)})
            total += sum(reward.values()) / AGENTS
        returns.append(total)
    print(f"\n{MARK}{json.dumps({'steps': steps, 'return': float(np.mean(returns))})}", flush=True)
