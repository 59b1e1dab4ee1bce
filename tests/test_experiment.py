"""Experiments on tiny runs: where trainings begin, what they change, and that the run itself is left alone."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from marl_stable import configs, experiment, loop
from marl_stable.cli import main
from marl_stable.config import RunConfig
from marl_stable.diagnosing import read_case
from marl_stable.experiment import Experiment, shrink
from marl_stable.investigate.remedies import Remedy
from marl_stable.monitor.case import Case
from marl_stable.run import Run, conducting
from marl_stable.run.resuming import resume
from tests import runs
from tests.runs import checkpoint, measure_little, networks, train

OFF_POLICY = {
    "--algo": "maddpg",
    "--algo.batch-size": "16",
    "--algo.train-every": "48",
    "--algo.steps-per-update": "16",
    "--algo.warm-up": "48",
    "--algo.buffer-size": "96",
}
ON_POLICY = ("--algo.num-minibatches", "--algo.update-epochs")
SLOWER = Remedy("learning_rate_too_high", "smaller steps", {"algo.lr": 1e-4})
NORMALISED = Remedy("reward_scale_too_large", "normalised rewards", {"algo.normalize_reward": True})


@pytest.fixture(autouse=True)
def brief(quick_measurements: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiment, "FEWEST", 2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny training that most experiments are about; not to be changed."""
    path = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patched:
        measure_little(patched)
        assert train(path, "--quiet") == 0
    return path


@pytest.fixture
def ran(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def planted(monkeypatch: pytest.MonkeyPatch, *causes: str, **config: Any) -> dict[str, Any]:
    """Lets every diagnosis begin with findings of `causes`."""
    finding: dict[str, Any] = {
        "confidence": 0.8,
        "onset_steps": 0,
        "where": {},
        "evidence": {},
        "explanation": "",
        "remedy": "",
    }
    findings = [finding | {"cause": cause, "config": config} for cause in causes]
    found: dict[str, Any] = {
        "verdict": "failing",
        "findings": findings,
        "symptoms": ["no_learning"],
        "actions_taken": [],
    }
    found |= {"checked": list(causes), "return": -1.0, "baselines": {"random": None, "best_constant": None}}
    monkeypatch.setattr(experiment, "diagnose", lambda case: found)
    monkeypatch.setattr(experiment, "symptoms", lambda case: [])
    return found


def an_experiment(path: Path, room: Path, onset: int) -> Experiment:
    room.mkdir()
    found = {"findings": [{"cause": "a", "confidence": 0.9, "onset_steps": onset}]}
    case = read_case(path)
    return Experiment(path.absolute(), room, Case(case.recording, case.config, {}), found)


def contents(folder: Path) -> dict[str, tuple[bytes, float]]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): (file.read_bytes(), file.stat().st_mtime) for file in files}


def begun(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """The configurations of all trainings from now on, as their folders have them."""
    configurations: list[RunConfig] = []
    actual = conducting.conduct

    def conduct(folder: Any, trained: Any, *given: Any) -> Run:
        configurations.append(trained.config)
        return actual(folder, trained, *given)

    monkeypatch.setattr(conducting, "conduct", conduct)
    return configurations


# ---- where trainings begin


def test_an_early_trouble_is_looked_for_from_the_beginning(
    ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = an_experiment(ran, tmp_path / "room", onset=24)
    assert trial.start == "anew"
    configurations = begun(monkeypatch)
    found = list(trial.outcomes([SLOWER, NORMALISED]))
    assert [result.start for result in found] == ["anew", "anew"]
    assert [config.seed for config in configurations] == [1, 2] * 3  # the control once, and each remedy
    control, slower, normalised = configurations[::2]
    assert (slower.algo.lr, control.algo.lr) == (1e-4, 4e-3)  # type: ignore[attr-defined]
    assert normalised.algo.normalize_reward  # type: ignore[attr-defined]
    assert {config.stability for config in configurations} == {"monitor"}
    assert {config.total_steps for config in configurations} == {96}
    assert {config.algo.lr_schedule for config in configurations} == {"constant"}  # type: ignore[attr-defined]
    assert found[0].control == found[1].control


def test_a_late_trouble_is_looked_for_from_the_best_policy_before_it(
    ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = checkpoint(ran, "best")["steps"]
    trial = an_experiment(ran, tmp_path / "room", onset=at + 1)
    configurations = begun(monkeypatch)
    found = list(trial.outcomes([SLOWER, NORMALISED]))
    assert [result.start for result in found] == ["best", "anew"]
    begins = [config.init_from for config in configurations[::2]]
    assert begins == [str(ran)] * 2 + [None] * 2  # each start has a control of its own
    left = 1 - (at + 1) / 240  # of the linear schedule
    assert configurations[0].algo.lr == pytest.approx(4e-3 * left)  # type: ignore[attr-defined]
    assert configurations[2].algo.lr == pytest.approx(1e-4 * left)  # type: ignore[attr-defined]


@pytest.mark.parametrize("algo", [{}, OFF_POLICY], ids=["mappo", "maddpg"])
def test_else_the_last_checkpoint_is_gone_on_with(
    algo: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if algo:
        monkeypatch.setattr(runs, "TINY", {key: runs.TINY[key] for key in runs.TINY if key not in ON_POLICY} | algo)
    assert train(tmp_path / "run", "--algo.lr-schedule", "constant") == 0
    (tmp_path / "run" / "checkpoints" / "best.pt").unlink()
    before = contents(tmp_path / "run")
    trial = an_experiment(tmp_path / "run", tmp_path / "room", onset=200)
    assert trial.start == "last"
    kept: list[dict[str, Any]] = []
    monkeypatch.setattr(shutil, "rmtree", lambda folder: kept.append(networks(folder)))
    configurations = begun(monkeypatch)
    (found,) = trial.outcomes([SLOWER])
    assert found.start == "last"
    end = checkpoint(tmp_path / "run")["steps"] + 96
    assert [(config.total_steps, config.seed) for config in configurations] == [(end, 1), (end, 2)] * 2
    assert contents(tmp_path / "run") == before
    assert not same(kept[0], kept[1])  # other random numbers
    assert not same(kept[0], kept[2])  # other steps
    assert resume(tmp_path / "run", end, quiet=True).status == "finished"
    assert same(kept[0], networks(tmp_path / "run"))  # the first control is the run, gone on with


def same(left: Any, right: Any) -> bool:
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return bool(torch.equal(left, right)) if isinstance(left, torch.Tensor) else bool(left == right)


def test_saturated_last_layers_are_shrunk_where_a_run_is_gone_on_with() -> None:
    group = {
        "actor": {"body.final.weight": torch.full((2, 2), 8.0), "body.hidden.0.weight": torch.ones(2)},
        "target_actor": {"final.bias": torch.full((2,), 4.0)},
        "critic": {"final.weight": torch.full((2,), 8.0)},
        "actor_optimizer": {"final.m": torch.ones(2)},
    }
    shrink(group, 4.0)
    assert group["actor"]["body.final.weight"].tolist() == [[2.0, 2.0], [2.0, 2.0]]
    assert group["target_actor"]["final.bias"].tolist() == [1.0, 1.0]
    assert group["critic"]["final.weight"].tolist() == [8.0, 8.0]
    assert group["actor"]["body.hidden.0.weight"].tolist() == [1.0, 1.0]
    shrink(group, 0.5)
    shrink(group, float("nan"))
    assert group["target_actor"]["final.bias"].tolist() == [1.0, 1.0]


def test_trainings_are_short(ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = an_experiment(ran, tmp_path / "room", onset=0)
    trial.metadata |= {"steps": 240, "seconds": 1.0}
    assert trial.steps("anew") == 2 * 48  # iterations at least, and no longer than the run
    monkeypatch.setattr(experiment, "FEWEST", 4)
    assert trial.steps("anew") == 4 * 48
    trial.metadata |= {"seconds": 100.0}
    assert trial.steps("anew") == 144  # in a minute
    trial.metadata |= {"seconds": 1e6}
    assert trial.steps("anew") == 96


# ---- the command


def test_an_experiment_names_the_cause(
    ran: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = planted(monkeypatch, "reward_shift", **{"algo.entropy_coef": 0.02})
    monkeypatch.setattr(experiment, "outcome", lambda ran, seed: Fake(ran))
    before = contents(ran)
    assert main(["diagnose", "run", "--experiment", "--json"]) == 0
    told = capsys.readouterr()
    printed = json.loads(told.out)
    assert printed.keys() == found.keys()
    assert [entry["cause"] for entry in printed["findings"]] == ["learning_rate_too_high", "reward_shift"]
    assert printed["findings"][0]["evidence"] == {"experiment_gain": pytest.approx(99.0)}
    assert printed["findings"][1]["evidence"] == {"experiment_gain": pytest.approx(0.0)}
    assert "--algo.lr 0.0004 (anew): return -1.00, unchanged -9.00, +99.0 standard errors" in told.err
    assert contents(ran) == before


class Fake:
    """The outcome of a world in which nothing but a smaller step size helps."""

    symptoms: tuple[str, ...] = ()

    def __init__(self, ran: Run) -> None:
        lr = configs.read_run(ran.folder.config).algo.lr  # type: ignore[attr-defined]
        self.value = -1.0 if lr < 1e-3 else -9.0


def test_where_nothing_is_wrong_nothing_is_tried(
    ran: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    healthy = planted(monkeypatch) | {"verdict": "healthy"}
    monkeypatch.setattr(experiment, "diagnose", lambda case: healthy)
    configurations = begun(monkeypatch)
    assert main(["diagnose", "run", "--experiment", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == healthy
    assert configurations == []


def test_an_interrupted_experiment_leaves_nothing(
    ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planted(monkeypatch, "reward_shift")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "rooms"))
    (tmp_path / "rooms").mkdir()
    actual = loop.collect

    def collect(*given: Any) -> bool:
        signal.raise_signal(signal.SIGINT)
        return actual(*given)

    monkeypatch.setattr(loop, "collect", collect)
    capsys.readouterr()
    assert main(["diagnose", "run", "--experiment"]) == 130
    assert capsys.readouterr() == ("", "interrupted\n")
    assert list((tmp_path / "rooms").iterdir()) == []


def test_a_folder_without_a_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planted(monkeypatch, "reward_shift")
    (tmp_path / "metrics.csv").write_text("steps,seconds\n1,1\n", encoding="utf-8")
    assert main(["diagnose", str(tmp_path), "--experiment"]) == 2
    assert "is not a run folder: it has no metadata.json" in capsys.readouterr().err
