"""What the world does to a training: environments that raise or yield NaN, agents that get stuck, full disks."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import marl_stable as ms
from marl_stable import checkpoint as checkpoints
from marl_stable import loop
from marl_stable.cli import main
from marl_stable.diagnosing import diagnose_run
from marl_stable.investigate import contributions
from marl_stable.report import metrics, tensorboard
from marl_stable.types import EnvironmentFailure
from tests.runs import assert_equal, checkpoint, incidents, metadata, networks, rows, train

# A line on which both agents walk. `fault` is what goes wrong in the training copies (the first eight) from their
# step `at` on; what is evaluated stays healthy.
LINE = """
import numpy as np
from gymnasium.spaces import Box, Discrete

class Line:
    possible_agents = ["agent_0", "agent_1"]
    made = 0

    def __init__(self, fault="", at=14, continuous=False, everywhere=False):
        Line.made += 1
        self.fault = fault if Line.made <= 8 or everywhere else ""
        self.at, self.continuous, self.steps, self.agents = at, continuous, 0, []

    def observation_space(self, agent):
        return Box(-9, 9, (2,))

    def action_space(self, agent):
        return Box(-1, 1, (2,)) if self.continuous else Discrete(3)

    def wrong(self, fault):
        return self.fault == fault and self.steps >= self.at

    def look(self):
        x = self.x * (np.nan if self.wrong("observation") else 1)
        return {"agent_0": x.astype("f"), "agent_1": x[::-1].astype("f")}

    def reset(self, seed=None, options=None):
        self.agents, self.t = self.possible_agents[:], 0
        self.steps = self.steps if self.steps > 1 else 0  # the one step in which reward terms are looked for
        self.x = np.random.default_rng(seed).uniform(-1, 1, 2)
        return self.look(), {agent: {} for agent in self.agents}

    def step(self, actions):
        self.steps, self.t = self.steps + 1, self.t + 1
        if self.wrong("error"):
            raise RuntimeError("the simulator\\nlost its licence")
        if self.wrong("shape"):
            self.x = np.zeros(3)
        self.x[:2] += [0.1 * float(np.sum(actions[agent])) for agent in self.agents]
        rewards = {agent: -abs(float(self.x[0] - self.x[1])) for agent in self.agents}
        if self.wrong("reward"):
            rewards["agent_1"] = float("nan")
        if self.wrong("bribe"):
            rewards["agent_1"] = 100.0 * float(actions["agent_1"] == 2)
        over = self.t == 6
        ended = dict.fromkeys(self.agents, False), dict.fromkeys(self.agents, over)
        self.agents = [] if over else self.agents
        return self.look(), rewards, *ended, {}

    def close(self):
        pass
"""


@pytest.fixture(autouse=True)
def line(quick_measurements: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("line.py").write_text(LINE)


def go(*more: str, run: str = "run", **arguments: Any) -> int:
    for module in [module for name, module in sys.modules.items() if name.startswith("marl_stable_env_")]:
        if hasattr(module, "Line"):
            module.Line.made = 0
    return train(Path(run), "--env", "line.py:Line", "--env.kwargs", json.dumps(arguments), *more)


def weights(run: str = "run") -> list[torch.Tensor]:
    return [w for group in networks(Path(run)).values() for part in group.values() for w in part.values()]


@pytest.mark.parametrize(
    ("fault", "said"),
    [("error", "RuntimeError: the simulator lost its licence"), ("shape", "observation of agent_0 has shape (3,)")],
)
def test_an_environment_that_fails_in_training_ends_it_with_everything_saved(
    fault: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert go(fault=fault) == 3
    found = metadata(Path("run"))
    assert found["status"] == "stopped"
    where = r"line\.py:Line failed in step 2 of an episode \(copy 0, seed \d+, action \{'agent': \[\d, \d\]\}\): "
    assert re.match(where, found["reason"])
    assert found["reason"].endswith(said) or said in found["reason"]
    err = capsys.readouterr().err
    assert f"warning: stopped: {found['reason']}" in err.splitlines()
    assert "Traceback" not in err
    state = checkpoint(Path("run"))
    assert (state["steps"], state["training"]["agent"]["t"]) == (96, 1)  # thirteen steps of eight copies
    assert [row[0] for row in rows(Path("run"))[1:]] == ["48", "96"]


def test_once_the_environment_is_mended_the_run_goes_on() -> None:
    assert go("--quiet", fault="error") == 3
    Path("line.py").write_text(LINE.replace('if self.wrong("error")', "if False"))
    assert main(["train", "--resume", "run", "--quiet"]) == 0
    assert metadata(Path("run"))["status"] == "finished"
    assert metadata(Path("run"))["reason"] == ""


@pytest.mark.parametrize("fault", ["error", "shape"])
def test_an_environment_that_fails_before_training_leaves_one_sentence_and_no_folder(
    fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert go("--run-dir", "runs/a/b", fault=fault, everywhere=True, at=3) == 2
    captured = capsys.readouterr()
    (sentence,) = captured.err.splitlines()
    assert sentence.startswith("error: line.py:Line failed in step 3 of an episode (copy 0, seed ")
    assert captured.out == ""
    assert not Path("runs").exists()
    with pytest.raises(ms.UsageError, match="failed in step 3 of an episode"):
        ms.train(env="line.py:Line", env__kwargs={"fault": fault, "everywhere": True, "at": 3}, quiet=True)
    assert not Path("runs").exists()


def test_an_environment_that_fails_in_the_last_evaluation_ends_the_run_with_everything_saved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(*_: Any) -> None:
        raise EnvironmentFailure("the simulator lost its licence")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "evaluate", failing)
        assert go("--eval-every", "0", "--quiet") == 3
    found = metadata(Path("run"))
    assert (found["status"], found["steps"], found["returns"]) == ("stopped", 240, [])
    assert checkpoint(Path("run"))["steps"] == 240
    assert main(["train", "--resume", "run", "--quiet"]) == 0
    assert [steps for steps, _ in metadata(Path("run"))["returns"]] == [240]


def test_an_environment_that_fails_after_training_costs_no_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: Any) -> Any:
        raise EnvironmentFailure("the door is stuck")

    monkeypatch.setattr(contributions, "measure", failing)
    assert go("--quiet") == 0
    found = metadata(Path("run"))
    assert (found["status"], found["steps"], "contributions" in found) == ("finished", 240, False)
    assert "what agents contribute could not be measured (the door is stuck)" in capsys.readouterr().err


def test_an_environment_that_fails_while_it_is_evaluated_or_drawn_is_one_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert go("--quiet") == 0
    capsys.readouterr()  # a warning that actions repeat is no matter here
    fault = ["--env", "line.py:Line", "--env.kwargs", '{"fault": "error", "everywhere": true, "at": 3}']
    assert main(["eval", "run", *fault, "--episodes", "2"]) == 2
    assert capsys.readouterr().err.startswith("error: line.py:Line failed in step 3 of an episode")
    assert main(["render", "run", "-o", "x.gif"]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith("error: line.py:Line draws no picture")  # it has no `render`
    assert not Path("x.gif").exists()


@pytest.mark.parametrize("fault", ["observation", "reward"])
@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
def test_the_guard_keeps_what_is_not_finite_out_of_the_weights(
    fault: str, continuous: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert go("--quiet", "--stability", "guard", fault=fault, continuous=continuous) == 3
    assert all(bool(torch.isfinite(w).all()) for w in weights())
    found = {entry["where"]["agent"]: entry for entry in incidents(Path("run"))}
    assert {(x["kind"], x["action"], x["limit"], x["steps"]) for x in found.values()} == {
        (f"non_finite_{fault}", "excluded", 0, 144)
    }
    told = capsys.readouterr().err
    assert "what they belong to is left out of learning" in told
    assert "stopped: " in told  # most steps of that agent are lost
    refused = [float(row[rows(Path("run"))[0].index("stability/non_finite_share")]) for row in rows(Path("run"))[1:]]
    assert refused == [0, 0, 0]
    first = diagnose_run(Path("run"))["findings"][0]
    assert first["cause"] == f"{fault}_non_finite"
    assert first["where"]["agent"] in found


def test_the_guard_names_the_agent_whose_reward_is_not_finite() -> None:
    flags = ["--algo.share", "off", "--algo", "ippo", "--algo.normalize-advantage", "off"]
    assert go("--quiet", *flags, fault="reward") == 3
    assert {entry["where"]["agent"] for entry in incidents(Path("run"))} == {"agent_1"}
    assert all(bool(torch.isfinite(w).all()) for w in weights())


@pytest.mark.parametrize("stability", ["monitor", "off"])
def test_without_the_guard_nothing_is_refused_and_only_the_monitor_tells(stability: str) -> None:
    assert go("--quiet", "--stability", stability, fault="reward") == 0
    assert not all(bool(torch.isfinite(w).all()) for w in weights())
    found = [entry for entry in incidents(Path("run")) if entry["kind"] == "non_finite_gradient"]
    assert {entry["action"] for entry in found} == ({"none"} if stability == "monitor" else set())
    tags = rows(Path("run"))[0]
    assert ("stability/non_finite_share" in tags) == (stability == "monitor")


def test_until_something_goes_wrong_the_guard_changes_nothing() -> None:
    for stability in ("guard", "off"):
        assert go("--quiet", "--stability", stability, run=stability) == 0
    left, right = (checkpoint(Path(run))["training"]["agent"]["learning"]["groups"] for run in ("guard", "off"))
    for name in left:
        for part in left[name]:
            kept = right[name][part]  # without the norms that nobody watched
            assert_equal({key: left[name][part][key] for key in kept}, kept)


def test_an_agent_that_repeats_one_action_is_named_while_it_happens_and_at_the_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    more = ["--total-steps", "2400", "--algo.lr", "3e-2", "--algo.share", "off", "--algo.entropy-coef", "0"]
    assert go(*more, "--eval-every", "480", fault="bribe", at=0, everywhere=True) == 0
    captured = capsys.readouterr()
    found = [entry for entry in incidents(Path("run")) if entry["kind"] == "repeated_action"]
    assert {entry["where"]["agent"] for entry in found} >= {"agent_1"}
    first = next(entry for entry in found if entry["where"]["agent"] == "agent_1")
    assert (first["action"], first["limit"]) == ("warned", 0.95)
    assert first["value"] >= 0.95
    assert first.keys() >= {"saturation", "repeat_ratio", "responsiveness"}
    (line,) = [
        text
        for text in captured.err.splitlines()
        if f"at {first['steps']:,} steps agent agent_1 repeats one action (" in text
    ]
    assert line.startswith("warning: ")
    assert re.search(r"incidents\s+│ repeated_action \d", captured.out)


def test_a_full_disk_ends_no_training(small_files: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """No checkpoint fits, then no more of TensorBoard's log, and in the end not even metrics.csv."""
    assert go("--quiet", run="whole") == 0
    capsys.readouterr()
    with small_files(4_000):
        assert go() == 0
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert re.search(r"warning: the checkpoint at \d+ steps could not be written", captured.err)
    assert "100%" in captured.err
    assert "finished" in captured.out


def test_a_disk_that_was_full_for_a_while_costs_only_what_was_to_be_written_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert go("--quiet", run="whole") == 0
    full = {"now": False}

    def failing(original: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            if full["now"]:
                raise OSError(28, "No space left on device")
            return original(*arguments, **named)

        return call

    write = metrics.MetricsFile.write

    def counting(self: Any, row: Any) -> None:
        full["now"] = 96 <= row["steps"] < 192
        if full["now"]:
            raise OSError(28, "No space left on device")
        write(self, row)

    monkeypatch.setattr(metrics.MetricsFile, "write", counting)
    monkeypatch.setattr(metrics.MetricsFile, "amend", failing(metrics.MetricsFile.amend))
    monkeypatch.setattr(tensorboard.TensorBoardLog, "scalars", failing(tensorboard.TensorBoardLog.scalars))
    monkeypatch.setattr(checkpoints, "save", failing(checkpoints.save))
    capsys.readouterr()
    assert go("--quiet") == 0
    warnings = capsys.readouterr().err.splitlines()
    assert [text.split(" cannot be written")[0] for text in warnings if "cannot be written" in text] == [
        "warning: metrics.csv",
        "warning: TensorBoard's log",
    ]
    assert any("the checkpoint at 96 steps could not be written" in text for text in warnings)
    assert any("the best policy at 96 steps could not be written" in text for text in warnings)
    assert [row[0] for row in rows(Path("run"))[1:]] == ["48", "192", "240"]
    assert_equal(networks(Path("run")), networks(Path("whole")))


def test_a_folder_deleted_under_way_ends_no_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = metrics.MetricsFile.write

    def deleting(self: Any, row: Any) -> None:
        if row["steps"] == 144:
            shutil.rmtree("run")
        write(self, row)

    monkeypatch.setattr(metrics.MetricsFile, "write", deleting)
    assert go() == 0
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert "warning: " in captured.err
    assert "finished" in captured.out


def test_a_strict_reader_can_read_every_json_of_a_run_full_of_nan() -> None:
    assert go("--quiet", "--stability", "monitor", fault="observation", everywhere=True, at=300, continuous=True) == 0

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads(Path("run/metadata.json").read_text(), parse_constant=refuse)
    for text in Path("run/incidents.jsonl").read_text().splitlines():
        json.loads(text, parse_constant=refuse)


@pytest.mark.usefixtures("quick_measurements")
@pytest.mark.parametrize(
    "more", [("--env.num-envs", "1e13"), ("--env.num-envs", "1e18"), ("--algo.network.hidden", "100000000000")]
)
def test_a_run_too_large_for_this_machine_is_one_sentence_and_leaves_nothing(
    more: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", *more) == 2
    told = capsys.readouterr().err
    assert "not enough memory for this run" in told
    assert "lower env.num_envs" in told
    assert "Traceback" not in told
    assert not (tmp_path / "run").exists()


def test_a_preset_is_not_written_over_by_the_run_that_it_describes(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine").mkdir()
    preset = Path("mine/config.yaml")
    preset.write_text("# what I know of this task\nalgo: {name: mappo}\n")
    for arguments in ([str(preset), "--run-dir", "mine"], ["--run-dir", "x" * 300]):
        capsys.readouterr()
        assert main(["train", *arguments, "--total-steps", "48", "--quiet"]) == 2
        (sentence,) = capsys.readouterr().err.splitlines()
        assert sentence.startswith("error: run folder '")
        assert sentence.endswith("name another with --run-dir.")
    assert preset.read_text() == "# what I know of this task\nalgo: {name: mappo}\n"
    assert sorted(Path().iterdir()) == [Path("line.py"), Path("mine")]
    assert list(Path("mine").iterdir()) == [preset]
