"""AgileRL's MADDPG with its defaults: one agent of the population, no evolution, a process per copy."""

from __future__ import annotations

from typing import Any

import numpy as np
from agilerl.algorithms import MADDPG
from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.training.train_multi_agent_off_policy import train_multi_agent_off_policy
from agilerl.vector.pz_async_vec_env import AsyncPettingZooVecEnv
from mpe2 import simple_spread_v3

from benchmarks.peers.orders import settings
from benchmarks.peers.runners.greedy import tell, until

COPIES = 8


def main() -> None:
    """Train until the time is up, and play."""
    env = AsyncPettingZooVecEnv([simple_spread_v3.parallel_env for _ in range(COPIES)])
    names = list(env.agents)
    spaces = ([single(name) for name in names] for single in (env.single_observation_space, env.single_action_space))
    agent = MADDPG(*spaces, agent_ids=names, vect_noise_dim=COPIES)
    memory = ReplayBuffer(100_000)
    until(
        settings()["seconds"],
        lambda: train_multi_agent_off_policy(
            env, "simple_spread", "MADDPG", [agent], memory, max_steps=10**9, evo_steps=10_000, verbose=False
        ),
    )
    agent.set_training_mode(False)

    def act(obs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        actions, _ = agent.get_action(obs={name: row[None] for name, row in zip(names, obs, strict=True)})
        return np.concatenate([np.ravel(actions[name]) for name in names])

    tell(memory.counter, act)
    env.close(terminate=True)


if __name__ == "__main__":
    main()
