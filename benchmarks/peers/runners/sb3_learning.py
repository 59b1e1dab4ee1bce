"""Stable-Baselines3's PPO on SuperSuit's vector environment, as PettingZoo's tutorial has it; else its defaults."""

from __future__ import annotations

from typing import Any

import numpy as np
import supersuit
from mpe2 import simple_spread_v3
from stable_baselines3 import PPO

from benchmarks.peers.orders import settings
from benchmarks.peers.runners.greedy import AGENTS, tell, until


def main() -> None:
    """Train until the time is up, and play."""
    single = supersuit.pettingzoo_env_to_vec_env_v1(simple_spread_v3.parallel_env())
    env = supersuit.concat_vec_envs_v1(single, 8, num_cpus=1, base_class="stable_baselines3")
    model = PPO("MlpPolicy", env, batch_size=256, device="cpu")  # SuperSuit's cannot be seeded
    until(settings()["seconds"], lambda: model.learn(10**9))

    def act(obs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        actions: np.ndarray[Any, Any] = model.predict(obs, deterministic=True)[0]
        return actions

    tell(model.num_timesteps // AGENTS, act)  # to it, agents are copies


if __name__ == "__main__":
    main()
