"""Random actions, drawn beforehand, in one plain mpe2 environment."""

from __future__ import annotations

import numpy as np
from mpe2 import simple_spread_v3

from benchmarks.peers.orders import serve, settings

steps = settings()["steps"]
env = simple_spread_v3.parallel_env()
rng = np.random.default_rng(0)
actions = [{f"agent_{i}": int(rng.integers(5)) for i in range(3)} for _ in range(25)]
env.reset(seed=1)


def play() -> int:
    """Episodes begin anew when they end."""
    for t in range(steps):
        env.step(actions[t % 25])
        if not env.agents:
            env.reset()
    return steps


serve(play)
