"""Copies in processes of their own: the same results, and what happens when one of them fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from marl_stable import loop
from marl_stable.config import EnvConfig
from marl_stable.envs import catalog
from marl_stable.envs.base import BatchedEnv, lost, take_mishaps
from marl_stable.envs.vector import episode_seed
from marl_stable.report.metrics import read_metrics
from marl_stable.types import EnvironmentFailure, Step, UsageError
from tests.envs.test_vector import assert_equal, play, saved
from tests.envs.trouble import TROUBLE, Trouble
from tests.runs import ROOT, assert_same_run, checkpoint, incidents, metadata, rows, train

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks for processes and files in /proc")


@pytest.fixture(autouse=True)
def small_and_somewhere_else(quick_measurements: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])


def trouble(workers: int, num_envs: int = 3, max_failures: int = 100, **kwargs: Any) -> Any:
    config = EnvConfig(
        id="tests.envs.trouble:Trouble", kwargs=kwargs, workers=workers, max_failures=max_failures, step_timeout=2.0
    )
    return catalog.make(config, CPU, num_envs)


@pytest.fixture(scope="module")
def tokens_of_shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokens")


@pytest.fixture(scope="module")
def shared(tokens_of_shared: Path) -> Any:
    """Two workers, the first with one copy and the second with two; one environment for many tests saves seconds."""
    env = trouble(2, tokens=str(tokens_of_shared))
    yield env
    env.close()


@pytest.fixture
def env(shared: Any) -> Any:
    shared.reset(5)
    take_mishaps(shared)
    return shared


def act(env: BatchedEnv, troubled: int | None = None, how: str = "raise") -> Step:
    """Everyone does 1, and agent_0 of the copy `troubled` what calls for trouble."""
    action = torch.ones(env.num_envs, 2, dtype=torch.long)
    if troubled is not None:
        action[troubled, 0] = TROUBLE[how]
    return env.step({"agent": action})


def processes(env: Any) -> list[subprocess.Popen[bytes]]:
    return [worker.process for worker in env._crew._workers]


def wait_until(holds: Any, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(holds())


def gone(pid: int) -> bool:
    """Whether the process has ended; nobody may be there to take note of its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def children() -> set[int]:
    found = set()
    for task in Path("/proc/self/task").iterdir():
        found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_results_do_not_depend_on_the_number_of_workers_nor_does_going_on() -> None:
    def walks(workers: int) -> BatchedEnv:
        return catalog.make(EnvConfig(id="tests.envs.fakes:Walk", kwargs={"length": 5}, workers=workers), CPU, 3)

    before = children(), descriptors()
    here = walks(0)
    obs, steps, state, rest = here.reset(7), play(here, 13), saved(here), play(here, 13, seed=2)
    for workers in (1, 2, 9):
        env = walks(workers)
        assert len(processes(env)) == min(workers, 3)  # no more than copies
        assert_equal(obs, env.reset(7))
        assert_equal(steps, play(env, 13))
        assert_equal(state, saved(env))
        assert_equal(rest, play(env, 13, seed=2))
        assert_equal(state["obs"], env.load_state_dict(state))  # as another number of workers left it
        assert env.replay_differs == ()
        assert_equal(rest, play(env, 13, seed=2))
        began = time.monotonic()
        env.close()
        assert time.monotonic() - began < 2
        del env
    assert (children(), descriptors()) == before
    assert take_mishaps(here) == []


REASONS = {
    "raise": "ValueError: the door is stuck",
    "exit": "its process ended with exit code 3",
    "leave": "its process ended with exit code 4",
    "kill": "its process was killed by SIGKILL",
    "hang": "no answer in time (env.step_timeout 2 s), so its process was killed",
}


@pytest.mark.parametrize("how", REASONS)
def test_a_failure_is_named_and_costs_the_episodes_that_it_concerns(how: str, env: Any) -> None:
    undisturbed = trouble(0)
    undisturbed.reset(5)
    act(env), act(undisturbed)
    before, failures = saved(env), env._failures
    began = time.monotonic()
    step, expected = act(env, 2, how), act(undisturbed)
    assert time.monotonic() - began < 9  # whatever a process has left behind

    (mishap,) = take_mishaps(env)
    place = f"worker 1, copy 2, seed {episode_seed(5, 2, 0)}, action {{'agent': [{TROUBLE[how]}, 1]}}"
    assert mishap.told == f"tests.envs.trouble:Trouble failed in step 2 of an episode ({place}): {REASONS[how]}"
    assert (mishap.where, mishap.failures) == ({"worker": 1, "copy": 2}, failures + 1)
    assert (mishap.limit, mishap.fatal) == (100, False)

    hit = [False, how != "raise", True]  # a worker takes its other copy along
    assert lost(step).tolist() == step.done.tolist() == hit
    for copy in range(3):
        if hit[copy]:
            assert not step.alive["agent"][copy].any()
            assert not step.terminated["agent"][copy].any()
            assert step.truncated["agent"][copy].all()
            assert (step.reward["agent"][copy] == 0).all()
            assert_equal(step.next_obs["agent"][copy], before["obs"]["agent"][copy])
            fresh, _ = Trouble().reset(seed=episode_seed(5, copy, 1))
            assert_equal(step.obs["agent"][copy, 0], torch.from_numpy(fresh["agent_0"]).float())
        else:
            for kind in ("obs", "next_obs", "reward", "terminated", "truncated", "alive"):
                assert_equal(getattr(step, kind)["agent"][copy], getattr(expected, kind)["agent"][copy])
    assert saved(env)["episodes"] == [int(x) for x in hit]

    assert [act(env).done.tolist() for _ in range(3)] == [[False] * 3] * 2 + [[True, how == "raise", False]]
    undisturbed.load_state_dict(saved(env))  # what went on after it can be gone on with
    assert undisturbed.replay_differs == ()
    assert_equal(act(env), act(undisturbed))


def test_a_worker_that_is_gone_between_steps_is_named_with_its_copies(env: Any) -> None:
    processes(env)[1].kill()
    assert lost(act(env)).tolist() == [False, True, True]
    (mishap,) = take_mishaps(env)
    assert mishap.where == {"worker": 1}
    assert "failed between steps (worker 1, copies 1, 2): its process was killed by SIGKILL" in mishap.told


def test_a_reset_that_fails_costs_the_episode_that_it_was_for(env: Any, tokens_of_shared: Path) -> None:
    for _ in range(4):
        act(env)
    (tokens_of_shared / "reset").touch()
    step = act(env)
    assert (step.done.tolist(), lost(step).tolist()) == ([True] * 3, [False] * 3)
    assert step.alive["agent"].all()
    (mishap,) = take_mishaps(env)
    copy = mishap.where["copy"]
    assert f"failed in reset (worker {int(copy > 0)}, copy {copy}, seed {episode_seed(5, copy, 1)})" in mishap.told
    assert "OSError: no more levels" in mishap.told
    assert saved(env)["episodes"] == [1 + (index == copy) for index in range(3)]


def test_what_is_not_finite_is_for_the_guard_and_no_failure(env: Any) -> None:
    assert act(env, 0, "nan").reward["agent"][0].isnan().all()
    assert take_mishaps(env) == []


def test_one_failure_too_many_leaves_the_state_before_it() -> None:
    env = trouble(1, max_failures=1)
    env.reset(5)
    act(env, 2)
    act(env)
    before = saved(env)
    with pytest.raises(EnvironmentFailure, match=r"copy 0, .*the door is stuck \(failure 2; env.max_failures is 1\)"):
        act(env, 0)
    assert [(mishap.failures, mishap.fatal) for mishap in take_mishaps(env)] == [(1, False), (2, True)]
    assert_equal(before, saved(env))
    env.close()


def test_workers_are_quiet_light_and_at_home(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("mine").mkdir()
    Path("mine/own.py").write_text("from beside import Trouble as Own\n")
    Path("mine/beside.py").write_text("from tests.envs.trouble import Trouble\n")
    Path("json.py").write_text("raise ImportError('a file of the user that only looks like a module')\n")
    env = catalog.make(EnvConfig(id="mine/own.py:Own", workers=1), CPU, 2)
    env.reset(1)
    assert (act(env, 0, "talk").reward["agent"] == torch.tensor([[0.0, 0.0], [1.0, 1.0]])).all()  # 0: no torch
    assert capfd.readouterr().out == ""
    monkeypatch.chdir("mine")  # a worker that is replaced begins where the first one did
    processes(env)[0].kill()
    act(env)
    assert len(take_mishaps(env)) == 1
    env.close()


def test_what_cannot_be_made_in_workers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("own.py").write_text(
        "import sys\nfrom tests.envs.fakes import Walk\n"
        "def other(): return Walk(agents=2 if 'torch' in sys.modules else 3)\n"
        "def none():\n    if 'torch' not in sys.modules: raise OSError('no such level')\n    return Walk()\n"
    )
    before = children()
    for name, message in (
        ("other", "copy 0 of own.py:other has other agents or spaces"),
        ("none", "own.py:none cannot be made in worker 0: own.py:none cannot be made .*OSError: no such level"),
    ):
        with pytest.raises(UsageError, match=message):
            catalog.make(EnvConfig(id=f"own.py:{name}", workers=1), CPU, 2)
    with pytest.raises(UsageError, match=r"env.kwargs cannot be sent to workers"):
        trouble(1, tokens={1, 2})
    with pytest.raises(UsageError, match=r"env.workers is 2, but particle/simple_spread_v3 .* in one batch"):
        catalog.make(EnvConfig(id="particle/simple_spread_v3", workers=2), CPU, 4)
    assert children() == before


def test_no_worker_outlives_this_process() -> None:
    Path("script.py").write_text(  # no __main__ guard
        "import torch\nfrom marl_stable.envs import catalog\nfrom marl_stable.config import EnvConfig\n"
        "config = EnvConfig(id='tests.envs.trouble:Trouble', workers=2)\n"
        "env = catalog.make(config, torch.device('cpu'), 2)\nenv.reset(1)\n"
        "print(*(worker.process.pid for worker in env._crew._workers), flush=True)\n"
        "env.step({'agent': torch.tensor([[1, 1], [6, 1]])})\n"  # the second worker hangs
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "script.py"], env=env, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert not any(gone(pid) for pid in pids)
        parent.kill()
    assert wait_until(lambda: all(gone(pid) for pid in pids), 5)


SMALL = ("--quiet", "--eval-episodes", "1")  # one copy to evaluate on, so one worker


def test_a_training_with_workers_is_the_one_without_and_leaves_nothing_behind() -> None:
    words = ("--env", "tests.envs.fakes:Walk", "--env.kwargs", "{}", *SMALL)
    assert train(Path("here"), *words) == 0
    before = children(), descriptors()
    for run, workers in (("one", "1"), ("two", "1"), ("three", "2")):
        assert train(Path(run), *words, "--env.workers", workers) == 0
        assert (children(), descriptors()) == before
    assert_same_run(Path("here"), Path("one"))
    assert_same_run(Path("here"), Path("three"))


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder in which three tokens lie as soon as training begins."""
    folder = tmp_path / "tokens"
    folder.mkdir()
    train = loop.train

    def supplied(*arguments: Any) -> Any:
        for number in range(3):
            (folder / f"step{number}").touch()
        return train(*arguments)

    monkeypatch.setattr(loop, "train", supplied)
    return folder


def troubled(*more: str, **kwargs: Any) -> tuple[str, ...]:
    """The arguments of a training that meets trouble."""
    return (
        "--env",
        "tests.envs.trouble:Trouble",
        "--env.kwargs",
        json.dumps(kwargs),
        "--env.workers",
        "1",
        *SMALL,
        *more,
    )


def failures(run: Path) -> list[dict[str, Any]]:
    return [entry for entry in incidents(run) if entry["kind"] == "worker_failure"]


def test_a_training_survives_failures_and_says_so(tokens: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(Path("run"), *troubled(tokens=str(tokens), actions=3)) == 0
    found = failures(Path("run"))
    numbers = [(entry["value"], entry["limit"], entry["action"]) for entry in found]
    assert numbers == [(float(count), 10.0, "restarted") for count in (1, 2, 3)]
    assert [entry["where"] for entry in found] == [{"worker": 0, "copy": copy} for copy in range(3)]
    assert all("failed in step 3 of an episode" in entry["reason"] for entry in found)
    err = " ".join(capsys.readouterr().err.split())
    assert "ValueError: the door is stuck; restarted" in err
    assert "failure 3 of 10 that are survived" in err
    lengths = read_metrics(Path("run/metrics.csv"))["charts/episode_length"]
    assert set(lengths) == {5.0}  # the episodes given up after two steps do not count


def test_beyond_the_budget_a_training_is_stopped_whole(tokens: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(Path("run"), *troubled("--env.max-failures", "2", tokens=str(tokens), actions=3)) == 3
    found = metadata(Path("run"))
    assert found["status"] == "stopped"
    assert "env.max_failures is 2" in found["reason"]
    assert [entry["action"] for entry in failures(Path("run"))] == ["restarted", "restarted", "stopped"]
    assert "ValueError: the door is stuck" in " ".join(capsys.readouterr().err.split())
    assert checkpoint(Path("run"))["training"]["envs"]["episodes"] == [0] * 8  # as before the step that failed


def test_an_environment_that_always_fails_is_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    before = children(), descriptors()
    assert train(Path("run"), *troubled("--env.max-failures", "1", actions=4)) == 2
    assert (children(), descriptors()) == before
    assert "failed in step" in capsys.readouterr().err
    assert not Path("run").exists()


def test_ctrl_c_reaches_the_whole_group_and_still_ends_the_run_whole() -> None:
    words = ("train", "--env", "tests.envs.fakes:Walk", "--env.workers", "2", "--env.num-envs", "4", "--run-dir", "run")
    more = ("--algo.batch-size", "48", "--total-steps", "1e8", *SMALL)
    with subprocess.Popen(
        [sys.executable, "-m", "marl_stable", *words, *more],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as parent:
        assert wait_until(lambda: Path("run/metrics.csv").exists() and len(rows(Path("run"))) > 2, 60)
        os.killpg(parent.pid, signal.SIGINT)
        _, err = parent.communicate(timeout=20)
    assert parent.returncode == 130, err
    assert metadata(Path("run"))["status"] == "interrupted"
    assert failures(Path("run")) == []
    assert "Traceback" not in err
