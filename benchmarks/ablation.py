"""What each measure and setting is worth: one change at a time from an algorithm's defaults, several tasks and seeds.

    python -m benchmarks.ablation                 # MAPPO: trains what is missing, then writes the table
    python -m benchmarks.ablation --algo matd3    # the same for the family with a replay
    python -m benchmarks.ablation --only norm     # variants whose name contains a word
    python -m benchmarks.ablation --part 1/2      # every second training, for two processes at once
    python -m benchmarks.ablation --table         # the table alone

A default is kept where no variant is better beyond the noise on the mean over tasks. Stressed tasks are scored without
their faults: rewards 10,000 times as large, of which one in 100,000 is an outlier, one feature 100,000 times as large,
and one that is no number once in 10,000 steps.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import marl_stable as ms
from benchmarks.faults.conditions import FAULTS
from benchmarks.provenance import by_today, outdated, told
from benchmarks.scoring import EPISODES, worth
from benchmarks.trials import RESULTS, Trial, part_of, read, run_missing, told_mean
from marl_stable.config import EnvConfig
from marl_stable.evaluation import UNIT

SEEDS = 3
DISTORTED = "benchmarks.faults:distorted"
STRESS = ("reward_huge", "reward_spike", "obs_scale", "obs_nan")


def stressed(env: str) -> dict[str, Any]:
    """The kwargs of a task in which several things are wrong at once."""
    faults = [fault for name in STRESS for fault in FAULTS[name].kwargs(env)["faults"]]
    return {"env": env, "env_kwargs": {}, "faults": faults}


SPREAD, SPEAKER = "particle/simple_spread_v3", "particle/simple_speaker_listener_v4"
TASKS: dict[str, dict[str, Any]] = {
    "spread, discrete": {"env": SPREAD},
    "spread, continuous": {"env": SPREAD, "env__kwargs": {"continuous_actions": True}},
    "speaker listener": {"env": SPEAKER},
}
STRESSED: dict[str, dict[str, Any]] = {
    "spread, stressed": {"env": DISTORTED, "env__kwargs": stressed(SPREAD)},
    "speaker listener, stressed": {"env": DISTORTED, "env__kwargs": stressed(SPEAKER)},
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
    "deviation 0.6 at first": {"algo__log_std_init": -0.5},
    "deviation 1 at first": {"algo__log_std_init": 0.0},
    "deviation 2 at first": {"algo__log_std_init": 0.7},
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
    "no LayerNorm": {"algo__network__norm": "none"},
    "LayerNorm in the critic alone": {"algo__actor_network__norm": "none"},
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
    "512 rows every 64 steps": {"algo__batch_size": 512, "algo__steps_per_update": 64},
    "128 rows every 16 steps": {"algo__batch_size": 128, "algo__steps_per_update": 16},
    "one critic": {"algo__twin_critics": False},
    "no delay": {"algo__policy_delay": 1},
    "straight-through gradients": {"algo__discrete_gradient": "straight_through"},
    "no target noise": {"algo__target_noise": 0.0},
    "no warm-up": {"algo__warm_up": 0},
    "no sharing": {"algo__share": False},
}


class Ablation(NamedTuple):
    """One algorithm's variants, and where their results stand."""

    algo: str
    variants: dict[str, dict[str, Any]]
    steps: Mapping[str, int]  # by task
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
        fixed = {"algo": self.algo, "eval_every": 0, "eval_episodes": EPISODES}
        return [
            Trial(name, task, seed, (TASKS | STRESSED)[task] | change | fixed | {"total_steps": steps})
            for seed in range(1, seeds + 1)
            for name, change in self.variants.items()
            for task, steps in self.steps.items()
            if only in name
        ]


ON_STEPS = {"spread, discrete": 500_000, "spread, continuous": 500_000, "speaker listener": 500_000}
ABLATIONS = {
    "mappo": Ablation("mappo", ON_POLICY, ON_STEPS | {"spread, stressed": 300_000}, "ablation"),
    "matd3": Ablation(
        "matd3",
        OFF_POLICY,
        {"spread, continuous": 200_000, "speaker listener": 100_000, "speaker listener, stressed": 100_000},
        "ablation_matd3",
    ),
}


def measure(run: ms.Run, trial: Trial) -> dict[str, Any]:
    """Greedy, with the last networks: the training's own evaluation; of a stressed task, the true return."""
    if trial.task not in STRESSED:
        return {"return": run.returns[-1][1]}
    env = EnvConfig(id=DISTORTED, kwargs=trial.flags["env__kwargs"] | {"score": True})
    return {"return": worth(run.path, env, mends=True).value}


def table(ablation: Ablation) -> str:
    """Means over seeds, and the change of their mean over tasks against the default, stressed ones apart."""
    entries = _comparable(list(read(ablation.file)))
    former = sum(outdated(entry, entry["flags"]) for entry in entries)
    by_place: dict[tuple[str, str], list[float]] = {}
    for entry in entries:
        by_place.setdefault((entry["variant"], entry["task"]), []).append(entry["return"])
    commits, devices = (sorted({str(entry[part])[:10] for entry in entries}) for part in ("commit", "device"))
    titles = [f"{task}, {steps:,} steps" for task, steps in ablation.steps.items()]
    lines = [
        f"Greedy return ({UNIT}), {EPISODES} episodes, mean over seeds (the lowest; how many); one change at a time. "
        f"Commits {', '.join(commits)}, trained on {', '.join(devices)}. {ablation.command}"
        f"{told(former, len(entries))}",
        "",
        f"| {ablation.algo} | " + " | ".join(titles) + " | mean change | stressed |",
        "|---|" + "---|" * (len(titles) + 2),
    ]
    base = {task: float(np.mean(by_place.get(("default", task), [np.nan]))) for task in ablation.steps}
    for name in ablation.variants:
        found = {task: by_place.get((name, task), []) for task in ablation.steps}
        if not any(found.values()):
            continue
        cells = [told_mean(of) for of in found.values()]
        changes = {task: float(np.mean(of)) - base[task] for task, of in found.items() if of}
        clean = [change for task, change in changes.items() if task not in STRESSED]
        hard = [change for task, change in changes.items() if task in STRESSED]
        means = [f"{np.mean(part):+.2f}" if part else "" for part in (clean, hard)]
        lines.append(f"| {name} | {' | '.join([*cells, *means])} |")
    return "\n".join(lines) + "\n"


def _comparable(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each task those of today, and all of them until its default has been trained anew: changes are against it."""
    found = []
    for task in dict.fromkeys(entry["task"] for entry in entries):
        of = [entry for entry in entries if entry["task"] == task]
        today = by_today(of)
        found += today if any(entry["variant"] == "default" for entry in today) else of
    return found


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
        for trial in part_of(ablation.trials(asked.only, asked.seeds), asked.part):
            run_missing([trial], ablation.file, partial(measure, trial=trial))
    written = table(ablation)
    ablation.file.with_suffix(".md").write_text(written, encoding="utf-8")
    print(written)


if __name__ == "__main__":
    main()
