"""Whole training, as a run does it, and the floor below which no training can go.

The floor is the time of the same forward and backward passes and Adam steps (torch's fused one) on the same shapes, and
nothing else: no environment, no sampling, no advantages, no statistics. Its layers are torch's own.
"""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import count
from typing import Any

import torch
from torch import nn

from benchmarks.timed.turns import Work
from marl_stable.agents import algorithm
from marl_stable.agents.config import MADDPGConfig, MAPPOConfig, default_config
from marl_stable.allocation import keep_freed_memory
from marl_stable.config import EnvConfig, Memory
from marl_stable.envs import catalog
from marl_stable.episodes import EpisodeStatistics

CPU = torch.device("cpu")
DEFAULTS = MAPPOConfig()
UNITS = {"tanh": nn.Tanh, "relu": nn.ReLU}  # of defaults


def training(env_id: str, kwargs: dict[str, Any], copies: int, algo: str = "mappo", recurrent: Memory = "none") -> Work:
    """Steps per second of one iteration with the defaults: collect, learn, and what is watched."""
    keep_freed_memory()
    config = default_config(algo)
    config = replace(config, gamma=0.95, network=replace(config.network, recurrent=recurrent))
    if isinstance(config, MADDPGConfig):
        config = replace(config, warm_up=0)
    env = catalog.make(EnvConfig(id=env_id, kwargs=kwargs), CPU, copies)
    agent = algorithm(algo)(env.spec, config, copies, CPU, seed=1)
    episodes = EpisodeStatistics(env)
    obs, rounds = env.reset(1), count()

    def iterate() -> float:
        nonlocal obs
        began = time.perf_counter()
        while not agent.ready():
            step = env.step(agent.act(obs))
            agent.observe(step)
            episodes.add(step)
            obs = step.obs
        agent.update(0.0, lambda: False)
        agent.signals(next(rounds) % agent.probe_every == 0)
        episodes.take()
        return agent.rollout_steps * copies / (time.perf_counter() - began)

    return iterate


def floor(agents: int, obs: int, outputs: int, config: MAPPOConfig = DEFAULTS) -> Work:
    """Steps per second of the bare passes and optimiser steps of one update."""
    rows = config.batch_size // config.num_minibatches
    actor = _stack(obs + agents, outputs, config)
    critic = _stack(agents * obs, agents, config)
    jobs = [
        (network, torch.optim.Adam(network.parameters(), fused=True), torch.randn(n, width))
        for network, n, width in ((actor, rows * agents, obs + agents), (critic, rows, agents * obs))
    ]

    def learn() -> float:
        began = time.perf_counter()
        for _ in range(config.update_epochs * config.num_minibatches):
            for network, optimizer, x in jobs:
                optimizer.zero_grad()
                network(x).square().mean().backward()
                optimizer.step()
        return config.batch_size / (time.perf_counter() - began)

    return learn


def floor_off_policy(agents: int, obs: int, outputs: int) -> Work:
    """Updates per second of MADDPG's bare passes and optimiser steps: targets, critic, actor through the critic."""
    config = MADDPGConfig()
    rows, joint = config.batch_size, agents * (obs + outputs)
    actor, critic = _stack(obs + agents, outputs, config), _stack(joint, agents, config)
    steps = [torch.optim.Adam(network.parameters(), fused=True) for network in (actor, critic)]
    own, together = torch.randn(rows * agents, obs + agents), torch.randn(rows, joint)

    def learn() -> float:
        began = time.perf_counter()
        for _ in range(20):
            with torch.no_grad():
                actor(own), critic(together)
            steps[1].zero_grad()
            critic(together).square().mean().backward()
            steps[1].step()
            steps[0].zero_grad()
            seen = torch.cat([actor(own), own.new_zeros(rows * agents, joint - outputs)], dim=1)
            loss = critic(seen).mean()
            for p, g in zip(actor.parameters(), torch.autograd.grad(loss, list(actor.parameters())), strict=True):
                p.grad = g
            steps[0].step()
        return 20 / (time.perf_counter() - began)

    return learn


def _stack(inputs: int, outputs: int, config: MAPPOConfig | MADDPGConfig) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in config.network.hidden:
        layers.append(nn.Linear(inputs, width))
        if config.network.norm == "layer":
            layers.append(nn.LayerNorm(width))
        layers.append(UNITS[config.network.activation]())
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))
