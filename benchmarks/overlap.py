"""What there would be to gain if MADDPG learned while workers step, instead of between: both ways, round by round.

    python -m benchmarks.overlap                 # writes results/overlap.md

The loop here acts, steps, stores and updates, and nothing else. Overlapped, each step's share of the round's updates is
done between the order to the workers and their answer: actions come from weights that lag by a fixed number of updates.
Ratios are of two rounds in turn. On a machine that others use too there is little to gain, for no core is idle while a
process waits; processor time tells what free cores could gain at most.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from benchmarks.provenance import code_commit
from benchmarks.trials import RESULTS
from marl_stable.agents.config import MADDPGConfig
from marl_stable.agents.maddpg import MADDPG
from marl_stable.config import EnvConfig
from marl_stable.envs import catalog

TABLE = RESULTS / "overlap.md"
ENV, COPIES, WORKERS = "mpe2/simple_spread_v3", 32, 2
ROUND = 640  # steps; a quarter of the default, so that both of a pair meet the same weather
SECONDS = 60


@dataclass
class Loop:
    """A training's rounds, without what is watched, logged and saved."""

    envs: Any
    agent: MADDPG
    obs: Any
    left: int = 0  # updates of this round
    meanwhile: Callable[[], None] = field(default=lambda: None)  # done while workers step

    def round(self, overlapped: bool) -> float:
        """Steps until the updates are due, and the updates; seconds."""
        agent, updates = self.agent, ROUND // self.agent.config.steps_per_update
        losses: dict[str, list[dict[str, torch.Tensor]]] = {name: [] for name in agent.learners}
        self.left, began = updates, time.perf_counter()

        def learn(left: float) -> None:
            while self.left > left:
                agent._learn(losses, 1.0)
                self.left -= 1

        for t in range(1, agent.rollout_steps + 1):
            self.meanwhile = lambda t=t: learn(updates * (1 - t / agent.rollout_steps) if overlapped else updates)  # type: ignore[misc]
            step = self.envs.step(agent.act(self.obs))
            agent.observe(step)
            self.obs = step.obs
        learn(0)
        return time.perf_counter() - began


def made() -> Loop:
    """A loop whose workers' answers are awaited only after `meanwhile`."""
    device = torch.device("cpu")
    envs: Any = catalog.make(EnvConfig(id=ENV, workers=WORKERS), device, COPIES)
    config = replace(MADDPGConfig(), gamma=0.95, warm_up=0, train_every=ROUND)
    loop = Loop(envs, MADDPG(envs.spec, config, COPIES, device, seed=1), envs.reset(1))
    answers = envs._crew._answers

    def after(*given: Any) -> Any:
        loop.meanwhile()
        loop.meanwhile = lambda: None  # an episode's begin is awaited as it is
        return answers(*given)

    envs._crew._answers = after
    return loop


def processor_seconds() -> float:
    """Of this process, and of no other."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    loop = made()
    loop.round(False), loop.round(True)
    pairs, began, used = [], time.monotonic(), processor_seconds()
    while time.monotonic() < began + asked.seconds:
        pairs.append((loop.round(False), loop.round(True)))
    here = (processor_seconds() - used) / (2 * len(pairs) * ROUND)
    loop.envs.close()
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)
    theirs = (workers.ru_utime + workers.ru_stime) / ((2 * len(pairs) + 2) * ROUND)
    ratio = np.array([between / meanwhile for between, meanwhile in pairs])
    draws = np.median(np.random.default_rng(0).choice(ratio, (2_000, len(ratio))), axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    machine = f"{COPIES} copies, {WORKERS} workers, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    between, meanwhile = np.median(np.array(pairs), axis=0)
    lines = [
        f"MADDPG on {ENV}, {machine}; torch {torch.__version__}, {code_commit()}. `python -m benchmarks.overlap`",
        "",
        "| pairs | seconds of a round, updates between steps | while workers step | speed beside | 95% interval |",
        "|---|---|---|---|---|",
        f"| {len(pairs)} | {between:.2f} | {meanwhile:.2f} | {np.median(ratio):.2f} | {low:.2f} to {high:.2f} |",
        "",
        f"Processor time of a step: {1e3 * here:.2f} ms in the training, {1e3 * theirs:.2f} ms in workers.",
    ]
    written = "\n".join(lines) + "\n"
    TABLE.write_text(written, encoding="utf-8")
    print(written)


if __name__ == "__main__":
    main()
