"""Building, feeding and updating agents, for the tests of this folder."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import torch

from marl_stable.acting import by_agent
from marl_stable.agents import algorithm
from marl_stable.agents.base import Stats
from marl_stable.agents.config import default_config
from marl_stable.agents.maddpg import MADDPG
from marl_stable.agents.mappo import MAPPO
from marl_stable.config import NetworkConfig
from marl_stable.envs.base import BatchedEnv
from marl_stable.evaluation import play
from marl_stable.types import PerGroup, Step

CPU = torch.device("cpu")
BASE: dict[str, Any] = {  # everything that a test's outcome hangs on, so that new defaults change no test
    "gamma": 0.9,
    "gae_lambda": 0.95,
    "lr": 2e-3,
    "lr_schedule": "constant",
    "batch_size": 320,
    "num_minibatches": 2,
    "update_epochs": 4,
    "entropy_coef": 0.01,
    "target_kl": None,
    "max_grad_norm": "adaptive",
    "network": NetworkConfig(hidden=(32,)),
}

OFF_POLICY: dict[str, Any] = {  # the same for algorithms with a replay
    "gamma": 0.9,
    "lr": 2e-3,
    "lr_schedule": "constant",
    "batch_size": 128,
    "buffer_size": 20_000,
    "steps_per_update": 32,
    "train_every": 320,
    "warm_up": 640,
    "tau": 0.02,
    "exploration_noise": 0.3,
    "final_noise": 0.05,
    "huber": 1.0,
    "normalize_reward": True,
    "action_penalty": 1e-2,
    "max_grad_norm": "adaptive",
    "network": NetworkConfig(hidden=(32,), activation="relu"),
}

QUICK: dict[str, Any] = {"lr": 5e-3, "tau": 0.1, "gamma": 0.9, "normalize_reward": False}
"""Over `OFF_POLICY`: to learn a game of one step in a second."""


def make_agent(env: BatchedEnv, algo: str = "mappo", seed: int = 1, refuse: bool = True, **settings: Any) -> MAPPO:
    """An agent for `env` with `BASE` and `settings` over the defaults of its algorithm."""
    config = replace(default_config(algo), **(BASE | settings))
    return algorithm(algo)(env.spec, config, env.num_envs, env.device, seed, refuse)  # type: ignore[return-value]


def make_ddpg(env: BatchedEnv, algo: str = "maddpg", seed: int = 1, refuse: bool = True, **settings: Any) -> MADDPG:
    """The same over `OFF_POLICY`, for MADDPG, MATD3 and IDDPG."""
    config = replace(default_config(algo), **(OFF_POLICY | settings))
    return algorithm(algo)(env.spec, config, env.num_envs, env.device, seed, refuse)  # type: ignore[return-value]


def collect(agent: MAPPO | MADDPG, env: BatchedEnv, obs: PerGroup) -> tuple[PerGroup, list[Step]]:
    """Act until the batch is full; what to act on next, and all steps."""
    steps = []
    while not agent.ready():
        steps.append(env.step(agent.act(obs)))
        agent.observe(steps[-1])
        obs = steps[-1].obs
    return obs, steps


def update(agent: MAPPO | MADDPG, progress: float = 0.0) -> Stats:
    """One update that nobody interrupts."""
    stats = agent.update(progress, lambda: False)
    assert stats is not None
    return stats


def train(agent: MAPPO | MADDPG, env: BatchedEnv, obs: PerGroup, iterations: int) -> PerGroup:
    """Collect and learn; what to act on next."""
    for _ in range(iterations):
        obs, _ = collect(agent, env, obs)
        update(agent)
    return obs


def teach(agent: MAPPO | MADDPG, env: BatchedEnv, iterations: int) -> None:
    """Train from the first observations on."""
    obs = env.reset(1)
    agent.initialize_statistics(obs)
    train(agent, env, obs, iterations)


def greedy_return(agent: MAPPO | MADDPG, env: BatchedEnv) -> float:
    """Mean return of the greedy actions over new episodes."""
    return float(play(env, by_agent(agent), 64, seed=99).mean_returns().mean())


def through_a_file(state: dict[str, Any]) -> Any:
    """`state` as a checkpoint gives it back."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def copied(state: Any) -> Any:
    """A deep copy of nested dictionaries and lists of tensors."""
    if isinstance(state, dict):
        return {key: copied(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [copied(value) for value in state]
    return state.clone() if isinstance(state, torch.Tensor) else state


def assert_same(left: Any, right: Any, path: str = "") -> None:
    """Bit for bit, through nested dictionaries and lists; NaN equals NaN."""
    if isinstance(left, torch.Tensor):
        assert (left.dtype, left.shape) == (right.dtype, right.shape), path
        assert left.contiguous().numpy().tobytes() == right.contiguous().numpy().tobytes(), path
    elif isinstance(left, dict):
        assert list(left) == list(right), path
        for key, value in left.items():
            assert_same(value, right[key], f"{path}/{key}")
    elif isinstance(left, list | tuple):
        for i, (one, other) in enumerate(zip(left, right, strict=True)):
            assert_same(one, other, f"{path}/{i}")
    else:
        assert left == right, path
