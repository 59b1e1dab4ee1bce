"""Whole runs: what they leave behind, from the command line and from Python, on every kind of environment."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

import marl_stable as ms
from marl_stable import configs, loop
from marl_stable.cli import main
from marl_stable.envs.names import MPE2
from marl_stable.folder import RunFolder
from marl_stable.investigate import baselines
from tests.runs import TINY, assert_equal, checkpoint, incidents, metadata, networks, rows, train, words

# The shortest environment that does something: at most fifteen lines of a user's own.
OWN = """import numpy as np
from gymnasium.spaces import Box, Discrete
from pettingzoo import ParallelEnv
class Meet(ParallelEnv):
    possible_agents = ["agent_0", "agent_1"]
    def observation_space(self, agent): return Box(-9, 9, (2,))
    def action_space(self, agent): return Discrete(3)
    def all(self, value): return dict.fromkeys(self.possible_agents, value)
    def reset(self, seed=None, options=None):
        self.agents, self.t, self.x = self.possible_agents[:], 0, np.random.default_rng(seed).uniform(-1, 1, 2)
        return self.all(self.x.astype("f")), self.all({})
    def step(self, actions):
        self.t, self.x = self.t + 1, self.x + [0.1 * (int(actions[a]) - 1) for a in self.agents]
        reward, over = -abs(self.x[0] - self.x[1]), self.t == 5
        return self.all(self.x.astype("f")), self.all(reward), self.all(False), self.all(over), self.all({})
"""

# Of ten agents nine leave after 2 of 50 steps. What is seen is 100 plus a number of deviation 1.
LEAVERS = """import numpy as np
from gymnasium.spaces import Box, Discrete
from pettingzoo import ParallelEnv
class Leavers(ParallelEnv):
    possible_agents = [f"agent_{i}" for i in range(10)]
    def observation_space(self, agent): return Box(-1e3, 1e3, (1,))
    def action_space(self, agent): return Discrete(2)
    def all(self, value): return dict.fromkeys(self.agents, value)
    def seen(self): return {a: (100 + self.draw.normal(size=1)).astype("f") for a in self.agents}
    def reset(self, seed=None, options=None):
        self.agents, self.t, self.draw = self.possible_agents[:], 0, np.random.default_rng(seed)
        return self.seen(), self.all({})
    def step(self, actions):
        self.t += 1
        stay = self.agents[:1] if self.t >= 2 else self.agents
        stay = [] if self.t == 50 else stay
        out = self.seen(), self.all(0.0), {a: a not in stay for a in self.agents}, self.all(False), self.all({})
        self.agents = stay[:]
        return out
"""

TAGS = {  # the contract's, as far as this release has them
    *("charts/return", "charts/episode_length", "charts/steps_per_second", "eval/return", "eval/episode_length"),
    *("losses/critic", "losses/actor", "losses/entropy", "losses/approx_kl", "losses/clip_fraction"),
    *("losses/explained_variance", "grad_norm/actor", "grad_norm/critic", "grad_norm/actor_clipped_fraction"),
    *("grad_norm/critic_clipped_fraction", "actions/saturation", "actions/repeat_ratio", "actions/responsiveness"),
    *("rewards/mean", "rewards/std", "weights/norm"),
}

quick = pytest.mark.usefixtures("quick_measurements")


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def keywords(**more: Any) -> dict[str, Any]:
    """The tiny training as `ms.train` takes it."""
    flags = {flag[2:].replace("-", "_").replace(".", "__"): value for flag, value in TINY.items()}
    return flags | {"quiet": True} | more


def scalars(run: Path) -> set[str]:
    log = EventAccumulator(str(run))
    log.Reload()
    return set(log.Tags()["scalars"])


def test_a_run_leaves_behind_what_the_contract_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert train(Path("run")) == 0
    names = sorted(path.relative_to("run").as_posix() for path in Path("run").rglob("*") if path.is_file())
    (events,) = [name for name in names if name.startswith("events.out.tfevents.")]
    rest = ["config.yaml", "diagnosis.json", "incidents.jsonl", "metadata.json", "metrics.csv"]
    rest += ["recording/000.bin", "recording/000.json", "report.html"]
    assert names == [*(f"checkpoints/{name}.pt" for name in ("best", "last", "previous")), *sorted([events, *rest])]

    found = metadata(Path("run"))
    assert (found["status"], found["pid"]) == ("finished", os.getpid())
    assert (found["steps"], found["total_steps"], found["seed"], found["device"]) == (240, 240, 1, "cpu")
    assert {"python", "torch", "numpy", "pettingzoo", "gymnasium"} <= found["versions"].keys()
    assert found["git_commit"] is None or len(found["git_commit"].removesuffix("-dirty")) == 40
    assert found["started"] <= found["ended"]
    assert found["baselines"]["random"]["ci95"][0] <= found["baselines"]["random"]["return"]
    assert set(found["baselines"]["best_constant"]["action"]) == {"agent_0", "agent_1", "agent_2"}
    assert [steps for steps, _ in found["returns"]] == [96, 192, 240]

    with Path("run/metrics.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    assert header[:2] == ["steps", "seconds"]
    assert set(header[2:]) >= TAGS
    assert [line[0] for line in lines] == ["48", "96", "144", "192", "240"]
    evaluated = [line[header.index("eval/return")] for line in lines]
    assert [cell and float(cell) for cell in evaluated] == [
        "",
        *(v for _, v in found["returns"][:1]),
        "",
        *(v for _, v in found["returns"][1:]),
    ]
    assert scalars(Path("run")) == set(header[2:])

    config = Path("run/config.yaml").read_text()
    assert "run_dir" not in config
    assert "num_envs: 8" in config
    assert "gamma: 0.75" in config  # auto: 1 - 1.25/5, kept as the number it was
    assert configs.read_run(Path("run/config.yaml")).env.kwargs == {"max_cycles": 5}

    out = capsys.readouterr().out
    assert "finished" in out
    for command in ("eval run", "render run -o run/episode.gif", "train --resume run --total-steps 480"):
        assert command in out
    assert "random return" in out
    assert "per-agent mean, undiscounted" in out


@quick
def test_best_is_the_policy_of_the_best_evaluation() -> None:
    assert train(Path("run"), "--algo.lr", "0.1") == 0
    returns = metadata(Path("run"))["returns"]
    best = checkpoint(Path("run"), "best")
    assert [best["steps"], best["return"]] == max(returns, key=lambda point: point[1])
    assert best.keys() == {"format", "steps", "return", "algo", "spec", "policy"}


def test_competing_teams_keep_the_latest_policy(quick_measurements: None) -> None:
    assert train(Path("run"), "--env", "mpe2/simple_push_v3", "--env.num-envs", "2", "--eval-episodes", "2") == 0
    assert checkpoint(Path("run"), "best")["steps"] == 240
    tags = set(rows(Path("run"))[0])
    for tag in ("losses/critic", "charts/return", "eval/return", "actions/saturation"):
        assert {tag, f"{tag}/adversary", f"{tag}/agent"} <= tags


def test_python_users_get_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    run = ms.train(algo="ippo", env="particle/simple_spread_v3", run_dir="run", algo__lr=1e-3, **keywords())
    assert isinstance(run, ms.Run)
    assert (run.path, run.status) == (Path("run"), "finished")
    assert [steps for steps, _ in run.returns] == [96, 192, 240]
    assert all(isinstance(value, float) for _, value in run.returns)
    assert run.incidents == []
    assert ms.Run(Path("run")).returns == run.returns
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert configs.read_run(Path("run/config.yaml")).algo.lr == 1e-3  # type: ignore[attr-defined]
    assert train(Path("typed"), "--algo", "ippo", "--algo.lr", "1e-3", "--quiet") == 0
    assert_equal(networks(Path("run")), networks(Path("typed")))


def test_python_users_get_the_same_sentences() -> None:
    with pytest.raises(ms.UsageError, match=r"unknown configuration key 'algo.lrr'. Did you mean algo.lr"):
        ms.train(algo__lrr=1)
    with pytest.raises(ms.UsageError, match="unknown algorithm 'sac'"):
        ms.train(algo="sac")
    with pytest.raises(ms.UsageError, match="unknown preset 'nothing'"):
        ms.train("nothing")
    with pytest.raises(ms.UsageError, match="unknown environment 'nothing'"):
        ms.train(env="nothing")
    with pytest.raises(ms.UsageError, match="is not a run folder"):
        ms.Run(Path("nothing"))
    assert list(Path().iterdir()) == []


@quick
def test_a_thread_may_train() -> None:
    found: list[ms.Run] = []
    thread = threading.Thread(target=lambda: found.append(ms.train(run_dir="run", **keywords())))
    thread.start()
    thread.join()
    assert [run.status for run in found] == ["finished"]


@quick
def test_without_a_name_the_folder_says_environment_algorithm_time_and_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda form, *_: "20260101-120000")
    flags = keywords(total_steps=48, seed=3)
    first, second = ms.train(**flags), ms.train(**flags)
    assert str(first.path) == "runs/particle_simple_spread_v3/mappo/20260101-120000-s3"
    assert str(second.path) == "runs/particle_simple_spread_v3/mappo/20260101-120000-s3_2"


@quick
def test_training_ends_at_the_first_iteration_at_or_after_the_total() -> None:
    assert train(Path("run"), "--total-steps", "97") == 0
    assert (metadata(Path("run"))["steps"], metadata(Path("run"))["total_steps"]) == (144, 97)


@quick
def test_evaluation_and_watching_and_profiling_do_not_touch_the_training() -> None:
    kinds = {
        "plain": [],
        "never": ["--eval-every", "0"],
        "often": ["--eval-every", "48", "--eval-episodes", "3"],
        "long": ["--eval-episodes", "30"],
        "unwatched": ["--stability", "off"],
        "monitored": ["--stability", "monitor"],
        "profiled": ["--profile"],
        "saved": ["--checkpoint-every", "48"],
    }
    for name, more in kinds.items():
        assert train(Path(name), *more, "--quiet") == 0
        assert_equal(networks(Path(name)), networks(Path("plain")), name)
    losses = [
        [row[rows(Path(name))[0].index("losses/critic")] for row in rows(Path(name))] for name in ("plain", "never")
    ]
    assert losses[0] == losses[1]
    assert [steps for steps, _ in metadata(Path("never"))["returns"]] == [240]


def test_profile_shows_where_the_time_went(capsys: pytest.CaptureFixture[str]) -> None:
    assert train(Path("run"), "--profile") == 0
    out = capsys.readouterr().out
    for section in ("environment", "acting", "storing", "learning", "watching", "logging", "saving", "other"):
        assert section in out
    shares = [
        float(line.split("│")[3].strip().rstrip("%"))
        for line in out.splitlines()
        if line.count("│") == 5 and "%" in line
    ]
    assert sum(shares) == pytest.approx(100, abs=0.6)


@quick
def test_quiet_says_nothing_and_plain_text_says_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert train(Path("a"), "--quiet") == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert train(Path("b")) == 0
    assert "100%" in capsys.readouterr().err


@pytest.mark.parametrize("name", MPE2)
@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
def test_every_mpe2_task_trains_with_both_kinds_of_actions(
    name: str, continuous: bool, quick_measurements: None
) -> None:
    kwargs = json.dumps({"max_cycles": 3, "continuous_actions": continuous})
    small = ["--env.num-envs", "2", "--algo.batch-size", "8", "--total-steps", "16", "--eval-episodes", "2"]
    assert train(Path("run"), "--env", f"mpe2/{name}", "--env.kwargs", kwargs, *small, "--quiet") == 0
    assert [row[0] for row in rows(Path("run"))] == ["steps", "8", "16"]
    assert all(math.isfinite(value) for _, value in metadata(Path("run"))["returns"])
    weights = [w for group in networks(Path("run")).values() for part in group.values() for w in part.values()]
    assert all(bool(torch.isfinite(w).all()) for w in weights)


@pytest.mark.parametrize(
    "env_id", ["own.py:Meet", "package.own:Meet", "gymnasium/CartPole-v1", "gymnasium/Pendulum-v1"]
)
def test_environments_of_users_and_of_gymnasium_train(env_id: str, quick_measurements: None) -> None:
    assert OWN.count("\n") <= 15
    Path("own.py").write_text(OWN)
    Path("package").mkdir()
    Path("package/own.py").write_text(OWN)
    try:
        assert train(Path("run"), "--env", env_id, "--env.kwargs", "{}", "--quiet", "--eval-episodes", "2") == 0
    finally:
        for name in [name for name in sys.modules if name == "package" or name.startswith("package.")]:
            del sys.modules[name]
    found = metadata(Path("run"))
    assert (found["status"], found["steps"]) == ("finished", 240)
    assert main(["eval", "run", "--episodes", "2"]) == 0


@quick
@pytest.mark.parametrize(("algo", "due"), [("ippo", "--algo.batch-size"), ("maddpg", "--algo.train-every")])
def test_statistics_begin_without_the_zeros_of_agents_that_are_gone(algo: str, due: str) -> None:
    Path("leavers.py").write_text(LEAVERS)
    flags = ["--env", "leavers.py:Leavers", "--env.num-envs", "4", "--algo", algo, due, "400", "--total-steps", "400"]
    flags += ["--eval-every", "0", "--run-dir", "run", "--algo.network.hidden", "8", "--quiet"]
    assert main(["train", *flags]) == 0
    (learner,) = checkpoint(Path("run"))["training"]["agent"]["learning"]["groups"].values()
    mean, var = (learner["obs_norm"][name] for name in ("mean", "var"))
    torch.testing.assert_close(mean, torch.full_like(mean, 100.0), atol=0.3, rtol=0)
    torch.testing.assert_close(var, torch.ones_like(var), atol=0.3, rtol=0)


@quick
def test_two_processes_cannot_run_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert train(Path("run"), "--quiet") == 0
    other = RunFolder.open(Path("run"))
    other.lock()
    assert main(["train", "--resume", "run", "--total-steps", "480"]) == 2
    assert "is running (process" in capsys.readouterr().err
    other.release()
    assert main(["train", "--resume", "run", "--total-steps", "480", "--quiet"]) == 0
    assert main(words(Path("run"))) == 2
    assert "holds a run; go on with it by `train --resume run`" in capsys.readouterr().err


@quick
def test_metadata_says_running_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    collect = loop.collect

    def looking(*arguments: Any) -> bool:
        seen.append(metadata(Path("run")))
        return collect(*arguments)

    monkeypatch.setattr(loop, "collect", looking)
    assert train(Path("run"), "--quiet") == 0
    assert {entry["status"] for entry in seen} == {"running"}
    assert seen[0]["pid"] == os.getpid()
    assert [entry["steps"] for entry in seen] == [0, 0, 96, 96, 192]  # as of the last checkpoint


@quick
def test_an_unforeseen_error_is_noted_and_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("no such luck")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "collect", broken)
        with pytest.raises(ZeroDivisionError):
            train(Path("run"), "--quiet")
    found = metadata(Path("run"))
    assert (found["status"], found["reason"]) == ("failed", "ZeroDivisionError: no such luck")
    assert main(["train", "--resume", "run", "--quiet"]) == 0


def test_interrupted_before_training_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        monkeypatch.setattr(baselines, "measure", lambda *_, number=number: signal.raise_signal(number))
        assert train(Path("runs/a/run")) == 130
        assert list(Path().iterdir()) == []
        assert capsys.readouterr().err == "interrupted\n"


def test_incidents_of_a_healthy_run_are_none() -> None:
    assert train(Path("run"), "--quiet") == 0
    assert incidents(Path("run")) == []
    assert json.loads(Path("run/metadata.json").read_text())["reason"] == ""
