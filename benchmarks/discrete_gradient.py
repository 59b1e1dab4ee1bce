"""What MADDPG's actors of discrete actions learn from: the critic's value of each action, or its slope at one.

    python -m benchmarks.discrete_gradient              # trains what is missing, then writes the table
    python -m benchmarks.discrete_gradient --part 1/2   # every second training, for two processes at once
    python -m benchmarks.discrete_gradient --table      # the table alone

Probe games have a known answer, and are played with networks of several sizes: a game counts as solved at nine tenths
of its best return or more. Tasks are learned with all defaults.
"""

from __future__ import annotations

import argparse
from itertools import product
from typing import Any

import numpy as np

import marl_stable as ms
from benchmarks.guard import SMALL
from benchmarks.provenance import by_today
from benchmarks.trials import RESULTS, Trial, part_of, read, run_missing, told_mean
from marl_stable.envs.probe import GAMES
from marl_stable.evaluation import UNIT

FILE = RESULTS / "discrete_gradient.jsonl"
WAYS = ("expected", "straight_through")
SEEDS, GAME_SEEDS, EPISODES = 3, 8, 400
GAME_STEPS, SOLVED = 16_000, 0.9
PLAYED = ("Match", "Roles")
WIDTHS = ((8,), (16,), (32,), (64,), (128,), (32, 32), (64, 64))
TASKS = {
    "particle/simple_speaker_listener_v4": 100_000,
    "particle/simple_spread_v3": 300_000,
    "particle/simple_reference_v3": 200_000,
}
BASE: dict[str, Any] = {"algo": "maddpg", "eval_every": 0}
Places = dict[tuple[str, str], list[dict[str, Any]]]  # entries by task and way


def trials() -> list[Trial]:
    """All of them, seed by seed."""
    found = []
    for seed in range(1, GAME_SEEDS + 1):
        for way in WAYS:
            flags = BASE | {"algo__discrete_gradient": way}
            for game, width in product(PLAYED, WIDTHS):
                env = {"env": f"marl_stable.envs.probe:{game}", "total_steps": GAME_STEPS, "eval_episodes": 100}
                size = SMALL["maddpg"] | {"algo__network__hidden": width}
                found.append(Trial(way, game_of(game, width), seed, flags | env | size))
            for task, steps in TASKS.items() if seed <= SEEDS else ():
                env = {"env": task, "total_steps": steps, "eval_episodes": EPISODES}
                found.append(Trial(way, task, seed, flags | env))
    return found


def game_of(game: str, width: tuple[int, ...]) -> str:
    """What a game with networks of one size is called."""
    return f"{game}, {'-'.join(map(str, width))}"


def measure(run: ms.Run) -> dict[str, Any]:
    """Greedy, with the last networks."""
    return {"return": run.returns[-1][1]}


def table(entries: list[dict[str, Any]]) -> str:
    """Solved games by size, then the returns of tasks."""
    by_place: Places = {}
    for entry in entries:
        by_place.setdefault((entry["task"], entry["variant"]), []).append(entry)
    commits = ", ".join(sorted({str(entry["commit"])[:10] for entry in entries}))
    return "\n".join(
        [
            f"MADDPG by `algo.discrete_gradient`. Commits {commits}. `python -m benchmarks.discrete_gradient`",
            "",
            f"Trainings of {GAME_STEPS:,} steps that solve a probe game, by the widths of hidden layers:",
            "",
            f"| game | {' | '.join(WAYS)} |",
            "|---|" + "---|" * len(WAYS),
            *_games(by_place),
            "",
            f"Greedy return ({UNIT}) of {EPISODES} episodes, mean over seeds (the lowest; how many), and seconds:",
            "",
            f"| task | {' | '.join(f'{way} | seconds' for way in WAYS)} |",
            "|---|" + "---|---|" * len(WAYS),
            *_tasks(by_place),
            "",
        ]
    )


def _games(by_place: Places) -> list[str]:
    lines, totals = [], {way: np.zeros(2, int) for way in WAYS}
    for game, width in product(PLAYED, WIDTHS):
        cells = []
        for way in WAYS:
            returns = [entry["return"] for entry in by_place.get((game_of(game, width), way), [])]
            solved = sum(value >= SOLVED * GAMES[game].best_return for value in returns)
            totals[way] += (solved, len(returns))
            cells.append(f"{solved} of {len(returns)}")
        lines.append(f"| {game_of(game, width)} | {' | '.join(cells)} |")
    return [*lines, f"| all | {' | '.join(f'{solved} of {n}' for solved, n in totals.values())} |"]


def _tasks(by_place: Places) -> list[str]:
    lines = []
    for task, steps in TASKS.items():
        cells = []
        for way in WAYS:
            found = by_place.get((task, way), [])
            cells.append(told_mean([entry["return"] for entry in found]))
            cells.append(f"{np.median([entry['seconds'] for entry in found]):.0f}" if found else "")
        lines.append(f"| {task}, {steps:,} steps | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Train what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="1/1", help="i/n: the i-th of n interleaved parts")
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    if not asked.table:
        run_missing(part_of(trials(), asked.part), FILE, measure)
    written = table(by_today(list(read(FILE))))
    FILE.with_suffix(".md").write_text(written, encoding="utf-8")
    print(written)


if __name__ == "__main__":
    main()
