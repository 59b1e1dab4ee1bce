"""Random actions, drawn beforehand, in SuperSuit's vector environment of mpe2's copies."""

from __future__ import annotations

import numpy as np
import supersuit
from mpe2 import simple_spread_v3

from benchmarks.peers.orders import serve, settings

given = settings()
copies, steps = given["copies"], given["steps"]
single = supersuit.pettingzoo_env_to_vec_env_v1(simple_spread_v3.parallel_env())
env = supersuit.concat_vec_envs_v1(single, copies, num_cpus=given["workers"], base_class="gymnasium")
env.reset(seed=1)
actions = np.random.default_rng(0).integers(5, size=(25, copies * 3))  # to it, agents are copies


def play() -> int:
    """Episodes begin anew by themselves."""
    for t in range(steps):
        env.step(actions[t % 25])
    return copies * steps


if __name__ == "__main__":  # its workers may import this file
    serve(play)
