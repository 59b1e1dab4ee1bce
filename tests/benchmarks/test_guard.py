"""The table of what the guard is worth: paired by seed, and honest about what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import guard
from benchmarks.guard import ARMS, CONDITIONS, TASKS, Job, run_missing, table
from marl_stable.agents.config import default_config

TASK = "match, mappo"


def entry(condition: str, arm: str, seed: int, value: float) -> dict[str, Any]:
    acts = {"restored": 1} if arm == "repair" else {}
    return Job(TASK, condition, arm, seed)._asdict() | {"return": value, "low": 0.5, "acts": acts}


def test_changes_are_between_runs_of_the_same_seed_and_scores_against_clean_training() -> None:
    entries = [entry("clean", arm, seed, 1.0) for arm in ARMS for seed in (1, 2)]
    for seed, lost in ((1, 0.6), (2, 0.8)):
        entries += [entry("actor lost", arm, seed, lost + 0.1 * i) for i, arm in enumerate(ARMS)]
    entries.append(entry("actor lost", "monitor", 3, 0.5))  # whose partners are missing
    clean, lost_actor = table(entries).splitlines()[-2:]
    assert "| clean | 2 | 1.00 | 1.00 | +0.00 (+0.00 to +0.00) | 1.00 |" in clean
    assert "| actor lost | 2 | 0.40 | 0.60 | +0.20 (+0.20 to +0.20) | 0.80 | +0.40 " in lost_actor
    assert lost_actor.endswith("repair restored 2 |")


@pytest.mark.parametrize("condition", CONDITIONS)
def test_arms_differ_in_nothing_but_the_guard(condition: str) -> None:
    for task in TASKS:
        flags = [Job(task, condition, arm, 1).flags() for arm in ARMS]
        assert [found.pop("stability") for found in flags] == list(ARMS)
        assert flags[0] == flags[1] == flags[2]
        rate = flags[0].get("algo__lr")
        assert rate in (None, 30 * default_config(TASKS[task]["algo"]).lr)


def test_what_is_done_already_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Job] = []

    def perform(job: Job) -> dict[str, Any]:
        done.append(job)
        return entry(job.condition, job.arm, job.seed, 1.0)

    monkeypatch.setattr(guard, "perform", perform)
    wanted = [Job(TASK, "clean", arm, 1) for arm in ARMS]
    assert len(list(run_missing(wanted[:2], tmp_path / "found.jsonl"))) == 2
    assert len(list(run_missing(wanted, tmp_path / "found.jsonl"))) == 1
    assert done == wanted


class Optimizer:
    def __init__(self) -> None:
        self.flat = torch.ones(1, 3)

    def move(self, loss: float, lr: float) -> float:
        return loss * lr


def test_an_actor_is_lost_after_a_step_and_once() -> None:
    optimizer = Optimizer()
    optimizer.move = guard._spoiled(optimizer)  # type: ignore[method-assign]
    assert optimizer.move(2.0, 3.0) == 6
    assert optimizer.flat.isnan().all()
    optimizer.flat.fill_(1.0)
    assert optimizer.move(2.0, 3.0) == 6
    assert not optimizer.flat.isnan().any()
