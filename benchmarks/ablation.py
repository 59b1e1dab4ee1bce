"""What each measure and setting is worth: one change at a time from an algorithm's defaults, several tasks and seeds.

    python -m benchmarks.ablation                 # MAPPO: trains what is missing, then writes the table
    python -m benchmarks.ablation --algo matd3    # the same for the family with a replay
    python -m benchmarks.ablation --only norm     # variants whose name contains a word
    python -m benchmarks.ablation --part 1/2      # every second training, for two processes at once
    python -m benchmarks.ablation --table         # the table alone

A default is kept where no variant is better beyond the noise on the mean over tasks.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import marl_stable as ms
from benchmarks.trials import RESULTS, Trial, part_of, read, run_missing
from marl_stable.evaluation import UNIT

SEEDS = 3
STEPS = 500_000
TASKS: dict[str, dict[str, Any]] = {
    "spread, discrete": {"env": "particle/simple_spread_v3"},
    "spread, continuous": {"env": "particle/simple_spread_v3", "env__kwargs": {"continuous_actions": True}},
    "speaker listener": {"env": "particle/simple_speaker_listener_v4"},
}
ON_POLICY: dict[str, dict[str, Any]] = {
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
OFF_POLICY: dict[str, dict[str, Any]] = {
    "default": {},
    "all measures off": {"measures": "none"},
    "64-64": {"algo__network__hidden": (64, 64)},
    "LayerNorm": {"algo__network__norm": "layer"},
    "LayerNorm in the critic": {"algo__critic_network__norm": "layer"},
    "BatchNorm": {"algo__network__norm": "batch"},
    "activation tanh": {"algo__network__activation": "tanh"},
    "no observation normalisation": {"algo__normalize_obs": False},
    "no reward scaling": {"algo__normalize_reward": False},
    "no clipping": {"algo__max_grad_norm": "none"},
    "no action penalty": {"algo__action_penalty": 0.0},
    "action penalty 0.001": {"algo__action_penalty": 1e-3},
    "action penalty 0.05": {"algo__action_penalty": 5e-2},
    "squared loss": {"algo__huber": None},
    "constant rate": {"algo__lr_schedule": "constant"},
    "lr 1e-3": {"algo__lr": 1e-3},
    "tau 0.03": {"algo__tau": 0.03},
    "1,024 rows every 128 steps": {"algo__batch_size": 1024, "algo__steps_per_update": 128},
    "256 rows every 32 steps": {"algo__batch_size": 256, "algo__steps_per_update": 32},
    "one critic": {"algo__twin_critics": False},
    "no delay": {"algo__policy_delay": 1},
    "no target noise": {"algo__target_noise": 0.0},
    "no warm-up": {"algo__warm_up": 0},
    "no sharing": {"algo__share": False},
}


class Ablation(NamedTuple):
    """One algorithm's variants, and where their results stand."""

    algo: str
    variants: dict[str, dict[str, Any]]
    tasks: tuple[str, ...]
    name: str

    @property
    def command(self) -> str:
        """What repeats the table."""
        return f"`python -m benchmarks.ablation --algo {self.algo}`"

    @property
    def file(self) -> Path:
        """Results, a line each."""
        return RESULTS / f"{self.name}.jsonl"

    def trials(self, only: str, seeds: int) -> list[Trial]:
        """All variants on all tasks, seed by seed, so that an unfinished table is a fair one."""
        fixed = {"algo": self.algo, "total_steps": STEPS, "eval_every": 0, "eval_episodes": 400}
        return [
            Trial(name, task, seed, TASKS[task] | change | fixed)
            for seed in range(1, seeds + 1)
            for name, change in self.variants.items()
            for task in self.tasks
            if only in name
        ]


ABLATIONS = {
    "mappo": Ablation("mappo", ON_POLICY, tuple(TASKS), "ablation"),
    "matd3": Ablation("matd3", OFF_POLICY, ("spread, continuous", "speaker listener"), "ablation_matd3"),
}


def measure(run: ms.Run) -> dict[str, Any]:
    """The final greedy evaluation."""
    return {"return": run.returns[-1][1]}


def table(ablation: Ablation) -> str:
    """Means over seeds, and the change of their mean over tasks against the default."""
    entries = list(read(ablation.file))
    by_place: dict[tuple[str, str], list[float]] = {}
    for entry in entries:
        by_place.setdefault((entry["variant"], entry["task"]), []).append(entry["return"])
    commits, devices = (sorted({str(entry[part])[:10] for entry in entries}) for part in ("commit", "device"))
    lines = [
        f"Greedy return ({UNIT}) after {STEPS:,} steps, 400 episodes, mean over seeds (lowest; how many); one change "
        f"at a time. Commits {', '.join(commits)}, trained on {', '.join(devices)}. {ablation.command}",
        "",
        f"| {ablation.algo} | " + " | ".join(ablation.tasks) + " | mean change |",
        "|---|" + "---|" * (len(ablation.tasks) + 1),
    ]
    base = {task: float(np.mean(by_place.get(("default", task), [np.nan]))) for task in ablation.tasks}
    for name in ablation.variants:
        cells, changes = [], []
        for task in ablation.tasks:
            values = by_place.get((name, task), [])
            cells.append(f"{np.mean(values):.2f} ({min(values):.2f}; {len(values)})" if values else "")
            changes.append(float(np.mean(values)) - base[task] if values else np.nan)
        change = float(np.mean(changes))
        lines.append(f"| {name} | {' | '.join(cells)} | {change:+.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algo", choices=ABLATIONS, default="mappo")
    parser.add_argument("--only", default="", help="variants whose name contains this")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--part", default="1/1", help="i/n: the i-th of n interleaved parts")
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    ablation = ABLATIONS[asked.algo]
    if not asked.table:
        run_missing(part_of(ablation.trials(asked.only, asked.seeds), asked.part), ablation.file, measure)
    written = table(ablation)
    ablation.file.with_suffix(".md").write_text(written, encoding="utf-8")
    print(written)


if __name__ == "__main__":
    main()
