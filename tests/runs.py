"""Runs so small that they take a fraction of a second, and what there is to compare of two of them."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from marl_stable.cli import main
from marl_stable.investigate import baselines, contributions, control, dry_run, effects

ROOT = Path(__file__).resolve().parents[1]

# Eight copies whose episodes last five steps; an iteration is six steps of each, so that batches cut episodes.
TINY = {
    "--env.num-envs": "8",
    "--env.kwargs": '{"max_cycles": 5}',
    "--algo.batch-size": "48",
    "--algo.num-minibatches": "2",
    "--algo.update-epochs": "2",
    "--algo.network.hidden": "8",
    "--eval-every": "96",
    "--eval-episodes": "8",
    "--checkpoint-every": "96",
    "--total-steps": "240",
}


class Asked:
    """Stands for the user's Ctrl-C: says so when it is asked for the n-th time."""

    def __init__(self) -> None:
        self.left = 10**9
        self.count = 0

    def __call__(self) -> bool:
        self.left -= 1
        self.count += 1
        return self.left < 0

    def never(self) -> None:
        self.left = 10**9


def measure_little(patched: pytest.MonkeyPatch) -> None:
    """One round of each measurement that a run begins and ends with, which are most of a tiny run's time.

    There is no search for the best constant action; its budget is a default, bound long ago.
    """
    patched.setattr(baselines, "EPISODES", 4)
    patched.setattr(baselines, "measure", partial(baselines.measure, budget=0))
    patched.setattr(effects, "BUDGET", 0)
    patched.setattr(control, "BUDGET", 0)
    patched.setattr(dry_run, "ROWS", 0)
    patched.setattr(contributions, "FEWEST_EPISODES", 2)
    patched.setattr(contributions, "EPISODES", 2)


def words(run: Path, *more: str) -> list[str]:
    """The arguments of a tiny training; what is in `more` wins."""
    return ["train", *(word for pair in TINY.items() for word in pair), "--run-dir", str(run), *more]


def train(run: Path, *more: str) -> int:
    """Train in this process; the exit code."""
    return main(words(run, *more))


def start(*arguments: str, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    """`python -m marl_stable ...` as a process of its own."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
    command = [sys.executable, "-W", "error", "-m", "marl_stable", *arguments]
    return subprocess.Popen(command, cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def checkpoint(run: Path, name: str = "last") -> dict[str, Any]:
    state: dict[str, Any] = torch.load(run / "checkpoints" / f"{name}.pt", weights_only=True)
    return state


def networks(run: Path, name: str = "last") -> dict[str, Any]:
    """The weights, group by group."""
    state = checkpoint(run, name)
    learning = state["policy"] if name == "best" else state["training"]["agent"]["learning"]
    return {group: {part: parts[part] for part in ("actor", "critic")} for group, parts in learning["groups"].items()}


def metadata(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "metadata.json").read_text())
    return found


def incidents(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "incidents.jsonl").read_text().splitlines()]


def rows(run: Path) -> list[list[str]]:
    """metrics.csv as text, header first, without the columns that tell the time."""
    with (run / "metrics.csv").open(newline="") as file:
        lines = list(csv.reader(file))
    kept = [i for i, tag in enumerate(lines[0]) if tag not in ("seconds", "charts/steps_per_second")]
    return [[line[i] for i in kept] for line in lines]


def assert_equal(left: Any, right: Any, place: str = "") -> None:
    """Bit for bit, through nested dictionaries and lists of tensors and plain values."""
    assert type(left) is type(right), place
    if isinstance(left, torch.Tensor):
        assert (left.dtype, left.shape) == (right.dtype, right.shape), place
        assert left.cpu().numpy().tobytes() == right.cpu().numpy().tobytes(), place
    elif isinstance(left, dict):
        assert left.keys() == right.keys(), place
        for key in left:
            assert_equal(left[key], right[key], f"{place}/{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), place
        for i, (one, other) in enumerate(zip(left, right, strict=True)):
            assert_equal(one, other, f"{place}/{i}")
    else:
        assert left == right, place


def assert_same_run(left: Path, right: Path) -> None:
    """Everything that a resumed run promises to share with the uninterrupted one."""
    state, other = checkpoint(left), checkpoint(right)
    del state["training"]["seconds"], other["training"]["seconds"]
    assert_equal(state, other)
    assert rows(left) == rows(right)
    assert incidents(left) == incidents(right)
    assert metadata(left)["returns"] == metadata(right)["returns"]
