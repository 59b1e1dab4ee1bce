"""Does it learn: MAPPO with its defaults on cooperative navigation, evaluated greedily on the original mpe2 task.

    python -m benchmarks.learning                 # trains what is missing (about an hour), then writes the table
    python -m benchmarks.learning --table         # the table alone

The last checkpoint is evaluated, not the best; a seed is dead where it is no better than the best constant action.
"""

from __future__ import annotations

import argparse
from itertools import product
from typing import Any

import numpy as np
from scipy.stats import trim_mean

import marl_stable as ms
from benchmarks.trials import RESULTS, Trial, interval, read, run_missing
from marl_stable.evaluation import UNIT
from marl_stable.showing import evaluate

FILE = RESULTS / "learning.jsonl"
TABLE = RESULTS / "learning.md"
SEEDS = range(1, 6)
EPISODES = 400
BEST_CONSTANT = -24.44  # no-op on mpe2 1.1.1; benchmarks/scripted.py measures it
TASKS: dict[str, dict[str, Any]] = {
    "simple_spread_v3, discrete": {"continuous_actions": False},
    "simple_spread_v3, continuous": {"continuous_actions": True},
}
BUDGETS = {"simple_spread_v3, discrete": (1_500_000, 4_000_000), "simple_spread_v3, continuous": (2_000_000, 4_000_000)}


def trials(algo: str, seeds: range) -> list[Trial]:
    """Every training of the table, the short budgets first."""
    flags = {
        (task, steps): {
            "algo": algo,
            "env": "particle/simple_spread_v3",
            "env__kwargs": kwargs,
            "total_steps": steps,
            "eval_every": 250_000,
        }
        for task, kwargs in TASKS.items()
        for steps in BUDGETS[task]
    }
    ordered = sorted(flags, key=lambda key: key[1])
    return [Trial(algo, task, seed, flags[task, steps]) for (task, steps), seed in product(ordered, seeds)]


def measure(run: ms.Run) -> dict[str, Any]:
    """Greedy return of the last checkpoint on mpe2, and the curve on the twin."""
    found = evaluate(run.path, "mpe2/simple_spread_v3", episodes=EPISODES, checkpoint="last")
    seconds = run.folder.metadata["seconds"]
    best = max(value for _, value in run.returns)
    return {
        "return": found["return"]["mean"],
        "curve": run.returns,
        "best_to_final": best - run.returns[-1][1],
        "steps_per_second": round(run.folder.metadata["steps"] / seconds),
    }


def table() -> str:
    """The results as Markdown."""
    entries = list(read(FILE))
    lines = [
        f"Greedy return of the last checkpoint on mpe2 1.1.1 ({UNIT}), {EPISODES} episodes a seed.",
        "",
        "| task | algorithm | steps | IQM | 95% interval | seeds | worst | dead | best to final | commit |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for task, variant, steps in sorted({(e["task"], e["variant"], e["total_steps"]) for e in entries}):
        group = [e for e in entries if (e["task"], e["variant"], e["total_steps"]) == (task, variant, steps)]
        values = np.array([e["return"] for e in group])
        low, high = interval(values)
        dead = int((values <= BEST_CONSTANT).sum())
        drop = float(np.mean([e["best_to_final"] for e in group]))
        lines.append(
            f"| {task} | {variant} | {steps / 1e6:g}M | {trim_mean(values, 0.25):.2f} | {low:.2f} to {high:.2f} "
            f"| {len(values)} | {values.min():.2f} | {dead} | {drop:.2f} | {group[-1]['commit'][:10]} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algo", default="mappo")
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument("--only", default="", help="tasks whose name contains this")
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    if not asked.table:
        chosen = [trial for trial in trials(asked.algo, range(1, asked.seeds + 1)) if asked.only in trial.task]
        run_missing(chosen, FILE, measure)
    TABLE.write_text(table(), encoding="utf-8")
    print(table())


if __name__ == "__main__":
    main()
