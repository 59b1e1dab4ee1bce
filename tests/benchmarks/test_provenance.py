from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

import marl_stable as ms
from benchmarks import provenance
from benchmarks.learning import COOPERATIVE, table
from benchmarks.provenance import by_today, code_commit, made_with, outdated, settings, told
from benchmarks.trials import Trial, read, run_missing

FLAGS: dict[str, Any] = {
    "algo": "mappo",
    "env": "marl_stable.envs.probe:Match",
    "total_steps": 64,
    "algo__batch_size": 32,
    "algo__num_minibatches": 1,
    "algo__network__hidden": (8,),
    "env__num_envs": 4,
    "eval_every": 0,
    "eval_episodes": 2,
}


def test_settings_are_what_flags_and_defaults_come_to() -> None:
    found = settings(FLAGS)
    assert (found["batch_size"], found["network.hidden"], found["clip_coef"]) == (32, [8], 0.2)
    assert found["network.norm"] == "layer"
    assert settings(FLAGS | {"measures": "none"})["network.norm"] == "none"
    assert json.loads(json.dumps(found)) == found


def test_results_that_were_appended_are_no_other_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True)

    results, code = tmp_path / "benchmarks" / "results" / "one.jsonl", tmp_path / "code.py"
    results.parent.mkdir(parents=True)
    results.touch()
    code.touch()
    git("init")
    git("add", "-A")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-m", "all")
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    monkeypatch.setattr(provenance, "git_commit", lambda: "abc-dirty")
    results.write_text("{}")
    assert code_commit() == "abc"
    code.write_text("1")
    assert code_commit() == "abc-dirty"
    monkeypatch.setattr(provenance, "git_commit", lambda: None)
    assert code_commit() is None


@pytest.mark.parametrize(
    ("then", "is_old"),
    [
        ({}, False),
        ({"clip_coef": 0.3}, True),
        ({"network.norm": "none"}, True),
        ({"given_up": 1}, True),  # a setting that is no more
    ],
)
def test_a_result_is_outdated_where_a_default_has_changed(then: dict[str, Any], is_old: bool) -> None:
    entry = made_with(FLAGS)
    entry["settings"] |= then
    assert outdated(entry, FLAGS) is is_old


def test_settings_that_came_later_leave_older_results_as_they_were() -> None:
    entry = made_with(FLAGS)
    del entry["settings"]["chunk_length"]
    assert not outdated(entry, FLAGS)


def test_former_results_give_way_to_todays() -> None:
    new, old = ({"flags": FLAGS} | made_with(FLAGS) for _ in range(2))
    old["settings"]["clip_coef"] = 0.3
    assert by_today([old, new]) == [new]
    assert by_today([old]) == [old]
    assert (told(0, 2), told(1, 2)) == ("", " With defaults of before: 1 of 2.")


def test_what_had_other_defaults_is_trained_again(tmp_path: Path) -> None:
    file, trials = tmp_path / "x.jsonl", [Trial("mappo", "match", 1, FLAGS)]

    def measure(run: ms.Run) -> dict[str, Any]:
        return {"return": run.returns[-1][1]}

    for _ in range(2):
        run_missing(trials, file, measure)
    (entry,) = read(file)
    entry["settings"]["clip_coef"] = 0.3
    file.write_text(json.dumps(entry) + "\n")
    run_missing(trials, file, measure)
    assert [found["settings"]["clip_coef"] for found in read(file)] == [0.3, 0.2]


def test_a_row_of_former_defaults_says_so() -> None:
    row = COOPERATIVE[0]
    flags = row.trial(1).flags
    entry: dict[str, Any] = {
        "variant": row.algo,
        "task": row.task,
        "total_steps": row.steps,
        "flags": flags,
    } | made_with(flags)
    entry |= {"return": -8.0, "best_to_final": 0.0, "commit": "abc"}
    assert "former" not in table([entry])
    entry["settings"]["clip_coef"] = 0.3
    assert "| abc, former defaults |" in table([entry])
