"""What a study searches, read from text, and what is refused before anything is begun. Needs no Optuna."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from marl_stable.cli import main
from marl_stable.sweep import search
from marl_stable.sweep.search import Choices, Span
from marl_stable.sweep.study import shown, stem
from tests.runs import ROOT


class Drawn:
    """Stands for a trial: draws what it was made with, and remembers from where."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.asked: list[Any] = []

    def suggest_float(self, *asked: Any, log: bool) -> float:
        self.asked += [*asked, log]
        return float(self.value)

    def suggest_int(self, *asked: Any, log: bool) -> int:
        self.asked += [*asked, log]
        return int(self.value)

    def suggest_categorical(self, *asked: Any) -> Any:
        self.asked += asked
        return self.value


def test_ranges_and_choices() -> None:
    words = ["algo.lr=log:1e-4..1e-2", "--algo.num-minibatches=2..8", "algo=mappo,ippo", "algo.network.hidden=64,64;8"]
    words += ["algo.max_grad_norm=0.5,adaptive", "algo.gae-lambda=-1..0.99"]
    assert search.axes(words) == [
        Span("algo.lr", "log:1e-4..1e-2", 1e-4, 1e-2, log=True, whole=False),
        Span("algo.num_minibatches", "2..8", 2, 8, log=False, whole=True),
        Choices("algo.name", "mappo,ippo", ["mappo", "ippo"]),
        Choices("algo.network.hidden", "64,64;8", ["64,64", "8"]),
        Choices("algo.max_grad_norm", "0.5,adaptive", ["0.5", "adaptive"]),
        Span("algo.gae_lambda", "-1..0.99", -1, 0.99, log=False, whole=False),
    ]


def test_every_end_and_every_choice_is_at_a_corner() -> None:
    found = list(search.corners(search.axes(["algo.gamma=0.9..0.99", "algo=mappo,ippo,maddpg", "eval_episodes=2..3"])))
    assert found == [
        {"algo.gamma": "0.9", "algo.name": "mappo", "eval_episodes": "2"},
        {"algo.gamma": "0.99", "algo.name": "ippo", "eval_episodes": "3"},
        {"algo.gamma": "0.9", "algo.name": "maddpg", "eval_episodes": "2"},
    ]


@pytest.mark.parametrize(
    ("word", "value", "asked", "text"),
    [
        ("algo.lr=log:1e-4..1e-2", 0.00123456789, ["algo.lr", 1e-4, 1e-2, True], "0.00123457"),
        ("algo.gamma=0.9..0.9999999", 0.99999985, ["algo.gamma", 0.9, 0.9999999, False], "0.9999999"),  # and not 1
        ("algo.gamma=0.1234564..1", 0.1234564, ["algo.gamma", 0.1234564, 1.0, False], "0.1234564"),  # and not 0.123456
        ("eval_episodes=2..30", 7, ["eval_episodes", 2, 30, False], "7"),
        ("algo.share=on,off", "off", ["algo.share", ["on", "off"]], "off"),
    ],
)
def test_what_is_drawn_is_short_and_within_its_range(word: str, value: Any, asked: list[Any], text: str) -> None:
    (axis,) = search.axes([word])
    trial = Drawn(value)
    assert axis.draw(trial) == text  # type: ignore[arg-type]
    assert trial.asked == asked


STUDY = "--study s.journal"
LR = "--search algo.lr=log:1e-4..1e-2"
MISTAKES = [
    (STUDY, "--study needs something to search; add --search KEY=LOW..HIGH, KEY=log:LOW..HIGH or KEY=V1,V2"),
    (LR, "--search needs a study; name where it is kept with --study."),
    ("--trials 3", "--trials needs a study"),
    ("--study-name a", "--study-name needs a study"),
    ("--prune", "--prune needs a study"),
    (f"{STUDY} {LR} --grid algo.gamma=0.9,0.99", "give --search instead of --grid."),
    (f"{STUDY} {LR} --jobs 0", "jobs is 0; it must be at least 1."),
    (f"{STUDY} {LR} --trials 0", "trials is 0; it must be at least 1."),
    (f"{STUDY} {LR} --trials 5001 --seeds 1,2", "the sweep has 10,002 runs; it must be at most 10,000"),
    (f"{STUDY} {LR} --seeds 2147483648", "seed is 2147483648; it must be a whole number from 0 to 2147483647."),
    (f"{STUDY} --search", "--search has no value; it must be KEY=LOW..HIGH"),
    (f"{STUDY} --search algo.lr", "--search is 'algo.lr'; it must be KEY=LOW..HIGH"),
    (f"{STUDY} --search algo.lrr=1..2", "unknown search key 'algo.lrr'. Did you mean algo.lr"),
    (f"{STUDY} --search seed=1..2", "--search cannot vary seed: give seeds by --seeds."),
    (f"{STUDY} {LR} algo.lr=1e-3,1e-2", "--search names algo.lr twice"),
    (f"{STUDY} --search algo.lr=1e-3", "--search algo.lr is '1e-3'; it must be two values or more with ','"),
    (f"{STUDY} --search algo.lr=1e-3,1e-3", "--search algo.lr is '1e-3,1e-3'; it must name each value once."),
    (f"{STUDY} --search algo.network.norm=none|layer", "it must be two values or more with ',' between them"),
    (f"{STUDY} --search algo.lr=log:1e-4", "it must be numbers such as log:1e-4..1e-2 or 0.9..0.99."),
    (f"{STUDY} --search algo.lr=low..high", "it must be numbers such as log:1e-4..1e-2 or 0.9..0.99."),
    (f"{STUDY} --search algo.lr=1e-2..1e-4", "its lower end must be below its upper one."),
    (f"{STUDY} --search algo.lr=0.1..inf", "its lower end must be below its upper one."),
    (f"{STUDY} --search algo.lr=nan..1", "its lower end must be below its upper one."),
    (f"{STUDY} --search algo.lr=log:0..1", "a range on a logarithmic scale must begin above 0."),
    (f"{STUDY} --search eval-episodes=1..2.5", "its ends must be whole numbers."),
    (f"{STUDY} --search algo.gamma=0.9..1.5", "algo.gamma is 1.5; it must be auto or from 0 to 1."),
    (f"{STUDY} --search algo.network.norm=none,layr", "--algo.network.norm is 'layr'; it must be none|layer|batch."),
    (f"{STUDY} --search algo.tau=0.1..0.2", "unknown flag '--algo.tau'"),  # not one of MAPPO's
]


@pytest.mark.parametrize(("line", "said"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_one_sentence_and_nothing_is_begun(
    line: str, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", "--device", "cpu", *line.split()]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    (sentence,) = told.err.splitlines()
    assert said in sentence
    assert list(tmp_path.iterdir()) == []


def test_without_optuna_a_study_says_what_to_install_and_loads_no_torch(tmp_path: Path) -> None:
    code = """
import json, sys
sys.modules["optuna"] = None
from marl_stable.cli import main
assert main(["sweep", "--device", "cpu", *sys.argv[1:]]) == 2
assert "torch" not in sys.modules
"""
    command = [sys.executable, "-W", "error", "-c", code, *STUDY.split(), *LR.split()]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = "error: --study needs Optuna, which is not installed; pip install 'marl_stable[optuna]'.\n"
    assert (done.stdout, done.stderr) == ("", told)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("sqlite:///lr.db", "lr"),
        ("sqlite:////abs/olute/lr.v2.db", "lr.v2"),
        ("postgresql://me:secret@host:5432/lab?sslmode=on", "lab"),
        ("deep/er/lr.journal", "lr"),
        ("mysql://host", "study"),
    ],
)
def test_a_study_is_called_by_its_file_or_database(place: str, name: str) -> None:
    assert stem(place) == name


def test_passwords_are_not_shown() -> None:
    assert shown("postgresql://me:secret@host/lab") == "'postgresql://me:***@host/lab'"
    assert shown("postgresql://me@host/lab") == "'postgresql://me@host/lab'"
    assert shown("sqlite:///a:b@c.db") == "'sqlite:///a:b@c.db'"
