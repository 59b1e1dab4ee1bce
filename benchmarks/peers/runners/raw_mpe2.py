"""Random actions, drawn beforehand, in one plain mpe2 environment, or in one each of several processes at once."""

from __future__ import annotations

import multiprocessing

import numpy as np
from mpe2 import simple_spread_v3

from benchmarks.peers.orders import serve, settings

given = settings()
steps, processes = given["steps"], given.get("processes", 1)
env = simple_spread_v3.parallel_env()
rng = np.random.default_rng(0)
actions = [{f"agent_{i}": int(rng.integers(5)) for i in range(3)} for _ in range(25)]
env.reset(seed=1)


def play(process: int = 0) -> int:
    """Episodes begin anew when they end."""
    for t in range(steps):
        env.step(actions[t % 25])
        if not env.agents:
            env.reset()
    return int(steps)


if processes == 1:
    serve(play)
else:
    with multiprocessing.get_context("fork").Pool(processes) as pool:  # each with this environment of its own
        serve(lambda: sum(pool.map(play, range(processes), chunksize=1)))
