"""The self-test passes where all is well, and says in a line or as JSON what it found."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import torch

from marl_stable.agents.config import ALGORITHMS
from marl_stable.agents.ppo_learner import PPOLearner
from marl_stable.cli import main
from marl_stable.envs.probe import GAMES
from marl_stable.investigate import selftest
from marl_stable.investigate.questions import ITERATIONS, QUESTIONS, Check
from marl_stable.types import UsageError

Patch = pytest.MonkeyPatch


def test_a_sound_algorithm_passes_and_each_check_is_an_aligned_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--algo", "matd3"]) == 0
    captured = capsys.readouterr()
    skip, *lines, last = captured.out.splitlines()
    assert captured.err == ""
    assert skip.split(maxsplit=3) == ["skip", "remember", "matd3", "it has no recurrent networks"]
    assert re.fullmatch(r"(\d+) of \1 passed in \d+\.\d s", last)
    assert len(lines) == int(last.split()[0]) == 17
    assert all(line.startswith("ok ") and " matd3 " in line for line in lines)
    assert len({len(line) for line in lines}) == 1
    assert {line.split()[1].partition("/")[0] for line in lines} == {game.lower() for game in GAMES} - {"remember"}


def test_the_same_as_json(monkeypatch: Patch, capsys: pytest.CaptureFixture[str]) -> None:
    few = {game: ITERATIONS[game] for game in ("Match", "Relay", "Silence")}
    monkeypatch.setattr(selftest, "ITERATIONS", few)
    assert main(["selftest", "--algo", "mappo", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["passed"], found["skipped"]) == (True, [])
    assert len(found["checks"]) == 10
    for check in found["checks"]:
        assert check.keys() >= {"name", "algorithm", "expected", "found", "tolerance", "ok", "seconds"}
        assert abs(check["found"] - check["expected"]) <= check["tolerance"]
        assert (check["ok"], check["meaning"], check["cause"]) == (True, "", None)


def test_every_algorithm_plays_every_game_or_says_why_not(monkeypatch: Patch) -> None:
    def passed(game: str, algorithm: str) -> list[Check]:
        return [Check(f"{game.lower()}/return", algorithm, 0.0, 0.0, 0.0, True, 0.0)]

    for name in ("play", "overfit", "update"):
        monkeypatch.setattr(selftest, name, passed)
    threads = torch.get_num_threads()
    heard: list[Check] = []
    checks = selftest.run(list(ALGORITHMS), heard.append)
    assert heard == checks
    assert torch.get_num_threads() == threads
    asked = {(check.name.partition("/")[0], check.algorithm) for check in checks}
    not_asked = {(skip.name, skip.algorithm) for skip in selftest.skipped(list(ALGORITHMS))}
    assert asked | not_asked == {(game.lower(), algorithm) for game in GAMES for algorithm in ALGORITHMS}
    assert asked & not_asked == set()
    assert {question.game for question in QUESTIONS} == set(GAMES)


def test_an_unknown_algorithm_is_refused_before_anything_is_played() -> None:
    with pytest.raises(UsageError, match="Did you mean mappo"):
        selftest.run(["ippo", "mapo"], lambda check: pytest.fail("played"))


def test_what_raises_has_failed_and_the_rest_goes_on(monkeypatch: Patch, capsys: pytest.CaptureFixture[str]) -> None:
    def learn(self: PPOLearner, *arguments: Any) -> None:
        raise RuntimeError("expected two\ntensors")

    monkeypatch.setattr(PPOLearner, "learn", learn)
    assert main(["selftest", "--algo", "ippo"]) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    assert last.startswith("0 of 13 passed in ")
    assert all(
        line.startswith("FAIL") and line.endswith("it raised RuntimeError: expected two tensors") for line in lines
    )
    assert main(["selftest", "--algo", "ippo", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] is False
    assert found["checks"][0]["found"] is None
