"""Exact resume: however a run was stopped, going on gives the run that was never stopped, bit for bit."""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from marl_stable.cli import main
from marl_stable.report.metrics import read_metrics
from tests.runs import (
    ROOT,
    Asked,
    assert_equal,
    assert_same_run,
    checkpoint,
    incidents,
    measure_little,
    metadata,
    networks,
    rows,
    start,
    train,
    words,
)

# Copies of an environment in Python that are at different points of their episodes, and whose agents die one by one.
UNEVEN = """
import numpy as np
from mpe2 import simple_tag_v3

class Uneven:
    def __init__(self):
        self.env = simple_tag_v3.parallel_env(max_cycles=100)
        self.possible_agents = self.env.possible_agents
        self.observation_space, self.action_space = self.env.observation_space, self.env.action_space
        self.teams = {"adversary": self.possible_agents[:3], "agent": self.possible_agents[3:]}
        self.agents = []

    def reset(self, seed=None, options=None):
        self.left = 3 + seed % 5
        obs, infos = self.env.reset(seed=seed)
        self.agents = list(self.env.agents)
        return obs, infos

    def step(self, actions):
        rest = {agent: 0 for agent in self.env.agents} | actions
        obs, rewards, *_ = self.env.step(rest)
        self.left -= 1
        acted, first = list(self.agents), self.agents[0]
        over = self.left == 0
        ended = {agent: agent == first and self.left == 2 and len(acted) > 1 for agent in acted}
        self.agents = [] if over else [agent for agent in acted if not ended[agent]]
        kept = {agent: obs[agent] for agent in acted}
        cut = {agent: over and not ended[agent] for agent in acted}
        return kept, {agent: rewards[agent] for agent in acted}, ended, cut, {agent: {} for agent in acted}

    def close(self):
        self.env.close()
"""

# What an episode looks like depends on all that went before.
LEAKY = """
from tests.envs.fakes import Walk

class Leaky(Walk):
    count = 0

    def observations(self):
        Leaky.count += 1
        return {agent: obs + Leaky.count for agent, obs in super().observations().items()}
"""

# Episodes of ten steps, each at its own random place, which no seed leads back to.
FRESH = """
import numpy as np
from tests.envs.fakes import Walk

class Fresh(Walk):
    def __init__(self):
        super().__init__(agents=2, length=10)

    def reset(self, seed=None, options=None):
        return super().reset(None)
"""

# A step that does not come back.
STUCK = """
import time
from pathlib import Path
from tests.envs.fakes import Walk

class Stuck(Walk):
    count = 0

    def step(self, actions):
        Stuck.count += 1
        if Stuck.count == 1600:
            Path("stuck").touch()
            time.sleep(60)
        return super().step(actions)
"""

VARIANTS = {
    "discrete": [],
    "continuous": ["--env.kwargs", '{"max_cycles": 5, "continuous_actions": true}'],
    "several groups": ["--env", "particle/simple_speaker_listener_v4"],
    "an actor each": ["--algo.share", "off"],
    "local critics": ["--algo", "ippo", "--algo.share", "off"],
    "with memory": [*("--algo.network.recurrent", "lstm"), *("--algo.chunk-length", "4")],  # episodes end within chunks
    "critics that pool": ["--env", "particle/simple_tag_v3", "--algo.critic-input", "pool"],
    "critics that pool, and agents that die": [
        *("--env", "uneven.py:Uneven", "--env.kwargs", "{}", "--env.num-envs", "5", "--algo.critic-input", "pool"),
        *("--algo.network.recurrent", "gru", "--algo.chunk-length", "4"),
    ],
    "plain": ["--measures", "none", "--stability", "off"],
    "everything": [
        *("--algo.normalize-reward", "on", "--algo.lr-schedule", "kl", "--algo.target-kl", "1e-6"),
        *("--algo.weight-decay", "0.01", "--algo.l1", "1e-4", "--algo.action-penalty", "0.01"),
        *("--algo.clip-value", "0.2", "--stability", "monitor"),
    ],
    # Walk pays for the highest action, which these learn to repeat: what the monitor has counted must be kept as well.
    "repeating": [
        *("--env", "tests.envs.fakes:Walk", "--env.kwargs", "{}", "--algo.lr", "0.1"),
        *("--algo.entropy-coef", "0", "--total-steps", "720"),
    ],
    "copies out of step": ["--env", "uneven.py:Uneven", "--env.kwargs", "{}", "--env.num-envs", "5"],
}


# Not of runs that are compared with one of another process: its normalisers begin with all the random episodes.
quick = pytest.mark.usefixtures("quick_measurements")


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("uneven.py").write_text(UNEVEN)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny training that nothing interrupts; not to be changed."""
    path = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patched:
        measure_little(patched)  # what a run has seen at random is where its normalisers begin
        assert train(path, "--quiet") == 0
    return path


def resume(run: Path, *more: str) -> int:
    return main(["train", "--resume", str(run), "--quiet", *more])


@quick
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_interrupted_again_and_again_is_the_run_that_never_was(variant: str, asked: Asked) -> None:
    more = VARIANTS[variant]
    assert train(Path("whole"), *more) == 0
    polls, rng = asked.count, random.Random(variant)
    asked.left = rng.randrange(polls // 3)
    code = train(Path("run"), *more)
    stops = 0
    while code == 130:
        stops += 1
        assert metadata(Path("run"))["status"] == "interrupted"
        asked.left = rng.randrange(1, polls // 3)
        code = resume(Path("run"))
    assert code == 0
    assert stops >= 3
    assert_same_run(Path("run"), Path("whole"))
    assert incidents(Path("run")) or variant != "repeating"
    assert_equal(checkpoint(Path("run"), "best"), checkpoint(Path("whole"), "best"))


@quick
def test_how_to_go_on_is_told_where_no_summary_says_it(
    asked: Asked, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = "interrupted; go on with: marl-stable train --resume 'my run'\n"
    asked.left = 15
    assert train(Path("my run"), "--quiet") == 130
    assert capsys.readouterr() == ("", expected)
    asked.left = 5
    assert resume(Path("my run")) == 130
    assert capsys.readouterr() == ("", expected)
    asked.left = 5
    monkeypatch.setenv("RANK", "1")  # one of several that torchrun started, and not the first: that one speaks
    assert resume(Path("my run")) == 130
    assert capsys.readouterr() == ("", "")


@quick
@pytest.mark.parametrize("at", ["first step", "collecting", "learning", "evaluating"])
def test_each_part_of_the_loop_can_be_interrupted(at: str, whole: Path, asked: Asked) -> None:
    """A tiny iteration asks once before it, six times while collecting, and four while learning."""
    asked.left = {"first step": 0, "collecting": 11 + 4, "learning": 11 + 9, "evaluating": 22 + 3}[at]
    assert train(Path("run")) == 130
    state = checkpoint(Path("run"))["training"]
    found = (state["steps"], state["agent"]["t"], state["evaluation_due"])
    assert (
        found
        == {
            "first step": (0, 0, False),
            "collecting": (48, 3, False),
            "learning": (48, 6, False),
            "evaluating": (96, 0, True),
        }[at]
    )
    asked.never()
    assert resume(Path("run")) == 0
    assert_same_run(Path("run"), whole)


@quick
@pytest.mark.parametrize("end", [96, 144])
def test_with_constant_schedules_a_run_to_n_resumed_to_n_plus_m_is_one_to_n_plus_m(end: int) -> None:
    constant = ["--algo.lr-schedule", "constant"]  # 96 is evaluated in any case, 144 only because the run ends there
    assert train(Path("whole"), *constant) == 0
    assert train(Path("run"), *constant, "--total-steps", str(end)) == 0
    assert metadata(Path("run"))["returns"][-1][0] == end
    assert resume(Path("run"), "--total-steps", "240") == 0
    assert_same_run(Path("run"), Path("whole"))
    assert metadata(Path("run"))["total_steps"] == 240


@quick
def test_a_finished_run_is_not_trained_further_by_accident(capsys: pytest.CaptureFixture[str]) -> None:
    assert train(Path("run")) == 0
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    for more in ([], ["--total-steps", "240"], ["--total-steps", "1"]):
        capsys.readouterr()
        assert resume(Path("run"), *more) == 2
        assert "has 240 of" in capsys.readouterr().err
    assert resume(Path("run"), "--total-steps", "0") == 2
    assert "total_steps is 0; it must be a positive number" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before


@quick
def test_torn_files_are_mended(whole: Path, asked: Asked) -> None:
    asked.left = 45
    assert train(Path("run")) == 130
    for name, torn in (("metrics.csv", "999,0.1,3"), ("incidents.jsonl", '{"steps": 1, "kin')):
        with Path("run", name).open("a") as file:
            file.write(torn)
    asked.never()
    assert resume(Path("run")) == 0
    assert_same_run(Path("run"), whole)


@quick
@pytest.mark.parametrize("damage", ["truncated", "empty", "missing"])
def test_a_damaged_checkpoint_costs_a_warning_and_some_time(
    damage: str, whole: Path, asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    asked.left = 60
    assert train(Path("run")) == 130
    last = Path("run/checkpoints/last.pt")
    previous = checkpoint(Path("run"), "previous")["steps"]
    if damage == "missing":
        last.unlink()
    else:
        last.write_bytes(last.read_bytes()[: {"truncated": 1000, "empty": 0}[damage]])
    capsys.readouterr()
    asked.never()
    assert resume(Path("run")) == 0
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: run/checkpoints/last.pt ")
    assert warning.endswith(f"going on from previous.pt at {previous} steps.")
    assert_same_run(Path("run"), whole)


@quick
def test_where_both_checkpoints_are_damaged_nothing_is_touched(capsys: pytest.CaptureFixture[str]) -> None:
    assert train(Path("run")) == 0
    for name in ("last", "previous"):
        Path("run/checkpoints", f"{name}.pt").write_bytes(b"")
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    capsys.readouterr()
    assert resume(Path("run"), "--total-steps", "480") == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith("error: no checkpoint to go on from: run/checkpoints/last.pt cannot be read")
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before


@quick
def test_an_environment_that_cannot_be_replayed_begins_new_episodes_and_says_so(
    asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("leaky.py").write_text(LEAKY)
    more = ["--env", "leaky.py:Leaky", "--env.kwargs", "{}", "--env.num-envs", "2"]
    asked.left = 4
    assert train(Path("run"), *more) == 130
    asked.never()
    assert resume(Path("run")) == 0
    differs = [entry for entry in incidents(Path("run")) if entry["kind"] == "replay_differs"]
    assert [entry["where"] for entry in differs] == [{"copy": 0}, {"copy": 1}]
    assert {entry["action"] for entry in differs} == {"restarted"}
    assert "copy 0" in capsys.readouterr().err


@quick
@pytest.mark.parametrize("polls", [1, 4, 8, 12, 15])  # before the first step, in batches of six, and between them
def test_nothing_of_a_lost_episode_is_counted_for_the_next(polls: int, asked: Asked) -> None:
    Path("fresh.py").write_text(FRESH)
    more = ["--env", "fresh.py:Fresh", "--env.kwargs", "{}", "--eval-every", "0", "--algo.network.recurrent", "gru"]
    asked.left = polls
    assert train(Path("run"), *more) == 130
    before = checkpoint(Path("run"))["training"]
    asked.left = 0
    assert resume(Path("run")) == 130
    after = checkpoint(Path("run"))["training"]
    t, running = before["agent"]["t"], before["episodes"]["length"] > 0
    assert after["agent"]["t"] == t
    assert running.any() == (polls > 1)
    assert not after["episodes"]["length"].any()
    assert not any(x.any() for x in after["episodes"]["running"].values())
    for rollout in after["agent"]["rollouts"].values():
        assert not rollout["memory"][running].any()
        assert rollout["begins"][t][running].all()
        assert t == 0 or rollout["ended"][t - 1][running].all()
    asked.never()
    assert resume(Path("run")) == 0
    lengths = read_metrics(Path("run/metrics.csv"))["charts/episode_length"]
    assert {x for x in lengths if x == x} == {10.0}


def wait_for_rows(run: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (run / "metrics.csv").exists() and len((run / "metrics.csv").read_text().splitlines()) > count:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError("no rows")


def test_signals_end_a_run_quickly_whole_and_with_the_command_to_go_on(tmp_path: Path) -> None:
    many = ["--total-steps", "2400", "--eval-every", "0", "--checkpoint-every", "1200"]
    command, seen = words(Path("my run"), *many), 0
    for number in (signal.SIGINT, signal.SIGTERM):
        process = start(*command, cwd=tmp_path)
        wait_for_rows(tmp_path / "my run", seen + 2, process)
        asked_at = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
        assert time.monotonic() - asked_at < 5
        assert process.returncode == 130, (out, err)
        assert "Traceback" not in err
        (line,) = [line for line in out.splitlines() if line.startswith("resume ")]
        assert shlex.split(line)[-3:] == ["train", "--resume", "my run"]
        assert metadata(Path("my run"))["status"] == "interrupted"
        seen = len(rows(Path("my run")))
        command = ["train", "--resume", "my run"]
    assert seen < 50
    assert resume(Path("my run")) == 0
    assert train(Path("whole"), *many, "--quiet") == 0
    assert_same_run(Path("my run"), Path("whole"))


def test_a_second_signal_ends_at_once_what_does_not_end_by_itself(tmp_path: Path) -> None:
    Path("stuck.py").write_text(STUCK)
    more = ["--env", "stuck.py:Stuck", "--env.kwargs", "{}", "--total-steps", "100000", "--env.num-envs", "2"]
    process = start(*words(Path("run"), *more), cwd=tmp_path)
    deadline = time.monotonic() + 60
    while not Path("stuck").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=5)
    assert (process.returncode, "Traceback" in err) == (130, False), (out, err)
    assert metadata(Path("run"))["status"] == "interrupted"
    assert checkpoint(Path("run"))["steps"] >= 0


def test_a_run_killed_again_and_again_is_the_run_that_never_was(tmp_path: Path) -> None:
    """SIGALRM without a handler ends a process like kill -9, at a moment that depends on nothing."""
    code = """
import json, os, random, signal, sys
from pathlib import Path
import scipy.stats, torch, marl_stable.run.beginning  # once, for all that follow
from marl_stable.cli import main
from marl_stable.investigate import baselines

words, rng, kills = json.loads(sys.argv[1]), random.Random(3), 0
for attempt in range(100):
    seconds = rng.uniform(0.02, 0.6) + 0.05 * attempt  # longer and longer, so that it ends on any machine
    child = os.fork()
    if child == 0:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        go_on = Path("run/checkpoints/last.pt").exists() or Path("run/checkpoints/previous.pt").exists()
        if not go_on:
            os.system("rm -rf run")
        os._exit(main(["train", "--resume", "run", "--quiet"] if go_on else words))
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0, os.WEXITSTATUS(status)
        print(kills)
        break
    assert os.WTERMSIG(status) == signal.SIGALRM
    kills += 1
    if Path("run/metadata.json").exists() and '"finished"' in Path("run/metadata.json").read_text():
        print(kills)  # only its diagnosis was cut short
        break
"""
    more = ["--total-steps", "960", "--eval-every", "480", "--checkpoint-every", "48", "--quiet"]
    command = [sys.executable, "-c", code, json.dumps(words(Path("run"), *more))]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3, "hardly anything was killed"
    assert train(Path("whole"), *more) == 0
    assert_same_run(Path("run"), Path("whole"))


@quick
def test_a_resumed_run_keeps_its_clock_and_its_metadata(asked: Asked) -> None:
    asked.left = 30
    assert train(Path("run")) == 130
    first = metadata(Path("run"))
    asked.never()
    assert resume(Path("run")) == 0
    last = metadata(Path("run"))
    seconds = read_metrics(Path("run/metrics.csv"))["seconds"]
    assert seconds == sorted(seconds)
    assert len(set(seconds)) == len(seconds) == 5
    for key in ("started", "seed", "baselines", "versions"):
        assert last[key] == first[key]
    assert (last["status"], last["steps"]) == ("finished", 240)


@quick
def test_two_runs_of_one_configuration_are_one_and_another_seed_is_another() -> None:
    for run, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert train(Path(run), "--seed", seed) == 0
    assert_same_run(Path("a"), Path("b"))
    assert_equal(checkpoint(Path("a"), "best"), checkpoint(Path("b"), "best"))
    with pytest.raises(AssertionError):
        assert_equal(networks(Path("a")), networks(Path("c")))


@quick
def test_the_written_configuration_repeats_the_run() -> None:
    more = ["--algo.share", "off", "--algo.network.final-init", "none", "--algo.adam-betas", "0.8,0.99"]
    assert train(Path("a"), *more) == 0
    assert main(["train", "a/config.yaml", "--run-dir", "b"]) == 0
    assert_same_run(Path("a"), Path("b"))
    assert Path("a/config.yaml").read_text() == Path("b/config.yaml").read_text()
    shutil.rmtree("b")
    assert main(["train", "a/config.yaml", "--run-dir", "b", "--algo.lr", "0.5"]) == 0
    with pytest.raises(AssertionError):
        assert_equal(networks(Path("a")), networks(Path("b")))
