"""How fast: whole training beside the physical floor, and environments beside their raw selves, in one run.

    python -m benchmarks.speed            # about five minutes on an idle machine; writes results/speed.md

Ratios are of measurements made in turn, A B A B, in this process with one thread: absolute figures vary by machine.
The floor of learning is the time of the same forward and backward passes and Adam steps (torch's fused one) on the same
shapes, and nothing else: no environment, no sampling, no advantages, no statistics.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.trials import RESULTS
from marl_stable.agents import algorithm
from marl_stable.agents.config import MADDPGConfig, MAPPOConfig, default_config
from marl_stable.config import EnvConfig, Memory
from marl_stable.envs import catalog
from marl_stable.episodes import EpisodeStatistics
from marl_stable.networks.body import ACTIVATIONS
from marl_stable.provenance import git_commit

TABLE = RESULTS / "speed.md"
ROUNDS = 7
DEFAULTS = MAPPOConfig()
CPU = torch.device("cpu")


def in_turn(*work: Callable[[], float]) -> list[float]:
    """Median of each one's steps per second over rounds in which they take turns; the first round warms up."""
    rates = [[run() for run in work] for _ in range(ROUNDS + 1)]
    return [float(x) for x in np.median(np.array(rates[1:]), axis=0)]


def training(
    env_id: str, kwargs: dict[str, Any], copies: int, algo: str = "mappo", recurrent: Memory = "none"
) -> Callable[[], float]:
    """Steps per second of one iteration with the defaults: collect, learn, and what is watched."""
    config = default_config(algo)
    config = replace(config, gamma=0.95, network=replace(config.network, recurrent=recurrent))
    if isinstance(config, MADDPGConfig):
        config = replace(config, warm_up=0)
    env = catalog.make(EnvConfig(id=env_id, kwargs=kwargs), CPU, copies)
    agent = algorithm(algo)(env.spec, config, copies, CPU, seed=1)
    episodes = EpisodeStatistics(env)
    obs = env.reset(1)

    def iterate() -> float:
        nonlocal obs
        began = time.perf_counter()
        while not agent.ready():
            step = env.step(agent.act(obs))
            agent.observe(step)
            episodes.add(step)
            obs = step.obs
        agent.update(0.0, lambda: False)
        agent.signals(True)
        episodes.take()
        return agent.rollout_steps * copies / (time.perf_counter() - began)

    return iterate


def floor(agents: int, obs: int, outputs: int, config: MAPPOConfig = DEFAULTS) -> Callable[[], float]:
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


def floor_off_policy(agents: int, obs: int, outputs: int) -> Callable[[], float]:
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
        layers.append(ACTIVATIONS[config.network.activation]())
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def random_actions(copies: int, steps: int) -> Callable[[], float]:
    """Steps per second of the batched environment alone."""
    env = catalog.make(EnvConfig(id="particle/simple_spread_v3"), CPU, copies)
    env.reset(1)
    actions = [{"agent": torch.randint(5, (copies, 3))} for _ in range(25)]

    def play() -> float:
        began = time.perf_counter()
        for t in range(steps):
            env.step(actions[t % 25])
        return copies * steps / (time.perf_counter() - began)

    return play


def raw_mpe2(steps: int) -> Callable[[], float]:
    """Steps per second of one plain mpe2 environment with random actions."""
    from mpe2 import simple_spread_v3  # type: ignore[import-untyped]

    env = simple_spread_v3.parallel_env()
    rng = np.random.default_rng(0)
    moves = [{f"agent_{i}": int(rng.integers(5)) for i in range(3)} for _ in range(25)]
    env.reset(seed=1)

    def play() -> float:
        began = time.perf_counter()
        for t in range(steps):
            env.step(moves[t % 25])
            if not env.agents:
                env.reset()
        return steps / (time.perf_counter() - began)

    return play


def seconds_to(goal: float) -> tuple[float, int]:
    """Wall time and steps from typing the command to the first evaluation on the twin at or above `goal`.

    The schedule ends at a million steps: who wants it soon says so.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "marl_stable", "train", "--total-steps", "1e6", "--eval-every", "50000"]
        began = time.perf_counter()
        process = subprocess.Popen([*command, "--eval-episodes", "200", "--quiet", "--run-dir", str(run)])
        try:
            while process.poll() is None:
                time.sleep(0.2)
                reached = [steps for steps, value in _evaluations(run) if value >= goal]
                if reached:
                    return time.perf_counter() - began, reached[0]
        finally:
            process.terminate()
            process.wait()
    return float("nan"), 0


def _evaluations(run: Path) -> list[tuple[int, float]]:
    from marl_stable.report.metrics import read_metrics

    if not (run / "metrics.csv").exists():
        return []
    columns = read_metrics(run / "metrics.csv")
    points = zip(columns["steps"], columns.get("eval/return", []), strict=False)
    return [(int(steps), value) for steps, value in points if value == value]


def main() -> None:
    """Measure and write the table."""
    torch.set_num_threads(1)
    discrete, bare = in_turn(training("particle/simple_spread_v3", {}, 256), floor(3, 18, 5))
    continuous, bare_box = in_turn(
        training("particle/simple_spread_v3", {"continuous_actions": True}, 256), floor(3, 18, 5)
    )
    gru, plain = in_turn(
        training("particle/simple_spread_v3", {}, 256, recurrent="gru"), training("particle/simple_spread_v3", {}, 256)
    )
    maddpg, bare_ddpg = in_turn(
        training("particle/simple_spread_v3", {"continuous_actions": True}, 256, "maddpg"), floor_off_policy(3, 18, 5)
    )
    updates = maddpg / MADDPGConfig().steps_per_update
    on_mpe2, raw = in_turn(training("mpe2/simple_spread_v3", {}, 32), raw_mpe2(2_000))
    (batched,) = in_turn(random_actions(1_024, 200))
    seconds, steps = seconds_to(-10.0)
    lines = [
        f"One thread, {platform.processor() or platform.machine()}, torch {torch.__version__}, commit {git_commit()}; "
        f"medians of {ROUNDS} rounds in turn. `python -m benchmarks.speed`",
        "",
        "| work | steps/s | beside | ratio |",
        "|---|---|---|---|",
        f"| MAPPO, defaults, particle/simple_spread_v3, discrete | {discrete:,.0f} | floor {bare:,.0f} "
        f"| {discrete / bare:.2f} |",
        f"| the same, continuous | {continuous:,.0f} | floor {bare_box:,.0f} | {continuous / bare_box:.2f} |",
        f"| MAPPO with a GRU, discrete | {gru:,.0f} | without {plain:,.0f} | {gru / plain:.2f} |",
        f"| MADDPG, defaults, continuous: {updates:,.0f} updates/s, {maddpg:,.0f} steps/s | {updates:,.0f} "
        f"| floor {bare_ddpg:,.0f} updates/s | {updates / bare_ddpg:.2f} |",
        f"| MAPPO on mpe2/simple_spread_v3 in process | {on_mpe2:,.0f} | one raw mpe2 {raw:,.0f} "
        f"| {on_mpe2 / raw:.2f} |",
        f"| particle/simple_spread_v3, random actions, 1,024 copies | {batched:,.0f} | one raw mpe2 {raw:,.0f} "
        f"| {batched / raw:.0f} |",
        "",
        f"From the command (`train --total-steps 1e6`) to a greedy evaluation of -10 or better (200 episodes): "
        f"{seconds:.0f} s, {steps:,} steps.",
    ]
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(TABLE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
