"""What the guard is worth: the same trainings with it and without, seed by seed, where all is well and where it is not.

    python -m benchmarks.guard                   # trains what is missing, then writes the table
    python -m benchmarks.guard --only match      # tasks or conditions whose name contains a word
    python -m benchmarks.guard --seeds 5 --table # the table alone

A score is 0 for play without learning and 1 for the clean training without a guard (benchmarks.scoring). Runs that the
guard stops are scored by what they leave behind, and count as they are.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import marl_stable as ms
from benchmarks.provenance import made_with, outdated, told
from benchmarks.sabotage import at_boundaries, sabotaged
from benchmarks.scoring import latest, score, worth
from benchmarks.trials import RESULTS, read
from marl_stable.agents.config import default_config
from marl_stable.config import EnvConfig
from marl_stable.training import Training

FILE = RESULTS / "guard.jsonl"
ARMS = ("monitor", "guard", "repair")
SEEDS = 5
ONSET = 0.5  # share of the run at which faults begin
TASKS: dict[str, dict[str, Any]] = {
    "match, mappo": {"env": "marl_stable.envs.probe:Match", "algo": "mappo", "total_steps": 24_000},
    "match, maddpg": {"env": "marl_stable.envs.probe:Match", "algo": "maddpg", "total_steps": 24_000},
    "spread, mappo": {"env": "particle/simple_spread_v3", "algo": "mappo", "total_steps": 300_000},
    "spread, maddpg": {"env": "particle/simple_spread_v3", "algo": "maddpg", "total_steps": 100_000},
}
SMALL: dict[str, Any] = {
    "mappo": {"env__num_envs": 16, "algo__batch_size": 512, "algo__network__hidden": (32,)},
    "maddpg": {
        "env__num_envs": 16,
        "algo__train_every": 512,
        "algo__steps_per_update": 16,
        "algo__batch_size": 128,
        "algo__warm_up": 1024,
    },
}


class Condition(NamedTuple):
    """What goes wrong: times the usual rate from the beginning on, or a fault in mid-run."""

    rate: float = 1.0
    fault: str = ""
    dose: float = 1.0


CONDITIONS = {
    "clean": Condition(),
    "plain and clean": Condition(),
    "rate x30": Condition(rate=30),
    "rate x30 in mid-run": Condition(fault="learning_rate_high", dose=30),
    "gradient x1e6, once": Condition(fault="gradient_spike", dose=1e6),
    "large weights": Condition(fault="large_weights", dose=30),
    "actor lost": Condition(fault="actor_lost"),
}


class Job(NamedTuple):
    """One training."""

    task: str
    condition: str
    arm: str
    seed: int

    def flags(self) -> dict[str, Any]:
        """What `ms.train` is told, but for the folder."""
        about, task = CONDITIONS[self.condition], TASKS[self.task]
        algo = task["algo"]
        flags = task | {"seed": self.seed, "stability": self.arm, "eval_every": 0, "eval_episodes": 100, "quiet": True}
        flags |= SMALL[algo] if self.task.startswith("match") else {}
        if self.condition.startswith("plain"):
            flags["measures"] = "none"
        return flags | ({"algo__lr": about.rate * float(default_config(algo).lr)} if about.rate != 1 else {})


def planted(job: Job) -> AbstractContextManager[None]:
    """Within, the training has the job's fault."""
    about, onset = CONDITIONS[job.condition], int(ONSET * TASKS[job.task]["total_steps"])
    if about.fault == "actor_lost":
        return _losing_the_actor(onset)
    return sabotaged(about.fault, about.dose, onset) if about.fault else contextlib.nullcontext()


def _losing_the_actor(onset: int) -> AbstractContextManager[None]:
    """One step after the onset makes all weights of an actor no numbers, as an overflow does."""
    left = [onset]

    def plant(training: Training) -> None:
        if left and training.steps >= left[0]:
            left.pop()
            optimizer: Any = next(iter(training.agent.learners.values())).actor_optimizer
            optimizer.move = _spoiled(optimizer)

    return at_boundaries(plant)


def _spoiled(optimizer: Any) -> Callable[..., Any]:
    step = optimizer.move

    def spoiled(*given: Any) -> Any:
        optimizer.move = step
        stats = step(*given)
        optimizer.flat.fill_(math.nan)
        return stats

    return spoiled


def perform(job: Job) -> dict[str, Any]:
    """Train, and measure what is left."""
    with tempfile.TemporaryDirectory() as folder, planted(job):
        run = ms.train(**job.flags(), run_dir=str(Path(folder) / "run"))
        found = worth(run.path, EnvConfig(id=TASKS[job.task]["env"]), mends=job.arm != "monitor")
        acts = [entry["action"] for entry in run.incidents if entry["action"] not in ("none", "warned")]
        counts = {action: acts.count(action) for action in sorted(set(acts))}
    return job._asdict() | {"return": found.value, "low": found.low, "status": run.status, "acts": counts}


def run_missing(wanted: list[Job], file: Path) -> Iterator[dict[str, Any]]:
    """Do what `file` does not hold yet, or with other defaults, and append it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    done = {job for entry in read(file) if not outdated(entry, (job := job_of(entry)).flags())}
    for job in wanted:
        if job not in done:
            entry = perform(job) | made_with(job.flags())
            with file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(entry) + "\n")
            yield entry


def job_of(entry: dict[str, Any]) -> Job:
    """The job that an entry is of."""
    return Job(*(entry[name] for name in Job._fields))


def table(entries: list[dict[str, Any]]) -> str:
    """Mean scores by arm, and the paired difference that the guard makes with its 95% interval over seeds."""
    lines = [
        "Mean score over seeds without a guard, with it and with repair; the change against the run of the same seed",
        "without, with its 95% bootstrap interval; what was done in all runs together.",
        "",
        "| task | condition | seeds | monitor | guard | change | repair | change | done |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    scores = _scores(entries)
    for task, condition in dict.fromkeys((entry["task"], entry["condition"]) for entry in entries):
        arms = {arm: scores.get((task, condition, arm), {}) for arm in ARMS}
        seeds = sorted(set.intersection(*(set(found) for found in arms.values())))
        if not seeds:
            continue
        values = {arm: np.array([found[seed] for seed in seeds]) for arm, found in arms.items()}
        cells = [f"{values['monitor'].mean():.2f}"]
        for arm in ARMS[1:]:
            cells += [f"{values[arm].mean():.2f}", _change(values[arm] - values["monitor"])]
        of = [e for e in entries if (e["task"], e["condition"]) == (task, condition)]
        lines.append(f"| {task} | {condition} | {len(seeds)} | {' | '.join(cells)} | {_acts(of)} |")
    return "\n".join(lines) + "\n"


def _scores(entries: list[dict[str, Any]]) -> dict[tuple[str, str, str], dict[int, float]]:
    """`(task, condition, arm)` to the score by seed; the mark of a task is its clean training without a guard."""
    found: dict[tuple[str, str, str], dict[int, float]] = {}
    for task in dict.fromkeys(entry["task"] for entry in entries):
        here = [entry for entry in entries if entry["task"] == task]
        clean = [e["return"] for e in here if (e["condition"], e["arm"]) == ("clean", "monitor")]
        for e in here:
            value = score(e["return"], e["low"], float(np.mean(clean))) if clean else math.nan
            found.setdefault((task, e["condition"], e["arm"]), {})[e["seed"]] = value
    return found


def _change(differences: np.ndarray[Any, np.dtype[np.float64]]) -> str:
    draws = np.random.default_rng(0).choice(differences, (2_000, len(differences))).mean(1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return f"{differences.mean():+.2f} ({low:+.2f} to {high:+.2f})"


def _acts(entries: list[dict[str, Any]]) -> str:
    counts: dict[str, int] = {}
    for entry in entries:
        for action, count in entry["acts"].items():
            name = f"{entry['arm']} {action}"
            counts[name] = counts.get(name, 0) + count
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "nothing"


def main() -> None:
    """Train what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="tasks or conditions whose name contains this")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    wanted = [
        Job(task, condition, arm, seed)
        for seed in range(1, asked.seeds + 1)
        for task in TASKS
        for condition in CONDITIONS
        for arm in ARMS
        if asked.only in task or asked.only in condition
    ]
    for entry in [] if asked.table else run_missing(wanted, FILE):
        print(entry, flush=True)
    entries = latest(read(FILE), job_of)
    former = told(sum(outdated(entry, job_of(entry).flags()) for entry in entries), len(entries)).strip()
    written = table(entries) + (f"\n{former}\n" if former else "")
    FILE.with_suffix(".md").write_text(written, encoding="utf-8")
    print(written)


if __name__ == "__main__":
    main()
