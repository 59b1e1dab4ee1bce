"""What `--amp bf16` gains or costs: seconds of an update with it beside without, by width of the hidden layers.

    python -m benchmarks.precision                  # writes results/precision.md
    python -m benchmarks.precision --device cuda    # a GPU's lines, with recorded updates; prints, and writes nothing

Two agents take turns, one of each kind, on the same game. On a CPU the time is the processor's, which other programs
disturb little.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.provenance import code_commit
from benchmarks.trials import RESULTS
from marl_stable.agents import algorithm
from marl_stable.agents.config import MADDPGConfig, MAPPOConfig, default_config
from marl_stable.config import EnvConfig
from marl_stable.envs import catalog

TABLE = RESULTS / "precision.md"
ENV, COPIES, WIDTHS, PAIRS = "particle/simple_spread_v3", 256, (128, 512, 1024), 5


def update(algo: str, width: int, device: torch.device, bf16: bool) -> Callable[[], float]:
    """Collects a batch and learns from it, a little at a time; seconds of the learning."""
    config: Any = default_config(algo)
    config = replace(config, gamma=0.95, network=replace(config.network, hidden=(width, width)))
    if isinstance(config, MAPPOConfig):
        config = replace(config, batch_size=8 * COPIES, update_epochs=1)
    else:
        assert isinstance(config, MADDPGConfig)
        config = replace(config, warm_up=0, buffer_size=64 * COPIES, train_every=COPIES, steps_per_update=COPIES // 4)
    env = catalog.make(EnvConfig(id=ENV), device, COPIES)
    agent = algorithm(algo)(env.spec, config, COPIES, device, seed=1)
    for learner in agent.learners.values() if bf16 else ():
        learner.multiply_in_bf16()
    agent.compile()
    obs = env.reset(1)
    clock = time.process_time if device.type == "cpu" else time.perf_counter

    def iterate() -> float:
        nonlocal obs
        while not agent.ready():
            step = env.step(agent.act(obs))
            agent.observe(step)
            obs = step.obs
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = clock()
        agent.update(0.0, lambda: False)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return clock() - began

    return iterate


def line(algo: str, width: int, device: torch.device) -> str:
    """The table's line of one algorithm and width."""
    plain, mixed = update(algo, width, device, bf16=False), update(algo, width, device, bf16=True)
    for _ in range(2):
        plain(), mixed()
    seconds = np.array([(plain(), mixed()) for _ in range(PAIRS)])
    ratio = np.median(seconds[:, 1] / seconds[:, 0])
    without, with_it = 1e3 * np.median(seconds, axis=0)
    return f"| {algo} | {width}-{width} | {without:.0f} ms | {with_it:.0f} ms | {ratio:.2f} |"


def processor(device: torch.device) -> str:
    """What multiplies."""
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    return f"one thread, {torch.backends.cpu.get_cpu_capability()}"


def main() -> None:
    """Measure, print, and on a CPU write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    device = torch.device(parser.parse_args().device)
    torch.set_num_threads(1)
    lines = [
        f"An update on {ENV}, {COPIES} copies; {processor(device)}, torch {torch.__version__}, commit {code_commit()}; "
        f"medians of {PAIRS} pairs in turn. `python -m benchmarks.precision`",
        "",
        "| algorithm | hidden | float32 | `--amp bf16` | time beside |",
        "|---|---|---|---|---|",
        *(line(algo, width, device) for algo in ("mappo", "maddpg") for width in WIDTHS),
    ]
    written = "\n".join(lines) + "\n"
    if device.type == "cpu":
        TABLE.write_text(written, encoding="utf-8")
    print(written)


if __name__ == "__main__":
    main()
