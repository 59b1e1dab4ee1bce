"""Does it learn: every algorithm with its defaults, evaluated greedily on the original task.

    python -m benchmarks.learning                    # trains what is missing (hours), then writes the table
    python -m benchmarks.learning --only reference   # rows whose name contains a text
    python -m benchmarks.learning --part 1/2         # every second training, for two processes at once
    python -m benchmarks.learning --table            # the table alone

The last checkpoint is evaluated, not the best; a seed is dead where it is no better than the best constant action.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

import marl_stable as ms
from benchmarks.provenance import by_today, outdated
from benchmarks.trials import RESULTS, Trial, part_of, read, run_missing
from marl_stable.acting import by_agent, mixed
from marl_stable.agents import algorithm
from marl_stable.config import EnvConfig
from marl_stable.envs import catalog
from marl_stable.evaluation import UNIT, bootstrap_interval, play
from marl_stable.investigate import baselines
from marl_stable.policy import load_agent
from marl_stable.showing import evaluate
from marl_stable.statistics import interquartile_interval, interquartile_mean

FILE = RESULTS / "learning.jsonl"
TABLE = RESULTS / "learning.md"
SEEDS = 5
EPISODES = 400
BASELINE_COPIES = 100
CONTINUOUS = {"continuous_actions": True}


class Row(NamedTuple):
    """One line of the table: a task, an algorithm, a budget; trained on `env`, evaluated on `original`."""

    task: str
    algo: str
    env: str
    kwargs: dict[str, Any]
    steps: int
    original: str

    def trial(self, seed: int) -> Trial:
        """Its training with `seed`."""
        flags = {"algo": self.algo, "env": self.env, "env__kwargs": self.kwargs, "total_steps": self.steps}
        return Trial(self.algo, self.task, seed, flags | {"eval_every": self.steps // 10})


def twin(task: str, algo: str, steps: float, kwargs: dict[str, Any] | None = None) -> Row:
    """A row trained on the batched twin of an mpe2 task."""
    title = f"{task}, {'continuous' if kwargs else 'discrete'}"
    return Row(title, algo, f"particle/{task}", kwargs or {}, int(steps), f"mpe2/{task}")


COOPERATIVE = [
    twin("simple_spread_v3", "mappo", 1.5e6),
    twin("simple_spread_v3", "mappo", 4e6),
    twin("simple_spread_v3", "mappo", 2e6, CONTINUOUS),
    twin("simple_spread_v3", "mappo", 4e6, CONTINUOUS),
    twin("simple_spread_v3", "matd3", 3e6, CONTINUOUS),
    twin("simple_spread_v3", "maddpg", 3e6, CONTINUOUS),
    twin("simple_speaker_listener_v4", "mappo", 1e6),
    twin("simple_speaker_listener_v4", "maddpg", 1e6),
    twin("simple_reference_v3", "mappo", 1e6),
    *(Row(f"vmas/{name}", "mappo", f"vmas/{name}", {}, 600_000, f"vmas/{name}") for name in ("balance", "navigation")),
]
TEAMS = [twin(task, algo, 1e6) for task in ("simple_tag_v3", "simple_adversary_v3") for algo in ("mappo", "maddpg")]


def measure(run: ms.Run, original: str) -> dict[str, Any]:
    """Greedy return of the last checkpoint on the original task, its baselines, and the curve."""
    found = evaluate(run.path, original, episodes=EPISODES, checkpoint="last")
    about = run.folder.metadata
    measured = about["baselines"]
    if measured["best_constant"] is None:  # beyond what a training spends on it
        env = catalog.make(EnvConfig(id=original), torch.device("cpu"), BASELINE_COPIES)
        measured = baselines.measure(env, baselines.random_play(env, 0), 0, budget=10**9)
        env.close()
    known = {name: entry["return"] for name, entry in measured.items()}
    return {
        "return": found["return"]["mean"],
        "error": found["return"]["std"] / math.sqrt(EPISODES),
        "baselines": known,
        "curve": run.returns,
        "best_to_final": max(value for _, value in run.returns) - run.returns[-1][1],
        "steps_per_second": round(about["steps"] / about["seconds"]),
    }


def measure_teams(run: ms.Run, original: str) -> dict[str, Any]:
    """By team: what training won it against the same trained opponents, with its 95% interval over episodes."""
    loaded = load_agent(run.path, "last")
    spec, config = loaded.spec, loaded.agent.config
    untrained = algorithm(config.name)(spec, config, 1, torch.device("cpu"), 0)
    untrained.load_policy_state(_with_normalisers(untrained.policy_state(), loaded.agent.policy_state()))
    env = catalog.make(EnvConfig(id=original), torch.device("cpu"), 32)
    gains = {}
    for team in spec.teams:
        groups = [group.name for group in spec.groups if group.team == team]
        columns = [spec.agents.index(agent) for group in spec.groups if group.team == team for agent in group.agents]
        new = play(env, mixed(spec, by_agent(untrained), groups, by_agent(loaded.agent)), EPISODES, 0)
        old = play(env, by_agent(loaded.agent), EPISODES, 0)
        gain = old.returns[:, columns].mean(axis=1) - new.returns[:, columns].mean(axis=1)  # the same beginnings
        gains[team] = [float(gain.mean()), *bootstrap_interval(gain)]
    env.close()
    return {"gains": gains}


def _with_normalisers(fresh: dict[str, Any], trained: dict[str, Any]) -> dict[str, Any]:
    """The untrained self sees what the trained one sees; only its networks are new."""
    groups = {
        name: parts | {key: part for key, part in trained["groups"][name].items() if key.endswith("_norm")}
        for name, parts in fresh["groups"].items()
    }
    return fresh | {"groups": groups}


def table(entries: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [
        f"Greedy return of the last checkpoint on the original task ({UNIT}), {EPISODES} episodes a seed.",
        "",
        "| task | algorithm | steps | IQM | 95% interval | seeds | worst | random | best constant | dead "
        "| best to final | trained on | commit |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
        *(_line(row, found) for row in COOPERATIVE if (found := _of(row, entries))),
        "",
        f"Competing teams after {TEAMS[0].steps / 1e6:g}M steps: what training won each team (mean over its agents) "
        "against the same trained opponents, beside its untrained self; median over seeds, and the lowest bound of all "
        "seeds' 95% intervals.",
        "",
        "| task | algorithm | team | gain | lowest bound | seeds | commit |",
        "|---|---|---|---|---|---|---|",
        *(line for row in TEAMS for line in _team_lines(row, _of(row, entries))),
    ]
    return "\n".join(lines) + "\n"


def _of(row: Row, entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    key = (row.task, row.algo, row.steps)
    return by_today([entry for entry in entries if (entry["task"], entry["variant"], entry["total_steps"]) == key])


def _line(row: Row, found: list[dict[str, Any]]) -> str:
    values: NDArray[np.float64] = np.array([entry["return"] for entry in found])
    low, high = interquartile_interval(values)
    devices = sorted({entry.get("device", "cpu") for entry in found})
    known = [entry["baselines"] for entry in found if "baselines" in entry]
    means = [_mean([entry[name] for entry in known if name in entry]) for name in ("random", "best_constant")]
    dead = sum(any(value <= mean for mean in means) for value in values)  # what was not measured kills nobody
    told = " | ".join("not measured" if math.isnan(mean) else f"{mean:.2f}" for mean in means)
    drop = float(np.mean([entry["best_to_final"] for entry in found]))
    reach = f"{low:.2f} to {high:.2f}" if len(values) > 1 else ""
    return (
        f"| {row.task} | {row.algo} | {row.steps / 1e6:g}M | {float(interquartile_mean(values)):.2f} | {reach} "
        f"| {len(values)} | {values.min():.2f} | {told} | {dead} | {drop:.2f} | {', '.join(devices)} "
        f"| {_commit(found)} |"
    )


def _commit(found: list[dict[str, Any]]) -> str:
    last = found[-1]
    return f"{last['commit'][:10]}{', former defaults' if outdated(last, last['flags']) else ''}"


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _team_lines(row: Row, found: list[dict[str, Any]]) -> list[str]:
    teams = found[0]["gains"] if found else {}
    lines = []
    for team in teams:
        gains = np.array([entry["gains"][team] for entry in found])  # (seeds, 3): mean, low, high
        told = f"{np.median(gains[:, 0]):.2f} | {gains[:, 1].min():.2f} | {len(found)} | {_commit(found)}"
        lines.append(f"| {row.task} | {row.algo} | {team} | {told} |")
    return lines


def main() -> None:
    """Train what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--only", default="", help="rows whose 'task algorithm steps' contains this")
    parser.add_argument("--part", default="1/1", help="i/n: the i-th of n interleaved parts")
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    if not asked.table:
        rows = [row for row in [*COOPERATIVE, *TEAMS] if asked.only in f"{row.task} {row.algo} {row.steps}"]
        jobs = [(row, seed) for row in rows for seed in range(1, asked.seeds + 1)]
        for row, seed in part_of(jobs, asked.part):
            found = measure_teams if row in TEAMS else measure
            run_missing([row.trial(seed)], FILE, lambda run, row=row, found=found: found(run, row.original))  # type: ignore[misc]
    written = table(list(read(FILE)))
    TABLE.write_text(written, encoding="utf-8")
    print(written)


if __name__ == "__main__":
    main()
