"""Exact resume of algorithms with a replay: what was collected long ago must be there again, bit for bit."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from marl_stable.cli import main
from tests.runs import Asked, assert_equal, assert_same_run, checkpoint, metadata

# Rounds of six steps of eight copies, in a ring of ten, so that it wraps within two rounds.
TINY = [
    *("--env.num-envs", "8", "--algo.train-every", "48", "--algo.steps-per-update", "24", "--algo.batch-size", "16"),
    *("--algo.buffer-size", "80", "--algo.warm-up", "48", "--algo.network.hidden", "8", "--eval-every", "96"),
    *("--eval-episodes", "8", "--checkpoint-every", "48", "--total-steps", "384", "--quiet"),
]
LISTENER = ["--env", "particle/simple_speaker_listener_v4", "--env.kwargs"]
TURNS = ["--env", "marl_stable.envs.probe:Relay"]
VARIANTS = {
    "maddpg": ["--algo", "maddpg", *LISTENER, '{"max_cycles": 5}'],
    "matd3": ["--algo", "matd3", *LISTENER, '{"max_cycles": 5, "continuous_actions": true}'],
    "iddpg": ["--algo", "iddpg", "--algo.share", "off", *LISTENER, '{"max_cycles": 5}'],
    "critics that pool": ["--algo", "matd3", "--algo.critic-input", "pool", *LISTENER, '{"max_cycles": 5}'],
    "in turns": ["--algo", "maddpg", *TURNS, "--algo.train-every", "40"],  # rounds end within episodes of four steps
    "a ring that does not wrap": ["--algo", "iddpg", *TURNS, "--algo.buffer-size", "1e4"],
}


@pytest.fixture(autouse=True)
def small(quick_measurements: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def train(run: str, *more: str) -> int:
    return main(["train", *TINY, *more, "--run-dir", run])


def resume(*more: str) -> int:
    return main(["train", "--resume", "run", "--quiet", *more])


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_interrupted_again_and_again_is_the_run_that_never_was(variant: str, asked: Asked) -> None:
    more = VARIANTS[variant]
    assert train("whole", *more) == 0
    polls, rng = asked.count, random.Random(variant)
    asked.left = rng.randrange(polls // 3)
    code, stops = train("run", *more), 0
    while code == 130:
        stops += 1
        asked.left = rng.randrange(1, polls // 3)
        code = resume()
    assert (code, stops >= 3) == (0, True)
    assert_same_run(Path("run"), Path("whole"))
    assert_equal(checkpoint(Path("run"), "best"), checkpoint(Path("whole"), "best"))


def test_a_damaged_checkpoint_costs_a_warning_and_some_time_and_no_replay(asked: Asked) -> None:
    more = VARIANTS["in turns"]
    assert train("whole", *more) == 0
    asked.left = asked.count * 2 // 3
    assert train("run", *more) == 130
    Path("run/checkpoints/last.pt").write_bytes(b"")
    asked.left = 10**9
    assert resume() == 0
    assert_same_run(Path("run"), Path("whole"))


def test_a_run_whose_replay_is_lost_says_so_and_changes_nothing(
    asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    asked.left = 30
    assert train("run", *VARIANTS["maddpg"]) == 130
    lost = sorted(Path("run/checkpoints/replay").iterdir())[-1]
    lost.unlink()
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    capsys.readouterr()
    asked.left = 10**9
    assert resume() == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("error: the replay in run/checkpoints/replay lacks steps ")
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before
    assert metadata(Path("run"))["status"] == "interrupted"


def test_the_replay_on_disk_is_as_large_as_two_checkpoints_need() -> None:
    assert train("run", *VARIANTS["maddpg"]) == 0
    spans = sorted(path.stem.split("-") for path in Path("run/checkpoints/replay").iterdir())
    assert int(spans[-1][1]) == 384 // 8
    assert len(spans) <= 5  # ten slots in files of six steps, for two checkpoints
