"""`make demo`: from nothing to agents that have learned, in numbers and in a picture.

Trains the shipped preset on the batched task, evaluates on the original mpe2 one, and sets the result beside what
random, constant and hand-written policies reach there.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

import marl_stable as ms
from benchmarks.scripted import spread_return
from marl_stable.evaluation import UNIT, describe
from marl_stable.showing import evaluate, render
from marl_stable.types import UsageError

PRESET = "mappo_simple_spread"
ORIGINAL = "mpe2/simple_spread_v3"
EPISODES = 100


def main() -> int:
    """Train, evaluate, print the table, draw the agents."""
    try:
        run = ms.train(PRESET)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if run.status != "finished":
        return 130 if run.status == "interrupted" else 3
    learned = evaluate(run.path, ORIGINAL, episodes=EPISODES)["return"]
    scripted = describe(spread_return(continuous=False, episodes=EPISODES, seed=0))
    baselines = run.folder.metadata["baselines"]
    rows = {
        "learned (MAPPO, greedy)": (learned["mean"], learned["ci95"]),
        "scripted expert": (scripted["mean"], scripted["ci95"]),
        "best constant action": (baselines["best_constant"]["return"], baselines["best_constant"]["ci95"]),
        "random": (baselines["random"]["return"], baselines["random"]["ci95"]),
    }
    table = Table("policy", "return", "95% interval", title=f"{ORIGINAL}, {EPISODES} episodes ({UNIT})")
    for name, (mean, (low, high)) in rows.items():
        table.add_row(name, f"{mean:.2f}", f"{low:.2f} to {high:.2f}")
    picture = Path(run.path) / "episode.gif"
    render(run.path, picture)
    console = Console()
    console.print(table)
    console.print(f"run folder  {run.path}\npicture     {picture}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
