from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.ablation import ABLATIONS, DISTORTED, Ablation, measure, table
from benchmarks.trials import Trial
from marl_stable import train
from marl_stable.configs import nested, resolve


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "results.jsonl"
    monkeypatch.setattr(Ablation, "file", file)
    return file


def test_every_trial_has_a_configuration_and_no_two_variants_are_the_same() -> None:
    for ablation in ABLATIONS.values():
        trials = ablation.trials("", 1)
        assert len(trials) == len(ablation.variants) * len(ablation.steps)
        places = [(trial.task, repr(resolve(nested(trial.flags)))) for trial in trials]
        assert len(set(places)) == len(places)


def entry(variant: str, task: str, value: float, seed: int = 1) -> dict[str, Any]:
    told = {"variant": variant, "task": task, "seed": seed, "return": value, "commit": "abc", "device": "cpu"}
    return told | {"flags": {}, "settings": {}}


def test_changes_are_against_the_default_and_stressed_tasks_stand_apart(results: Path) -> None:
    found = [
        entry("default", "spread, continuous", -10.0),
        entry("default", "speaker listener", -20.0),
        entry("default", "speaker listener, stressed", -30.0),
        entry("64-64", "spread, continuous", -12.0),
        entry("64-64", "spread, continuous", -16.0, seed=2),
        entry("64-64", "speaker listener, stressed", -25.0),
    ]
    results.write_text("".join(json.dumps(line) + "\n" for line in found))
    lines = table(ABLATIONS["matd3"]).splitlines()
    assert [line for line in lines if line.startswith("| 64-64")] == [
        "| 64-64 | -14.00 (-16.00; 2) |  | -25.00 (-25.00; 1) | -4.00 | +5.00 |"
    ]
    assert len(lines) == 6  # of variants that nobody trained there is no line


def test_a_task_stands_as_it_was_until_its_default_is_trained_anew(results: Path) -> None:
    task, lr = "speaker listener", {"settings": {"lr": 7.0}}
    found = [
        entry("default", task, -20.0) | lr,
        entry("64-64", task, -21.0) | lr,
        entry("all measures off", task, -30.0),
        entry("default", "spread, continuous", -10.0),
    ]
    results.write_text("".join(json.dumps(line) + "\n" for line in found))
    lines = table(ABLATIONS["matd3"])
    assert "With defaults of before: 2 of 4." in lines
    assert "| 64-64 |  | -21.00 (-21.00; 1) |  | -1.00 |  |" in lines.splitlines()
    found.append(entry("default", task, -19.0))
    results.write_text("".join(json.dumps(line) + "\n" for line in found))
    lines = table(ABLATIONS["matd3"])
    assert "With defaults of before" not in lines
    assert "| default | -10.00 (-10.00; 1) | -19.00 (-19.00; 1) |  | +0.00 |  |" in lines.splitlines()
    assert "64-64" not in lines


def test_a_stressed_task_is_scored_by_its_true_reward(tmp_path: Path) -> None:
    small: dict[str, Any] = {
        "algo__batch_size": 200,
        "algo__num_minibatches": 1,
        "algo__network__hidden": (8,),
        "env__num_envs": 8,
        "eval_episodes": 8,
    }
    (trial, *_) = (t for t in ABLATIONS["mappo"].trials("default", 1) if t.flags["env"] == DISTORTED)
    trial = Trial(*trial[:3], trial.flags | small | {"total_steps": 400})
    run = train(**trial.flags, seed=1, run_dir=str(tmp_path / "run"), quiet=True)
    assert -100 < measure(run, trial)["return"] < 0  # and not in the tens of thousands
    assert run.returns[-1][1] < -10_000
