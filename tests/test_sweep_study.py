"""Studies: trials that several processes share by Optuna's storage, seed by seed, gone on with where they stopped."""

from __future__ import annotations

import json
import shlex
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from marl_stable.cli import main
from marl_stable.sweep import processes, study, study_command
from marl_stable.sweep.plan import Member
from marl_stable.sweep.trials import _locked
from tests.runs import TINY, metadata, start

optuna = pytest.importorskip("optuna", reason="studies need Optuna: pip install 'marl_stable[optuna]'")

FLAGS = [word for pair in TINY.items() for word in pair] + ["--device", "cpu"]
SEARCH = ["--search", "algo.lr=log:1e-4..1e-2", "algo.share=on,off"]
SWEEP = ["sweep", *FLAGS, *SEARCH, "--study", "s.journal", "--jobs", "1"]


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processes, "SECONDS_BETWEEN_LOOKS", 0.02)


def well(member: Member) -> tuple[float, str]:
    """The smaller the step size, the better; a point between seeds."""
    return -1000 * float(member.point.settings["algo.lr"]) - member.config.seed, "finished"


def storage(place: str = "s.journal") -> Any:
    return study._storage(place)


def trials(place: str = "s.journal", name: str = "s") -> list[Any]:
    found: list[Any] = optuna.load_study(study_name=name, storage=storage(place)).get_trials()
    return found


def answer(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_study_is_told_with_the_best_first_and_trains_nothing_twice(
    trainings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = trainings(well)
    words = [*SWEEP, "--seeds", "1,2", "--trials", "3"]
    assert main(words) == 0
    assert len(begun) == 6
    told = capsys.readouterr()
    assert told.err.startswith("3 trials, 1 run at once, in runs/s\n[1/3] trial 0: return ")
    assert told.out.startswith("last evaluation return")
    assert "runs in runs/s" in told.out
    assert main([*words, "--json"]) == 0
    kept = capsys.readouterr()
    assert len(begun) == 6
    assert kept.err == "3 trials, 3 of them done before, 1 run at once, in runs/s\n"
    found = json.loads(kept.out)
    assert list(found) == ["unit", "study", "points", "running", "folder"]
    returns = [point["return"]["iqm"] for point in found["points"]]
    assert returns == sorted(returns, reverse=True)
    best = found["points"][0]
    assert best["return"]["iqm"] == pytest.approx(-1000 * best["config"]["algo.lr"] - 1.5)
    assert list(best) == ["trial", "state", *("name", "config", "return", "dead", "symptoms", "baselines", "runs")]
    assert (best["state"], best["name"], best["runs"][1]["seed"]) == ("complete", f"trial {best['trial']}", 2)
    assert [trial.value for trial in trials()] == [
        next(point for point in found["points"] if point["trial"] == number)["return"]["iqm"] for number in range(3)
    ]
    assert main([*words[:-1], "4"]) == 0  # another trial is asked for
    assert len(begun) == 8


def test_trials_draw_by_seed_and_number(trainings: Any) -> None:
    trainings(well)
    drawn = []
    for place, seed in (("a.journal", "1"), ("b.journal", "1"), ("c.journal", "2")):
        assert main([*SWEEP, "--study", place, "--seed", seed, "--seeds", "1", "--trials", "3", "--quiet"]) == 0
        drawn.append([trial.params for trial in trials(place, place[0])])
    assert drawn[0] == drawn[1] != drawn[2]
    assert len({trial["algo.lr"] for trial in drawn[0]}) == 3


def test_an_interrupted_study_goes_on_with_the_same_command(trainings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    trainings(lambda member: (-10.0, "wait"))
    words = ["sweep", *FLAGS, *SEARCH, "--study", "s.journal", "--jobs", "2", "--seeds", "1..3", "--trials", "2"]
    assert main(words) == 130
    again = capsys.readouterr().err.splitlines()[-1].partition("Go on with: ")[2]
    assert shlex.split(again) == ["marl-stable", *words]
    assert [trial.state.name for trial in trials()] == ["RUNNING"]
    assert metadata(Path("runs/s/trial-0/seed-1"))["status"] == "interrupted"
    begun = trainings(well)
    assert main([*words, "--json"]) == 0
    assert [todo for _, todo in begun] == ["resume", "resume", "begin", "begin", "begin", "begin"]
    found = answer(capsys)
    assert sorted(point["trial"] for point in found["points"]) == [0, 1]
    assert all(len(point["runs"]) == 3 for point in found["points"])
    assert found["running"] == []


def test_a_trial_whose_runs_had_ended_is_told_when_it_is_taken_up(trainings: Any) -> None:
    """The process died between the end of the run and its report."""
    begun = trainings(well)
    assert main([*SWEEP, "--trials", "1", "--quiet"]) == 0
    (told,) = trials()
    lines = Path("s.journal").read_text().splitlines(keepends=True)
    Path("s.journal").write_text("".join(line for line in lines if '"op_code":6' not in line))
    assert [trial.state.name for trial in trials()] == ["RUNNING"]
    assert main([*SWEEP, "--trials", "1", "--quiet"]) == 0
    assert len(begun) == 1
    assert [trial.value for trial in trials()] == [told.value]


def test_what_another_process_trains_is_left_alone_and_counts(
    trainings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    trainings(lambda member: (-10.0, "wait"))
    assert main(["sweep", *FLAGS, *SEARCH, "--study", "s.journal", "--seeds", "1,2", "--jobs", "2"]) == 130
    begun = trainings(well)
    other = _locked(Path("runs/s/trial-0"))
    assert main([*SWEEP, "--seeds", "1,2", "--trials", "1"]) == 0
    assert "by other processes or by one that is gone: trial 0" in capsys.readouterr().out
    assert begun == []
    assert main([*SWEEP, "--seeds", "1,2", "--trials", "2", "--json"]) == 0
    found = answer(capsys)
    assert ([point["trial"] for point in found["points"]], found["running"]) == ([1], [0])
    assert main([*SWEEP, "--seeds", "1,2", "--trials", "2", "--run-dir", "elsewhere", "--quiet"]) == 0
    assert other is not None
    assert len(begun) == 2  # nor does a machine without the folder touch it


def test_a_trial_that_ends_while_it_is_looked_at_is_not_taken_up(
    trainings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings(lambda member: (-10.0, "wait"))
    assert main(["sweep", *FLAGS, *SEARCH, "--study", "s.journal", "--seeds", "1,2", "--jobs", "2"]) == 130
    begun = trainings(well)
    unfinished = study.Study.unfinished

    def ended_meanwhile(self: study.Study) -> Any:
        found = unfinished(self)
        optuna.load_study(study_name="s", storage=storage()).tell(0, -3.0)
        return found

    monkeypatch.setattr(study.Study, "unfinished", ended_meanwhile)
    assert main([*SWEEP, "--seeds", "1,2", "--trials", "1", "--quiet"]) == 0
    assert ([trial.value for trial in trials()], begun) == ([-3.0], [])


def test_a_trial_that_fails_is_named_and_ends_no_other(trainings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def behaviour(member: Member) -> tuple[float, str]:
        return -10.0, "fail" if "trial-1" in str(member.path) and member.config.seed == 2 else "finished"

    trainings(behaviour)
    assert main([*SWEEP, "--seeds", "1,2", "--trials", "3"]) == 1
    told = capsys.readouterr()
    failed = "trial 1: failed: error: the simulator has no licence (see runs/s/trial-1/seed-2.log)"
    assert f"[2/3] {failed}" in told.err.splitlines()
    assert "failed: trial 1 seed 2: error: the simulator" in told.out
    assert [trial.state.name for trial in trials()] == ["COMPLETE", "FAIL", "COMPLETE"]


def test_settings_that_are_unfit_together_are_one_trials_failure(
    trainings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    trainings(lambda member: (-10.0, "finished"))
    together = ["--search", "algo.batch-size=48,96", "algo.num-minibatches=2,90"]
    assert main(["sweep", *FLAGS, *together, "--study", "s.journal", "--jobs", "1", "--trials", "8", "--json"]) == 1
    told = capsys.readouterr()
    found = json.loads(told.out)
    unfit = [point for point in found["points"] if point["state"] == "failed"]
    assert 0 < len(unfit) < 8
    for point in unfit:
        assert point["config"] == {"algo.batch_size": "48", "algo.num_minibatches": "90"}
        assert point["reason"] == "algo.num_minibatches is 90; it must be at most batch_size (48)."
        assert f"trial {point['trial']}: failed: {point['reason']}" in told.err
    assert main(["sweep", *FLAGS, *together, "--study", "s.journal", "--trials", "8"]) == 1
    assert f"failed: trial {unfit[0]['trial']}: algo.num_minibatches is 90" in capsys.readouterr().out


def test_pruning_spares_seeds_of_trials_below_the_median(
    trainings: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "TRIALS_FIRST", 2)
    begun = trainings(lambda member: (-10.0 - int(member.path.parent.name.partition("-")[2]), "finished"))
    words = [*SWEEP, "--seeds", "1..3", "--trials", "4"]
    assert main([*words, "--prune"]) == 0
    assert len(begun) == 3 + 3 + 1 + 1
    assert "[3/4] trial 2: return -12.00, pruned after 1 of 3 seeds, --algo.lr" in capsys.readouterr().err
    assert [trial.state.name for trial in trials()] == ["COMPLETE", "COMPLETE", "PRUNED", "PRUNED"]
    assert main([*words, "--prune"]) == 0
    assert "1, pruned" in capsys.readouterr().out
    assert main([*words, "--prune", "--json"]) == 0
    assert [point["state"] for point in answer(capsys)["points"]] == ["complete"] * 2 + ["pruned"] * 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--search", "algo.lr=log:1e-4..1e-1"], 'with algo.lr "log:1e-4..1e-2", and this has "log:1e-4..1e-1"'),
        (["--algo.gamma", "0.9", *SEARCH], 'with algo.gamma "auto", and this has 0.9'),
        (["--seeds", "1,2", *SEARCH], "with seeds [1], and this has [1, 2]"),
    ],
)
def test_another_search_is_not_mixed_in(
    more: list[str], said: str, trainings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = trainings(well)
    assert main([*SWEEP, "--trials", "1", "--quiet"]) == 0
    words = ["sweep", *FLAGS, "--study", "s.journal", "--trials", "2", *more]
    assert main(words) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert f"study 's' in 's.journal' was begun {said}; name another by --study-name" in sentence
    assert len(begun) == 1
    assert main([*words, "--study-name", "a/b", "--trials", "1", "--threads", "1"]) == 0
    assert Path("runs/a_b/trial-0").is_dir()


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_study_of_other_hands_is_left_alone(direction: str, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = optuna.create_study(study_name="s", storage=storage(), direction=direction)
    theirs.ask()
    assert main(SWEEP) == 2
    assert "study 's' in 's.journal' was not begun by a sweep; name another" in capsys.readouterr().err
    again = optuna.load_study(study_name="s", storage=storage())
    assert (again.user_attrs, len(again.trials), again.direction.name) == ({}, 1, direction.upper())


def test_folders_of_a_study_that_is_gone_are_left_alone(trainings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    begun = trainings(well)
    assert main([*SWEEP, "--trials", "1", "--quiet"]) == 0
    Path("s.journal").unlink()
    assert main([*SWEEP, "--trials", "1", "--quiet"]) == 2
    assert "'runs/s/trial-0' is there already, from another study; name another" in capsys.readouterr().err
    assert len(begun) == 1
    Path("file").touch()
    assert main([*SWEEP, "--trials", "2", "--quiet", "--run-dir", "file"]) == 2
    assert "'file/trial-1' cannot be made (Not a directory)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("nosuch://me:secret@host/lab", "study 'nosuch://me:***@host/lab' cannot be used (Can't load plugin"),
        ("sqlite:///missing/s.db", "study 'sqlite:///missing/s.db' cannot be used ((sqlite3.OperationalError)"),
        ("sqlite:///notes.txt", "study 'sqlite:///notes.txt' cannot be used ((sqlite3.DatabaseError) file is not"),
        ("notes.txt", "study 'notes.txt' cannot be used ("),
        ("base.db", "study 'base.db' cannot be used ("),
        (".", "study '.' cannot be used ("),
        ("missing/s.journal", "study 'missing/s.journal' cannot be used ("),
    ],
)
def test_a_place_that_cannot_be_used_is_left_as_it_was(
    place: str, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "SECONDS_APART", 0)
    (tmp_path / "notes.txt").write_text("remember\nthe milk\n")
    sqlite3.connect(tmp_path / "base.db").execute("CREATE TABLE t (x)").connection.close()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert main([*SWEEP, "--study", place]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert said in sentence
    assert "it must be a database's URL such as sqlite:///study.db, or a file" in sentence
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_storage_that_fails_under_way_ends_the_runs_whole(
    trainings: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings(well)

    def full(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(optuna.study.Study, "tell", full)
    assert main([*SWEEP, "--trials", "1"]) == 2
    assert "study 's.journal' cannot be used (No space left on device)" in capsys.readouterr().err
    monkeypatch.undo()


def test_by_default_a_study_has_fifty_trials(trainings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert study_command.TRIALS == 50
    monkeypatch.setattr(study_command, "TRIALS", 2)
    begun = trainings(well)
    assert main([*SWEEP, "--quiet"]) == 0
    assert len(begun) == 2


TOGETHER = """
import pathlib, time
from marl_stable.envs.probe import Match

def together(num_envs, device):
    until = time.monotonic() + 120
    while len(list(pathlib.Path("runs/s").glob("trial-*"))) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    return Match(num_envs, device)
"""
MATCH = {
    **{"--env": "together.py:together", "--env.num-envs": "8", "--eval-every": "0", "--eval-episodes": "8"},
    **{"--algo.batch-size": "64", "--algo.num-minibatches": "1", "--algo.network.hidden": "8"},
    **{"--stability": "off", "--total-steps": "640", "--device": "cpu", "--jobs": "1", "--json": "on"},
    **{"--search": "algo.lr=log:1e-3..1e-2", "--study": "sqlite:///s.db", "--trials": "2"},
}


def test_two_processes_share_a_study_and_learn(tmp_path: Path) -> None:
    """Of the game Match, whose best return is 1; each process has one run at once, and each run waits for the other."""
    (tmp_path / "together.py").write_text(TOGETHER)
    words = [word for pair in MATCH.items() for word in pair]
    both = [start("sweep", *words, cwd=tmp_path) for _ in range(2)]
    told = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert sorted(err.splitlines()[1].split(":")[0].partition(" ")[2] for _, err in told) == ["trial 0", "trial 1"]
    found = max((json.loads(out) for out, _ in told), key=lambda found: len(found["points"]))
    assert sorted(point["trial"] for point in found["points"]) == [0, 1]
    assert len({point["config"]["algo.lr"] for point in found["points"]}) == 2
    assert found["points"][0]["return"]["iqm"] > 0.9
