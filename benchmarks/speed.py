"""How fast: training beside its floor, environments beside their raw selves, many agents beside few, and the waits.

    python -m benchmarks.speed            # about eight minutes on an idle machine; writes results/speed.md
    python -m benchmarks.speed --quick    # ratios alone, from fewer rounds: two minutes, and no file

Ratios are of measurements made in turn, A B A B, with one thread: absolute figures vary by machine. What is measured is
in `benchmarks/timed/`.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.provenance import code_commit
from benchmarks.timed import replay
from benchmarks.timed.crowd import update_seconds
from benchmarks.timed.learning import floor, floor_off_policy, training
from benchmarks.timed.playing import random_actions, raw_mpe2
from benchmarks.timed.rows import Row, table
from benchmarks.timed.starting import seconds_of, seconds_to, seconds_to_first_row
from benchmarks.timed.turns import in_turn
from benchmarks.trials import RESULTS
from marl_stable.agents.config import MADDPGConfig

TABLE = RESULTS / "speed.md"
ROUNDS, QUICK_ROUNDS = 7, 2
SPREAD, BOX = "particle/simple_spread_v3", {"continuous_actions": True}
CROWDS = (3, 10, 30, 100)
SEEDS = (1, 2, 3)  # of the wait for a good return
REPLAY = 1_000_000
SOON_IMPORTED, SOON_LOGGED = 2.0, 5.0  # seconds that are meant not to be exceeded


def work(rounds: int) -> list[Row]:
    """Steps per second of training and of environments."""
    discrete, bare = in_turn(rounds, training(SPREAD, {}, 256), floor(3, 18, 5))
    continuous, bare_box = in_turn(rounds, training(SPREAD, BOX, 256), floor(3, 18, 5))
    gru, plain = in_turn(rounds, training(SPREAD, {}, 256, recurrent="gru"), training(SPREAD, {}, 256))
    maddpg, bare_ddpg = in_turn(rounds, training(SPREAD, BOX, 256, "maddpg"), floor_off_policy(3, 18, 5))
    updates = maddpg / MADDPGConfig().steps_per_update
    on_mpe2, raw = in_turn(rounds, training("mpe2/simple_spread_v3", {}, 32), raw_mpe2(2_000))
    (batched,) = in_turn(rounds, random_actions(1_024, 200))
    return [
        Row(f"MAPPO, defaults, {SPREAD}, discrete", discrete, "floor {}", bare),
        Row("the same, continuous", continuous, "floor {}", bare_box),
        Row("MAPPO with a GRU, discrete", gru, "without {}", plain),
        Row("MADDPG, defaults, continuous: updates/s", updates, "floor {}", bare_ddpg),
        Row("MAPPO on mpe2/simple_spread_v3 in process", on_mpe2, "one raw mpe2 {}", raw),
        Row(f"{SPREAD}, random actions, 1,024 copies", batched, "one raw mpe2 {}", raw, ratio_digits=0),
    ]


def crowds(rounds: int) -> list[Row]:
    """Milliseconds of an update per agent, for many agents beside those for the fewest."""
    kinds = {"shared": True, "one network each": False}
    seconds = in_turn(rounds, *(update_seconds(agents, share) for share in kinds.values() for agents in CROWDS))
    rows = []
    for i, kind in enumerate(kinds):
        few, *many = seconds[i * len(CROWDS) : (i + 1) * len(CROWDS)]
        for agents, each in zip(CROWDS[1:], many, strict=True):
            rows.append(Row(f"{agents} agents, {kind}", 1e3 * each, f"{CROWDS[0]} agents {{}}", 1e3 * few, digits=2))
    return rows


def critics(rounds: int) -> list[Row]:
    """Milliseconds of an update per agent with critics that pool over agents, beside ones that see all side by side."""
    rows = []
    for algo in ("mappo", "maddpg"):
        pairs = [(agents, kind) for agents in CROWDS for kind in ("pool", "concatenate")]
        seconds = in_turn(rounds, *(update_seconds(n, algo=algo, critic_input=kind) for n, kind in pairs))
        for agents, pooled, side_by_side in zip(CROWDS, seconds[::2], seconds[1::2], strict=True):
            rows.append(Row(f"{agents} agents, {algo}", 1e3 * pooled, "concatenate {}", 1e3 * side_by_side, digits=2))
    return rows


def waits(rounds: int) -> list[Row]:
    """Seconds until something happens, beside what they are meant to be at most."""
    imports = ("import marl_stable", "import marl_stable; marl_stable.train", "import torch")
    package, training, torch_alone, logged = in_turn(
        rounds, *(partial(seconds_of, code) for code in imports), seconds_to_first_row
    )
    return [
        Row("`import marl_stable`", package, "target {}", SOON_IMPORTED, digits=2),
        Row("the same and `marl_stable.train`, with torch", training, "target {}", SOON_IMPORTED, digits=2),
        Row("the same", training, "`import torch` alone {}", torch_alone, digits=2),
        Row("`marl-stable train` to the first logged iteration", logged, "target {}", SOON_LOGGED, digits=2),
    ]


def memory() -> list[Row]:
    """Megabytes of a full replay."""
    measured, computed = (bytes_of(REPLAY) / 1e6 for bytes_of in (replay.measured, replay.computed))
    return [Row(f"replay of {REPLAY:,} steps of simple_spread, discrete", measured, "computed {}", computed)]


def report(rounds: int, ratios_only: bool) -> list[str]:
    """All tables, whose parts are measured one after the other."""
    ratios = "; ratios alone" if ratios_only else ""
    lines = [
        f"One thread, {platform.processor() or platform.machine()}, torch {torch.__version__}, commit {code_commit()}; "
        f"medians of {rounds} rounds in turn{ratios}. `python -m benchmarks.speed{' --quick' if ratios_only else ''}`"
    ]
    tables: dict[str, Callable[[], list[Row]]] = {
        "work | steps/s | beside | ratio": lambda: work(rounds),
        "an update of IPPO, per agent | ms | beside | ratio": lambda: crowds(rounds),
        "an update per agent, `--algo.critic-input pool` | ms | beside | ratio": lambda: critics(rounds),
        "wait | s | beside | ratio": lambda: waits(rounds),
        "memory | MB | beside | ratio": memory,
    }
    for heading, measure in tables.items():
        lines += ["", *table(heading, measure(), ratios_only)]
    return lines


def main() -> None:
    """Measure and write the tables, or show their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="ratios alone, from fewer rounds, and nothing is written")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    if quick:
        print("\n".join(report(QUICK_ROUNDS, ratios_only=True)))
        return
    lines = report(ROUNDS, ratios_only=False)
    reached = [f"{seconds:.0f} s ({steps:,} steps)" for seconds, steps in (seconds_to(-10.0, seed) for seed in SEEDS)]
    lines += [
        "",
        "From the command (`train --total-steps 1.2e6`) to a greedy evaluation of -10 or better (200 episodes), "
        f"seed by seed: {', '.join(reached)}.",
    ]
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(TABLE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
