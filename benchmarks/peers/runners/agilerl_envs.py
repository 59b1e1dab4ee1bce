"""Random actions, drawn beforehand, in AgileRL's vector environment of mpe2's copies: one process each."""

from __future__ import annotations

import numpy as np
from agilerl.vector.pz_async_vec_env import AsyncPettingZooVecEnv
from mpe2 import simple_spread_v3

from benchmarks.peers.orders import serve, settings


def main() -> None:
    """Play under orders."""
    given = settings()
    copies, steps = given["copies"], given["steps"]
    env = AsyncPettingZooVecEnv([simple_spread_v3.parallel_env for _ in range(copies)])
    env.reset(seed=1)
    rng = np.random.default_rng(0)
    actions = [{f"agent_{i}": rng.integers(5, size=copies) for i in range(3)} for _ in range(25)]

    def play() -> int:
        for t in range(steps):
            env.step(actions[t % 25])
        return copies * steps

    serve(play)
    env.close()


if __name__ == "__main__":
    main()
