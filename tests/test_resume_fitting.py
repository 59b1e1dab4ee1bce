"""Going on with a run whose folder or environment is no longer what it was: one sentence, and nothing is touched."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from marl_stable import checkpoint
from marl_stable.cli import main
from marl_stable.run import fitting
from marl_stable.types import Box, Discrete, EnvSpec, Group, UsageError
from tests.runs import measure_little, metadata, train

LINE = """
from tests.envs.fakes import Walk

class Line(Walk):
    pass
"""

WIDER = """
import numpy as np
from gymnasium.spaces import Box
from tests.envs.fakes import Walk

class Line(Walk):
    def observation_space(self, agent):
        space = super().observation_space(agent)
        return Box(-np.inf, np.inf, (space.shape[0] + 1,), space.dtype)

    def observations(self):
        return {agent: np.append(x, x[:1]) for agent, x in super().observations().items()}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `line.py` and two runs on it, one with a replay; not to be changed."""
    path = tmp_path_factory.mktemp("trained")
    (path / "line.py").write_text(LINE)
    line = ["--env", "line.py:Line", "--env.kwargs", "{}", "--env.num-envs", "2", "--quiet", "--total-steps", "96"]
    replay = ["--algo", "maddpg", "--algo.train-every", "48", "--algo.buffer-size", "96", "--algo.warm-up", "0"]
    small = ["--algo.network.hidden", "8", "--algo.batch-size", "16", "--eval-episodes", "2", "--env.num-envs", "2"]
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(path)
        patched.setattr(sys, "path", list(sys.path))
        measure_little(patched)
        assert train(Path("run"), *line) == 0
        assert main(["train", *line, *small, *replay, "--run-dir", "replay"]) == 0
    return path


@pytest.fixture(autouse=True)
def here(quick_measurements: None, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def resume(run: str = "run") -> int:
    return main(["train", "--resume", run, "--total-steps", "192", "--quiet"])


def configure(old: str, new: str, run: str = "run") -> None:
    file = Path(run, "config.yaml")
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))


def refused(capsys: pytest.CaptureFixture[str], run: str = "run") -> str:
    """The one sentence with which going on is refused; nothing may have changed."""
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file() and path.suffix != ".pyc"}
    capsys.readouterr()
    assert resume(run) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert before == {path: path.read_bytes() for path in Path().rglob("*") if path.is_file() and path.suffix != ".pyc"}
    (sentence,) = captured.err.splitlines()
    return sentence


REMEDY = "set it back in {run}/config.yaml, or train a new run in another folder."


@pytest.mark.parametrize(
    ("run", "old", "new", "said"),
    [
        ("run", "num_envs: 2", "num_envs: 4", "env.num_envs is 4, and the checkpoint of 'run' was trained with 2; "),
        ("run", "num_envs: 2", "num_envs: auto", "env.num_envs is 'auto', and the checkpoint of 'run' was trained"),
        (
            "run",
            "    - 8\n",
            "    - 16\n",
            "algo.network.hidden is [16], and the checkpoint of 'run' was trained with [8]",
        ),
        (
            "run",
            "share: true",
            "share: false",
            "algo.share is False, and the checkpoint of 'run' was trained with True",
        ),
        ("run", "batch_size: 48", "batch_size: 96", "algo.batch_size is 96, and the checkpoint of 'run' was trained"),
        (
            "replay",
            "num_envs: 2",
            "num_envs: 4",
            "env.num_envs is 4, and the checkpoint of 'replay' was trained with 2",
        ),
        (
            "replay",
            "buffer_size: 96",
            "buffer_size: 192",
            "algo.buffer_size is 192, and the checkpoint of 'replay' was",
        ),
        (
            "replay",
            "name: maddpg",
            "name: matd3",
            "algo.name is 'matd3', and the checkpoint of 'replay' was trained with",
        ),
    ],
)
def test_settings_that_no_longer_fit_are_named(
    run: str, old: str, new: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(old, new, run)
    sentence = refused(capsys, run)
    assert sentence.startswith(f"error: {said}")
    assert sentence.endswith(REMEDY.format(run=run))


def test_another_algorithm_by_its_name_alone_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("run/config.yaml").write_text('algo: {name: maddpg}\nenv: {id: "line.py:Line", num_envs: 2}\n')
    assert "algo.name is 'maddpg', and the checkpoint of 'run' was trained with 'mappo'; set it back" in refused(capsys)


def test_an_environment_with_other_observations_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("line.py").write_text(WIDER)
    assert "the environment has in group 'agent' the obs_size 3, and the checkpoint of 'run'" in refused(capsys)


def test_an_environment_by_another_name_is_refused_and_ones_own_may_move(capsys: pytest.CaptureFixture[str]) -> None:
    configure("line.py:Line", "particle/simple_spread_v3")
    assert "the environment has the id 'particle/simple_spread_v3', and the checkpoint of 'run'" in refused(capsys)
    configure("particle/simple_spread_v3", "moved.py:Line")
    Path("line.py").rename("moved.py")
    assert resume() == 0


@pytest.mark.parametrize(
    ("run", "changes"),
    [
        (
            "run",
            {
                "lr: 0.004": "lr: 0.001",
                "num_minibatches: 2": "num_minibatches: 3",
                "final_init: 0.003": "final_init: 0.1",
            },
        ),
        (
            "replay",
            {"batch_size: 16": "batch_size: 8", "policy_delay: 1": "policy_delay: 2", "warm_up: 0": "warm_up: 200"},
        ),
    ],
    ids=["run", "replay"],
)
def test_settings_that_only_say_how_to_learn_may_change(run: str, changes: dict[str, str]) -> None:
    for old, new in changes.items():
        configure(old, new, run)
    assert resume(run) == 0
    assert metadata(Path(run))["steps"] == 192


GROUP = Group("a", ("a_0", "a_1"), 2, Discrete(3), "team", terms=("x",))
SPEC = EnvSpec("line.py:Line", ("a_0", "a_1"), (GROUP,))


@pytest.mark.parametrize(
    ("here", "said"),
    [
        (
            SPEC._replace(groups=(GROUP._replace(action=Discrete(4)),)),
            r"in group 'a' the action Discrete\(n=4, start=0",
        ),
        (
            SPEC._replace(groups=(GROUP._replace(action=Box((0.0,), (1.0,))),)),
            r"in group 'a' the action Box\(low=.*n=3",
        ),
        (SPEC._replace(groups=(GROUP._replace(team="red"),)), r"in group 'a' the team 'red', .* with 'team'"),
        (SPEC._replace(groups=(GROUP._replace(terms=("y",)),)), r"in group 'a' the terms \['y'\], .* with \['x'\]"),
        (SPEC._replace(groups=(GROUP._replace(name="b"), GROUP)), r"the groups \['b', 'a'\], .* with \['a'\]"),
        (SPEC._replace(agents=("a_1", "a_0")), r"the agents \['a_1', 'a_0'\]"),
        (SPEC._replace(turn_based=True), r"the turn_based True, .* with False"),
    ],
    ids=range(7),
)
def test_every_part_of_an_environment_counts(here: EnvSpec, said: str) -> None:
    fitting.require_same_environment(SPEC, SPEC._replace(id="other.py:Line"), Path("run"))
    with pytest.raises(UsageError, match=said):
        fitting.require_same_environment(SPEC, here, Path("run"))


def test_what_runs_of_before_did_not_keep_may_be_anything() -> None:
    here = SPEC._replace(groups=(GROUP._replace(action=Discrete(3, dtype="int32"), first_category=1),))
    fitting.require_same_environment(SPEC, here, Path("run"))
    other = SPEC._replace(groups=(GROUP._replace(action=Discrete(4, dtype="int32"), first_category=1),))
    with pytest.raises(UsageError, match=r"the action Discrete\(n=4, start=0, dtype='int32'\)"):
        fitting.require_same_environment(SPEC, other, Path("run"))


def test_reward_terms_may_come_new_and_may_not_go() -> None:
    before = SPEC._replace(groups=(GROUP._replace(terms=()),))
    fitting.require_same_environment(before, SPEC, Path("run"))
    with pytest.raises(UsageError, match=r"the terms \[\], .* with \['x'\]"):  # and those that were there do not go
        fitting.require_same_environment(SPEC, before, Path("run"))


# ---- damage


@pytest.mark.parametrize("text", ["[]", "[[1, 2]]", "3"])
def test_metadata_that_are_no_metadata_are_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("run/metadata.json").write_text(text)
    assert "metadata.json' cannot be read (it holds a" in refused(capsys)


@pytest.mark.parametrize("left", [{}, {"status": "finished"}, {"baselines": [1], "returns": 3}], ids=str)
def test_a_run_goes_on_without_what_its_metadata_lost(left: dict[str, Any]) -> None:
    Path("run/metadata.json").write_text(json.dumps(left))
    Path("run/incidents.jsonl").write_bytes(b"[1]\n\xff\n")
    assert resume() == 0
    assert (metadata(Path("run"))["status"], metadata(Path("run"))["steps"]) == ("finished", 192)


def without_steps(state: dict[str, Any]) -> None:
    del state["steps"]


def without_training(state: dict[str, Any]) -> None:
    state["training"] = [1]


def without_agent(state: dict[str, Any]) -> None:
    del state["training"]["agent"]


@pytest.mark.parametrize("damage", [without_steps, without_training, without_agent])
def test_where_the_last_checkpoint_lacks_a_part_the_one_before_is_used(
    damage: Callable[[dict[str, Any]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    last = Path("run/checkpoints/last.pt")
    state = checkpoint.load(last, torch.device("cpu"))
    damage(state)
    checkpoint.save(last, state)
    capsys.readouterr()
    assert resume() == 0
    warning, *_ = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: run/checkpoints/last.pt is damaged (")
    assert "going on from previous.pt" in warning
