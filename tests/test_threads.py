"""The number of threads: what `auto` tries, what it decides, and that a run with it is a run with that number."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from marl_stable import configs, threads
from marl_stable.agents.config import ALGORITHMS
from marl_stable.cli import main
from marl_stable.cli.train import train_config
from marl_stable.types import Box, Discrete, EnvSpec, Group
from tests.runs import assert_equal, metadata, networks, train

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# ---- the decision


@pytest.mark.parametrize(
    ("cores", "counts"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8]), (9, [1, 2, 4, 8, 9])]
)
def test_counts_double_up_to_all_cores(cores: int, counts: list[int]) -> None:
    assert threads.candidates(cores) == counts


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({1: 1.0, 2: 0.6, 4: 0.4}, 4),
        ({1: 1.0, 2: 0.6, 4: 0.58}, 2),  # hardly faster: the cores have other uses
        ({1: 1.0, 2: 0.95, 4: 40.0}, 1),
        ({1: 10.0, 2: 2.0, 4: 3.0}, 2),
        ({1: 1.0}, 1),
    ],
)
def test_the_fewest_threads_that_are_about_as_fast_as_any(seconds: dict[int, float], chosen: int) -> None:
    assert threads.fastest(list(seconds), lambda count, limit: seconds[count]) == chosen


def test_a_moment_in_which_the_machine_is_busy_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "SECONDS", math.inf)
    spinning = {1: itertools.cycle([1.0, 2.9, 1.0]), 2: itertools.cycle([0.6, 0.6, 30.0])}
    assert threads.fastest([1, 2], lambda count, limit: next(spinning[count])) == 2
    quick_once = {1: itertools.repeat(1.0), 2: itertools.cycle([2.0, 0.1, 2.0])}
    assert threads.fastest([1, 2], lambda count, limit: next(quick_once[count])) == 1


def test_a_hopeless_count_is_tried_once_and_told_when_to_give_up() -> None:
    seconds, asked = {1: 2.0, 2: 1.0, 4: 9.0}, list[tuple[int, float]]()

    def timed(count: int, limit: float) -> float:
        asked.append((count, limit))
        return min(seconds[count], limit + 0.5)

    assert threads.fastest([1, 2, 4], timed) == 2
    assert asked[:3] == [(1, math.inf), (2, 6.0), (4, 3.0)]
    assert [count for count, _ in asked].count(4) == 1
    assert [count for count, _ in asked].count(1) >= threads.FEWEST_ROUNDS


# ---- what is tried


GROUPS = (
    Group("walker", ("walker_0", "walker_1"), 5, Discrete(3), "walkers", masked=True),
    Group("arm", ("arm",), 4, Box((-1.0, -2.0), (1.0, 2.0)), "arms"),
)
FLAGS = {
    **{name: ["--algo", name] for name in ALGORITHMS},
    "recurrent": ["--algo.network.recurrent", "gru"],
    "batchnorm": ["--algo.network.norm", "batch"],
    "apart": ["--algo.share", "off"],
    "few rows": ["--algo.batch-size", "12", "--algo.num-minibatches", "4"],
}


@pytest.mark.parametrize("turn_based", [False, True], ids=["together", "in turns"])
@pytest.mark.parametrize("name", FLAGS)
def test_every_algorithm_can_be_tried_on_any_groups_without_an_environment(name: str, turn_based: bool) -> None:
    config = train_config([*FLAGS[name], "--threads", "auto"])
    spec = EnvSpec("made/up", ("walker_0", "arm", "walker_1"), GROUPS, turn_based)
    before = torch.get_rng_state()
    work = threads._work(config, spec)
    assert 0 < work(math.inf) < 60
    assert work(0.0) > 0  # gives up within the update
    assert 0 < work(math.inf) < 60  # and can go on
    assert torch.equal(torch.get_rng_state(), before)


# ---- the run


def test_a_number_is_taken_as_it_is_and_a_gpu_needs_one() -> None:
    config = train_config(["--threads", "2"])
    assert threads.settle(config, CPU) == config
    assert torch.get_num_threads() == 2
    assert threads.settle(replace(config, threads="auto"), torch.device("cuda")).threads == 1
    assert torch.get_num_threads() == 1


def test_what_is_measured_here_is_a_number_of_cores() -> None:
    found = threads.settle(train_config(["--threads", "auto"]), CPU).threads
    assert found in threads.candidates(len(os.sched_getaffinity(0)))
    assert torch.get_num_threads() == found


def test_a_run_on_auto_is_the_run_with_the_number_that_it_keeps(
    tmp_path: Path, quick_measurements: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, used = list[list[int]](), list[int]()

    def decided(counts: list[int], timed: object) -> int:
        asked.append(counts)
        return 2

    monkeypatch.setattr(threads, "fastest", decided)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3})
    monkeypatch.setattr(torch, "set_num_threads", used.append)  # two would fight with all other tests for cores
    assert train(tmp_path / "auto", "--threads", "auto", "--quiet") == 0
    assert configs.read_run(tmp_path / "auto" / "config.yaml").threads == 2
    assert train(tmp_path / "two", "--threads", "2", "--quiet") == 0
    assert_equal(networks(tmp_path / "auto"), networks(tmp_path / "two"))
    assert metadata(tmp_path / "auto")["returns"] == metadata(tmp_path / "two")["returns"]
    assert main(["train", "--resume", str(tmp_path / "auto"), "--total-steps", "288", "--quiet"]) == 0
    assert configs.read_run(tmp_path / "auto" / "config.yaml").threads == 2
    assert asked == [[1, 2, 4]]
    assert used == [1, 2, 2, 2]  # to try, then to train, twice and once more


def test_an_environment_that_cannot_be_made_leaves_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", "--threads", "auto", "--env.kwargs", '{"maximum": 5}') == 2
    assert "maximum" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("many", "--threads is 'many'; it must be a whole number or auto."),
        ("0", "threads is 0; it must be auto or from 1 to 1024."),
    ],
)
def test_no_number_of_threads(text: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--threads", text]) == 2
    assert said in capsys.readouterr().err
