"""Several processes that train as one, by `torchrun`: equal parameters, exact resume, and one that dies."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from marl_stable import distributed
from marl_stable.agents.base import Rings
from marl_stable.cli import main
from marl_stable.replay_files import ReplayFiles, load_divided, own_folder
from tests.ranks import REPLAY, VARIANTS, tiny
from tests.runs import ROOT, assert_equal, assert_same_run, checkpoint, incidents, measure_little, metadata, rows
from tests.test_resume import UNEVEN

ACTS = {
    "refused": "skipped_update",
    "skipped": "skipped_update",
    "reset": "reset_moments",
    "restored": "restored",
    "lowered": "lowered_rate",
}


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"} | more


def torchrun(folder: Path, *arguments: str, restarts: int = 0) -> subprocess.CompletedProcess[str]:
    """`torchrun` with two processes of tests/ranks.py."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [f"--max-restarts={restarts}", "-m", "tests.ranks", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False, timeout=300
    )


def by_hand(folder: Path, *arguments: str) -> list[subprocess.Popen[str]]:
    """The same two processes without `torchrun`, whose own exit code says nothing of theirs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    places = [
        {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} for rank in (0, 1)
    ]
    command = [sys.executable, "-m", "tests.ranks", *arguments]
    return [
        subprocess.Popen(command, cwd=folder, env=environment(**place), text=True, stderr=subprocess.PIPE)
        for place in places
    ]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left behind of all scenes that need no processes of their own: to start them takes longest."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "uneven.py").write_text(UNEVEN)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        measure_little(patch)
        patch.setattr(os, "fsync", lambda descriptor: None)
        for name, flags in {"mappo": [], "maddpg": REPLAY}.items():
            assert tiny(f"{name} alone before", *flags) == 0
    done = torchrun(folder, "equal", "learn", "resume", "refused", "units")
    assert done.returncode == 0, done.stderr
    (folder / "told").write_text(done.stderr)
    return folder


@pytest.mark.parametrize("name", [*VARIANTS, *ACTS])
def test_processes_hold_equal_parameters_statistics_and_optimisers_bit_for_bit(ranks: Path, name: str) -> None:
    first, second = (torch.load(ranks / f"{name}-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert_equal(first["learned"], second["learned"])
    assert_equal(first["rates"], second["rates"])
    with pytest.raises(AssertionError):
        assert_equal(first["obs"], second["obs"])  # each lives in episodes of its own


@pytest.mark.parametrize(("name", "action"), ACTS.items())
def test_every_act_of_the_guard_was_among_them(ranks: Path, name: str, action: str) -> None:
    assert action in {entry["action"] for entry in incidents(ranks / name)}


def test_one_process_writes_and_steps_count_the_copies_of_all(ranks: Path) -> None:
    assert metadata(ranks / "mappo")["steps"] == 240
    steps = [int(float(row[0])) for row in rows(ranks / "mappo")[1:]]
    assert steps == [48, 96, 144, 192, 240]
    state = checkpoint(ranks / "mappo")
    assert len(state["others"]) == 1
    assert {path.name for path in (ranks / "mappo" / "checkpoints").iterdir()} == {"last.pt", "previous.pt", "best.pt"}
    assert [steps for steps, _ in metadata(ranks / "mappo")["returns"]] == [96, 192, 240]


@pytest.mark.parametrize("name", ["mappo", "maddpg"])
def test_a_stopped_run_goes_on_exactly_with_as_many_processes(ranks: Path, name: str) -> None:
    assert_same_run(ranks / f"{name} stopped", ranks / f"{name} whole")


@pytest.mark.parametrize("name", ["mappo", "maddpg"])
def test_a_run_of_one_process_goes_on_with_two(ranks: Path, name: str) -> None:
    assert metadata(ranks / f"{name} alone before")["steps"] == 480
    first, second = (torch.load(ranks / f"{name} alone before-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert_equal(first["learned"], second["learned"])
    assert "1 processes trained this run so far, and 2 go on" in (ranks / "told").read_text().replace("\n", " ")


@pytest.mark.parametrize("name", ["mappo", "maddpg"])
def test_a_run_of_two_processes_goes_on_with_one(
    ranks: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(ranks / f"{name} whole", run)
    assert main(["train", "--resume", str(run), "--quiet", "--total-steps", "480"]) == 0
    assert "2 processes trained this run so far, and 1 go on" in capsys.readouterr().err.replace("\n", " ")
    assert metadata(run)["steps"] == 480
    assert "others" not in checkpoint(run)
    assert main(["train", "--resume", str(run), "--quiet", "--total-steps", "528"]) == 0


def test_a_process_that_dies_costs_no_more_than_the_way_back_to_the_last_checkpoint(
    tmp_path: Path, ranks: Path
) -> None:
    done = torchrun(tmp_path, "killed", restarts=1)
    assert done.returncode == 0, done.stderr
    assert metadata(tmp_path / "run")["status"] == "finished"
    assert_same_run(tmp_path / "run", ranks / "mappo")


def test_copies_that_cannot_be_shared_alike_are_one_sentence(ranks: Path) -> None:
    for told in (ranks / "refused-0", ranks / "refused-1"):
        sentence = "error: env.num_envs is 7, which 2 processes cannot share alike; set it to 8."
        assert told.read_text().strip() == sentence
    assert not (ranks / "unshared").exists()


def test_ctrl_c_ends_all_processes_whole(tmp_path: Path) -> None:
    processes = by_hand(tmp_path, "plain", "--total-steps", "1e6", "--eval-every", "0")
    metrics, patience = tmp_path / "run" / "metrics.csv", time.monotonic() + 60
    while not (metrics.exists() and metrics.read_text().count("\n") > 3) and time.monotonic() < patience:
        time.sleep(0.05)
    for process in processes:
        process.send_signal(signal.SIGINT)
    for process in processes:
        _, told = process.communicate(timeout=60)
        assert process.returncode == 130, told
    found = metadata(tmp_path / "run")
    assert found["status"] == "interrupted"
    assert checkpoint(tmp_path / "run")["steps"] == found["steps"] > 0


def test_two_processes_with_half_the_copies_each_learn_what_one_learns(ranks: Path) -> None:
    (_, value), *_ = reversed(metadata(ranks / "walk")["returns"])
    assert value == pytest.approx(10, abs=0.5)  # 2 for each of five steps; at random 5


def test_what_is_made_of_all_data_is_what_one_process_would_make_of_it(ranks: Path) -> None:
    assert {path.name for path in ranks.glob("units-*")} == {"units-0", "units-1"}


def test_a_single_process_gets_back_what_it_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    x, device = torch.ones(2), torch.device("cpu")
    with distributed.joined(device) as mine:
        assert mine is device
        assert not torch.distributed.is_initialized()
        assert all(call(x) is x for call in (distributed.total, distributed.mean, distributed.gathered))
        assert distributed.part(x) is x
        assert distributed.told(x) is x
        assert distributed.collected(x) == [x]
        assert (distributed.divided(7, "copies"), distributed.own_seed(3)) == (7, 3)
        assert not distributed.restarted()
    with pytest.raises(ValueError, match="words"), distributed.together(ValueError):
        raise ValueError("words")


@pytest.mark.parametrize(("before", "now"), [(2, 1), (1, 2), (2, 4), (4, 2)])
def test_a_replay_is_divided_anew(tmp_path: Path, before: int, now: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten steps of eight copies in a ring of four, whose entries say which step and copy they are of."""
    whole = 100 * torch.tensor([8.0, 9.0, 6.0, 7.0]).unsqueeze(1) + torch.arange(8.0)
    for rank, ring in enumerate(whole.chunk(before, dim=1)):
        rings = Rings({"agents": {"reward": ring.contiguous()}}, 10, 10)
        ReplayFiles(own_folder(tmp_path, rank, before), rings._replace(steps=0, settled=0)).save(rings)
    for rank, expected in enumerate(whole.chunk(now, dim=1)):
        monkeypatch.setattr(distributed, "_size", now)
        monkeypatch.setattr(distributed, "_rank", rank)
        empty = Rings({"agents": {"reward": torch.zeros(4, 8 // now)}}, 10, 10)
        load_divided(tmp_path, empty, before)
        assert_equal(empty.groups["agents"]["reward"], expected.contiguous())
        again = ReplayFiles(own_folder(tmp_path, rank, now), empty)
        again.save(empty)  # none of which was in files of this division
        assert again.written == 10
