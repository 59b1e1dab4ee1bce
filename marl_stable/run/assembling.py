"""What a run is made of, whether it begins or goes on: device, environments, and a training of them."""

from __future__ import annotations

import torch

from marl_stable import distributed
from marl_stable.agents import algorithm
from marl_stable.agents.config import ActorCriticConfig, MADDPGConfig, MAPPOConfig
from marl_stable.allocation import keep_freed_memory
from marl_stable.config import RunConfig
from marl_stable.envs import catalog
from marl_stable.envs.base import BatchedEnv
from marl_stable.investigate import baselines
from marl_stable.training import Training
from marl_stable.types import UsageError


def device_named(name: str) -> torch.device:
    """The device of `auto`, `cpu` or `cuda`. Raises UsageError where there is no CUDA device and one is asked for."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "device is 'cuda', but torch finds no CUDA device; use --device cpu, or a CUDA build of torch."
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def environments(config: RunConfig, device: torch.device) -> tuple[BatchedEnv, BatchedEnv]:
    """The environment to train on and another to evaluate on.

    Both have workers where one has: a hang or a crash in an evaluation would end the run that training survives.
    """
    assert isinstance(config.env.num_envs, int)
    copies, algo = config.env.num_envs, config.algo
    assert isinstance(algo, MAPPOConfig | MADDPGConfig)
    distributed.divided(algo.batch_size, "algo.batch_size")
    envs = catalog.make(config.env, device, distributed.divided(copies, "env.num_envs"))
    return envs, catalog.make(config.env, device, min(copies, config.eval_episodes))


def for_random_play(config: RunConfig, eval_env: BatchedEnv) -> BatchedEnv:
    """`eval_env`, or another one where that has more or fewer copies than random play has episodes.

    Normalisers begin with what random play saw, and nobody should learn otherwise for being evaluated otherwise.
    """
    assert isinstance(config.env.num_envs, int)
    copies = min(config.env.num_envs, baselines.EPISODES)
    return eval_env if eval_env.num_envs == copies else catalog.make(config.env, eval_env.device, copies)


def assemble(
    config: RunConfig, envs: BatchedEnv, eval_env: BatchedEnv, device: torch.device, random_return: float | None
) -> Training:
    """A training before its first step: a new agent, and the first episodes of `envs`.

    `random_return` is what random play brings, None where it was not measured.
    """
    keep_freed_memory()
    algo = config.algo
    assert isinstance(algo, ActorCriticConfig)
    refuse, watch = config.stability in ("guard", "repair"), config.stability != "off"
    agent = algorithm(algo.name)(envs.spec, algo, envs.num_envs, device, config.seed, refuse, watch)
    if config.amp == "bf16":
        for learner in agent.learners.values():
            learner.multiply_in_bf16()
    if config.compile and distributed.world_size() == 1:  # messages between processes are no part of a recording
        agent.compile()
    first = envs.reset(distributed.own_seed(config.seed))
    return Training(config, agent, envs, eval_env, first, random_return=random_return)
