"""What each measure and setting is worth: one change at a time from MAPPO's defaults, three tasks, several seeds.

    python -m benchmarks.ablation                 # trains what is missing, then writes the table
    python -m benchmarks.ablation --only norm     # variants whose name contains a word
    python -m benchmarks.ablation --table         # the table alone

A default is kept where no variant is better beyond the noise on the mean over tasks.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import marl_stable as ms
from benchmarks.trials import RESULTS, Trial, read, run_missing
from marl_stable.evaluation import UNIT

FILE = RESULTS / "ablation.jsonl"
TABLE = RESULTS / "ablation.md"
SEEDS = 3
STEPS = 500_000
TASKS: dict[str, dict[str, Any]] = {
    "spread, discrete": {"env": "particle/simple_spread_v3"},
    "spread, continuous": {"env": "particle/simple_spread_v3", "env__kwargs": {"continuous_actions": True}},
    "speaker listener": {"env": "particle/simple_speaker_listener_v4"},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "all measures off": {"measures": "none"},
    "64-64": {"algo__network__hidden": (64, 64)},
    "256-256": {"algo__network__hidden": (256, 256)},
    "no LayerNorm": {"algo__network__norm": "none"},
    "BatchNorm": {"algo__network__norm": "batch"},
    "residual blocks": {"algo__network__block": "residual"},
    "activation relu": {"algo__network__activation": "relu"},
    "init xavier": {"algo__network__init": "xavier"},
    "init he": {"algo__network__init": "he"},
    "final layer like hidden": {"algo__network__final_init": "none"},
    "no tanh and scaling": {"algo__squash": False},
    "no observation normalisation": {"algo__normalize_obs": False},
    "reward scaling": {"algo__normalize_reward": True},
    "no value normalisation": {"algo__normalize_value": False},
    "no clipping": {"algo__max_grad_norm": "none"},
    "clip at 0.5": {"algo__max_grad_norm": 0.5},
    "action penalty 0.001": {"algo__action_penalty": 1e-3},
    "weight decay 0.01": {"algo__weight_decay": 1e-2},
    "l1 0.0001": {"algo__l1": 1e-4},
    "constant rate": {"algo__lr_schedule": "constant"},
    "cosine decay": {"algo__lr_schedule": "cosine"},
    "kl schedule": {"algo__lr_schedule": "kl"},
    "target kl 0.02": {"algo__target_kl": 0.02},
    "no sharing": {"algo__share": False},
    "lr 2e-3": {"algo__lr": 2e-3},
    "lr 8e-3": {"algo__lr": 8e-3},
    "gamma 0.99": {"algo__gamma": 0.99},
    "entropy 0": {"algo__entropy_coef": 0.0},
    "Adam b2 0.99": {"algo__adam_betas": (0.9, 0.99)},
    "2 epochs": {"algo__update_epochs": 2},
    "8 epochs": {"algo__update_epochs": 8},
    "4 minibatches": {"algo__num_minibatches": 4},
    "16 minibatches": {"algo__num_minibatches": 16},
}


def trials(only: str, seeds: int) -> list[Trial]:
    """All variants on all tasks, seed by seed, so that an unfinished table is a fair one."""
    found = []
    for seed in range(1, seeds + 1):
        for name, change in VARIANTS.items():
            if only not in name:
                continue
            for task, flags in TASKS.items():
                extra = {"total_steps": STEPS, "eval_every": 0, "eval_episodes": 400}
                found.append(Trial(name, task, seed, flags | change | extra))
    return found


def measure(run: ms.Run) -> dict[str, Any]:
    """The final greedy evaluation."""
    return {"return": run.returns[-1][1]}


def table() -> str:
    """Means over seeds, and the change against the default in units of its deviation over seeds."""
    entries = list(read(FILE))
    by_place: dict[tuple[str, str], list[float]] = {}
    for entry in entries:
        by_place.setdefault((entry["variant"], entry["task"]), []).append(entry["return"])
    lines = [
        f"Greedy return ({UNIT}) after {STEPS:,} steps, 400 episodes, mean over seeds (lowest); one change at a time.",
        "",
        "| variant | " + " | ".join(TASKS) + " | mean change |",
        "|---|" + "---|" * (len(TASKS) + 1),
    ]
    base = {task: float(np.mean(by_place.get(("default", task), [np.nan]))) for task in TASKS}
    for name in VARIANTS:
        cells, changes = [], []
        for task in TASKS:
            values = by_place.get((name, task), [])
            cells.append(f"{np.mean(values):.2f} ({min(values):.2f}; {len(values)})" if values else "")
            changes.append(float(np.mean(values)) - base[task] if values else np.nan)
        change = float(np.mean(changes))
        lines.append(f"| {name} | {' | '.join(cells)} | {change:+.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="variants whose name contains this")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    if not asked.table:
        run_missing(trials(asked.only, asked.seeds), FILE, measure)
    TABLE.write_text(table(), encoding="utf-8")
    print(table())


if __name__ == "__main__":
    main()
