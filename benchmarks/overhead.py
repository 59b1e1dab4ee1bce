"""What being watched and guarded costs: seconds per iteration and memory, beside the same training without.

    python -m benchmarks.overhead                # writes results/overhead.md
    python -m benchmarks.overhead --rounds 9 --algo mappo

The arms are processes of their own, new ones in every round, which take turns: each trains a few iterations while the
others wait, so that a machine that is slow for a while is slow for all. Ratios are of the medians of one round. Cost
is meant to be within 2% of the time and 1% of the memory.
"""

from __future__ import annotations

import argparse
import gc
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from typing import Any

import numpy as np
import torch

import marl_stable as ms
from benchmarks.provenance import code_commit
from benchmarks.trials import RESULTS
from marl_stable import loop
from marl_stable.training import Training

TABLE = RESULTS / "overhead.md"
ARMS = ("off", "monitor", "guard")
ITERATIONS = {"mappo": 8, "maddpg": 10}  # of a turn: as many readings of the probe are among them in each
ROUNDS, TURNS = 7, 2
ENV = "particle/simple_spread_v3"


def serve(algo: str, level: str) -> None:
    """Train under orders: for every line read, the iterations of a turn, and then a line with what they took."""
    log, count = loop.log, 0
    began = 0.0

    def counted(run: Training, *given: Any) -> None:
        nonlocal count, began
        log(run, *given)
        count += 1
        if count % ITERATIONS[algo] == 0:
            took = time.process_time() - began
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            sys.stdout.write(f"{took} {peak} {held()}\n")
            sys.stdout.flush()
            if not sys.stdin.readline():
                raise KeyboardInterrupt
            began = time.process_time()

    loop.log = counted  # type: ignore[assignment]
    # No warm-up without updates, and no end in sight, so that every iteration is like the others.
    flags: dict[str, Any] = {"algo__warm_up": 0} if algo == "maddpg" else {}
    flags |= {"eval_every": 0, "checkpoint_every": 10**9, "total_steps": 10**8, "quiet": True, "threads": 1}
    with tempfile.TemporaryDirectory() as folder, suppress(KeyboardInterrupt):
        ms.train(algo=algo, env=ENV, stability=level, run_dir=f"{folder}/run", seed=1, **flags)


def held() -> int:
    """Bytes of all tensors."""
    seen: dict[int, int] = {}
    for thing in gc.get_objects():
        with suppress(Exception):  # objects that are no longer whole
            if isinstance(thing, torch.Tensor):
                storage = thing.untyped_storage()
                seen[storage.data_ptr()] = storage.nbytes()
    return sum(seen.values())


def measured(algo: str, rounds: int) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """For each arm `(rounds, 3)`: seconds of an iteration, peak of the process's memory, bytes of tensors."""
    rows = [taken_in_turn(algo, forwards=turn % 2 == 0) for turn in range(rounds)]
    return {arm: np.array([row[arm] for row in rows]) for arm in ARMS}


def taken_in_turn(algo: str, forwards: bool) -> dict[str, list[float]]:
    """One round, of processes that are new: where its memory came to lie makes one faster than another by percents."""
    command = [sys.executable, "-m", "benchmarks.overhead", "--serve", algo]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    processes: dict[str, Any] = {}
    found: dict[str, list[list[float]]] = {arm: [] for arm in ARMS}
    for arm in ARMS:
        processes[arm] = subprocess.Popen([*command, arm], text=True, **pipes)
        processes[arm].stdout.readline()  # a first turn, to warm up
    for _ in range(TURNS):
        for arm in ARMS if forwards else reversed(ARMS):
            processes[arm].stdin.write("go\n")
            processes[arm].stdin.flush()
            seconds, peak, tensors = map(float, processes[arm].stdout.readline().split())
            found[arm].append([seconds / ITERATIONS[algo], peak * 1024, tensors])
    for process in processes.values():
        process.stdin.close()
        process.wait()
    return {arm: [*np.median([turn[:1] for turn in turns], axis=0), *turns[-1][1:]] for arm, turns in found.items()}


def lines_of(algo: str, found: dict[str, np.ndarray[Any, np.dtype[np.float64]]]) -> list[str]:
    """The table's lines: cost in percent, time with the 95% bootstrap interval of its median over rounds."""
    off = found["off"]
    lines = []
    for arm in ARMS[1:]:
        ratio = 100 * (found[arm][:, 0] / off[:, 0] - 1)
        draws = np.median(np.random.default_rng(0).choice(ratio, (2_000, len(ratio))), axis=1)
        low, high = np.percentile(draws, [2.5, 97.5])
        peak, tensors = (100 * (found[arm][-1, i] / off[-1, i] - 1) for i in (1, 2))
        seconds = f"{1e3 * np.median(off[:, 0]):.0f} ms"
        lines.append(
            f"| {algo} | {arm} | {seconds} | {np.median(ratio):+.1f}% ({low:+.1f} to {high:+.1f}) "
            f"| {peak:+.1f}% | {tensors:+.1f}% of {off[-1, 2] / 1e6:.1f} MB |"
        )
    return lines


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--algo", choices=ITERATIONS, help="this one alone, and no table in the results")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(*asked.serve)
        return
    lines = [
        f"Processor time of an iteration with the defaults on {ENV}, one thread, beside `--stability off`; medians of "
        f"{asked.rounds} rounds, torch {torch.__version__}, commit {code_commit()}. `python -m benchmarks.overhead`",
        "",
        "| algorithm | stability | an iteration | time | peak of the process | tensors |",
        "|---|---|---|---|---|---|",
    ]
    for algo in [asked.algo] if asked.algo else ITERATIONS:
        lines += lines_of(algo, measured(algo, asked.rounds))
    written = "\n".join(lines) + "\n"
    if not asked.algo:
        TABLE.write_text(written, encoding="utf-8")
    print(written)


if __name__ == "__main__":
    main()
