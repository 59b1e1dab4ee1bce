"""The recording in a run folder: what is written, what is survived, and that resuming leaves no seam in it."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_stable.cli import main
from marl_stable.cli.words import EXIT
from marl_stable.diagnosing import diagnose_run
from marl_stable.interruption import Signals
from marl_stable.monitor.recording import read_recording, row_type
from marl_stable.monitor.table import Host, Layers
from marl_stable.recorder import Labels, Recorder, labels
from marl_stable.report.sinks import Sink
from marl_stable.types import Discrete, EnvSpec, Group
from tests.runs import start, words

NAMES = Labels(
    {"team": ("red", "blue"), "prey": ("hare",)},
    {"team": {"actor": {"layer": ["hidden.0", "final"], "unit": ["hidden.0"]}}},
)
ALWAYS = "losses/critic"
TWO_GROUPS = [
    *("--algo", "matd3", "--env", "particle/simple_speaker_listener_v4", "--env.num-envs", "8", "--env.kwargs"),
    *('{"max_cycles": 5, "continuous_actions": true}', "--algo.train-every", "48", "--algo.steps-per-update", "24"),
    *("--algo.batch-size", "16", "--algo.buffer-size", "80", "--algo.warm-up", "48", "--algo.network.hidden", "8"),
    *("--eval-every", "96", "--eval-episodes", "8", "--checkpoint-every", "48", "--total-steps", "240"),
]
TAGS = (ALWAYS, "stability/reward_std", "stability/layer_grad/actor", "charts/return")


def found(*tags: str, scale: float = 1.0) -> Host:
    """Numbers of an iteration."""
    shapes = {"stability/layer_grad/actor": (1, 2), "stability/dormant/actor": (1,), "charts/return": ()}
    return {tag: {"team": scale * np.ones(shapes.get(tag, (2,)))} for tag in tags}


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def values(folder: Path, signal: str, **where: object) -> tuple[list[int], list[float]]:
    (series,) = read_recording(folder).series(signal, **where)
    return series.steps.tolist(), series.values.tolist()


def test_numbers_lie_under_their_names(tmp_path: Path):
    recorder = Recorder(tmp_path / "r", NAMES)
    tags = {tag: {"team": np.arange(2.0) + 1} for tag in ("stability/reward_std", "losses/critic")}
    tags["losses/critic"]["prey"] = np.array([7.0])
    tags["stability/layer_grad/actor"] = {"team": np.array([[3.0, 4.0]])}
    tags["stability/dormant/actor"] = {"team": np.array([0.25])}
    recorder.write(16, tags)
    told = read_recording(tmp_path / "r")
    assert told.steps.tolist() == [16]
    assert {(name, *x.where.values()): x.values.item() for name in told.signals() for x in told.series(name)} == {
        ("reward_std", "team", "red"): 1.0,
        ("reward_std", "team", "blue"): 2.0,
        ("losses/critic", "team", "red"): 1.0,
        ("losses/critic", "team", "blue"): 2.0,
        ("losses/critic", "prey", "hare"): 7.0,
        ("layer_grad", "team", "actor", "hidden.0"): 3.0,
        ("layer_grad", "team", "actor", "final"): 4.0,
        ("dormant", "team", "actor", "hidden.0"): 0.25,
    }


def test_labels_are_those_of_the_groups():
    spec = EnvSpec("toy", ("a", "b"), (Group("g", ("a", "b"), 3, Discrete(2), "team"),))
    layers: dict[str, dict[str, Layers]] = {"g": {"actor": {"layer": ["final"]}}}
    assert labels(spec, layers) == Labels({"g": ("a", "b")}, layers)


def test_new_columns_begin_a_segment_and_older_rows_stay(tmp_path: Path):
    recorder = Recorder(tmp_path, NAMES)
    recorder.write(10, found(ALWAYS))
    recorder.write(20, found(ALWAYS))
    before = files(tmp_path)
    recorder.write(30, found(ALWAYS, "stability/reward_std"))
    recorder.write(40, found(ALWAYS))  # not read every time: no new segment
    assert [*files(tmp_path)] == ["000.bin", "000.json", "001.bin", "001.json"]
    assert {name: files(tmp_path)[name] for name in before} == before
    assert values(tmp_path, "losses/critic", agent="red") == ([10, 20, 30, 40], [1.0] * 4)
    assert values(tmp_path, "reward_std", agent="red") == ([30], [1.0])


def test_a_run_under_way_can_be_read_after_every_row(tmp_path: Path):
    recorder = Recorder(tmp_path, NAMES)
    assert read_recording(tmp_path).steps.tolist() == []
    for steps in range(1, 6):
        recorder.write(steps, found(*TAGS[: 1 + steps // 2]))
        assert read_recording(tmp_path).steps.tolist() == [*range(1, steps + 1)]


def test_a_new_run_does_not_go_on_with_what_lies_there(tmp_path: Path):
    Recorder(tmp_path, NAMES).write(10, found(ALWAYS))
    recorder = Recorder(tmp_path, NAMES)
    assert files(tmp_path) == {}
    recorder.write(5, found("charts/return"))
    assert read_recording(tmp_path).signals() == ["charts/return"]


# ---- survived


def test_deleted_files_are_begun_anew(tmp_path: Path):
    folder = tmp_path / "r"
    recorder = Recorder(folder, NAMES)
    recorder.write(10, found(ALWAYS))
    (folder / "000.bin").unlink()
    recorder.write(20, found(ALWAYS))
    assert read_recording(folder).steps.tolist() == [20]
    (folder / "000.json").unlink()  # rows without their columns mean nothing
    recorder.write(30, found(ALWAYS))
    assert read_recording(folder).steps.tolist() == [30]
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    recorder.write(40, found(ALWAYS))
    assert read_recording(folder).steps.tolist() == [40]


def test_a_deleted_run_folder_costs_a_warning(tmp_path: Path):
    told = list[str]()
    sink = Sink("the recording", lambda: Recorder(tmp_path / "run" / "r", NAMES), told.append)
    for steps in (1, 2):
        sink.call(lambda recorder, steps=steps: recorder.write(steps, found(ALWAYS)))  # type: ignore[misc]
    reason = "No such file or directory"
    assert told == [f"the recording cannot be written ({reason}); training goes on, what it would log is lost."]


@pytest.mark.parametrize("failing", [1, 2], ids=["rows", "columns"])
def test_a_full_disk_where_a_segment_begins_leaves_no_row_in_the_wrong_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
):
    recorder = Recorder(tmp_path, NAMES)
    recorder.write(10, found(ALWAYS))
    replace, calls = Path.replace, list[Path]()

    def full(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            recorder.write(20, found(ALWAYS, "stability/reward_std", scale=2.0))
    assert read_recording(tmp_path).steps.tolist() == [10]
    recorder.write(30, found(ALWAYS, "stability/reward_std", scale=3.0))
    recorder.write(40, found(ALWAYS, scale=4.0))
    assert values(tmp_path, "losses/critic", agent="blue") == ([10, 30, 40], [1.0, 3.0, 4.0])
    assert values(tmp_path, "reward_std", agent="blue") == ([30], [3.0])
    assert [*files(tmp_path)] == ["000.bin", "000.json", "001.bin", "001.json"]


def test_a_really_full_disk_tears_no_row(tmp_path: Path, small_files):
    recorder = Recorder(tmp_path, NAMES)
    recorder.write(10, found(ALWAYS))
    with small_files(row_type(2).itemsize + 5), pytest.raises(OSError, match="File too large"):
        recorder.write(20, found(ALWAYS))
    assert len((tmp_path / "000.bin").read_bytes()) == row_type(2).itemsize
    recorder.write(30, found(ALWAYS))
    assert read_recording(tmp_path).steps.tolist() == [10, 30]


# ---- resumed


def plan(appears: list[int], rows: int) -> Iterator[tuple[int, Host]]:
    """Iterations in which the i-th tag is first told at the `appears[i]`-th, and not again at every second."""
    for i in range(rows):
        tags = [tag for tag, first in zip(TAGS, appears, strict=True) if i >= first and (i - first) % 2 == 0]
        yield 10 * (i + 1), found(ALWAYS, *tags, scale=i)


@given(
    appears=st.lists(st.integers(0, 8), min_size=4, max_size=4),
    cut=st.integers(1, 8),
    crash=st.integers(0, 3),
    torn=st.integers(0, 20),
)
@settings(max_examples=40, deadline=None)
def test_a_resumed_recording_is_that_of_the_run_that_never_stopped(
    appears: list[int], cut: int, crash: int, torn: int, tmp_path_factory: pytest.TempPathFactory
):
    """Stopped `crash` rows after its checkpoint at the `cut`-th row, with part of one more."""
    whole, parts = (tmp_path_factory.mktemp(name) for name in ("whole", "parts"))
    rows = list(plan(appears, 9))
    uninterrupted, first = Recorder(whole, NAMES), Recorder(parts, NAMES)
    for row in rows:
        uninterrupted.write(*row)
    for row in rows[: cut + crash]:
        first.write(*row)
    last = max(parts.glob("*.bin"))
    last.write_bytes(last.read_bytes() + b"\x7f" * min(torn, 8 + 3))  # shorter than any row
    second = Recorder(parts, NAMES, keep_until=10 * cut)
    assert read_recording(parts).steps.tolist() == [10 * (i + 1) for i in range(cut)]
    for row in rows[cut:]:
        second.write(*row)
    assert files(parts) == files(whole)


def test_resuming_drops_segments_without_columns_or_rows(tmp_path: Path):
    recorder = Recorder(tmp_path, NAMES)
    recorder.write(10, found(ALWAYS))
    expected = files(tmp_path)
    recorder.write(20, found(ALWAYS, "charts/return"))
    (tmp_path / "002.json").write_bytes(b'[["x"')
    (tmp_path / "002.bin").write_bytes(b"rows")
    (tmp_path / "003.json").write_bytes(b"[]")
    Recorder(tmp_path, NAMES, keep_until=10)
    assert files(tmp_path) == expected


def test_resuming_keeps_what_cannot_be_read_at_this_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Recorder(tmp_path, NAMES).write(10, found(ALWAYS))
    before = files(tmp_path)

    def failing(self: Path) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", failing)
        with pytest.raises(OSError, match="Input/output error"):
            Recorder(tmp_path, NAMES, keep_until=10)
    assert files(tmp_path) == before


@pytest.mark.parametrize("settings", [words(Path())[1:-2], TWO_GROUPS], ids=["mappo", "matd3, two groups"])
@pytest.mark.usefixtures("quick_measurements")
def test_a_resumed_run_records_what_the_uninterrupted_one_does(
    tmp_path: Path, settings: list[str], monkeypatch: pytest.MonkeyPatch
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(["train", *settings, "--quiet", "--run-dir", str(whole)]) == 0
    with monkeypatch.context() as patched:
        enough = 3
        patched.setattr(Signals, "__call__", lambda self: len(read_recording(parts / "recording").steps) >= enough)
        assert main(["train", *settings, "--quiet", "--run-dir", str(parts)]) == EXIT["interrupted"]
    (parts / "checkpoints" / "last.pt").write_bytes(b"damaged")  # so that rows after the one before are cut
    assert main(["train", "--resume", str(parts), "--quiet"]) == 0
    assert files(parts / "recording") == files(whole / "recording")
    told = read_recording(whole / "recording")
    assert told.steps.tolist() == [48, 96, 144, 192, 240]
    assert {series.where["layer"] for series in told.series("dormant")} == {"hidden.0"}
    assert {series.where["layer"] for series in told.series("layer_grad", network="actor")} == {"hidden.0", "final"}


@pytest.mark.usefixtures("quick_measurements")
def test_a_killed_run_leaves_a_recording_that_can_be_read_and_gone_on_with(tmp_path: Path):
    run = tmp_path / "run"
    constant = ("--algo.lr-schedule", "constant")  # the last step will be another than at first thought
    process = start(*words(run, *constant, "--total-steps", "100000", "--checkpoint-every", "96"), cwd=tmp_path)
    try:
        while len(seen := read_recording(run / "recording").steps.tolist()) < 4:
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.kill()
        process.communicate()
    left = read_recording(run / "recording").steps.tolist()
    assert seen == left[: len(seen)]
    assert left == [48 * (i + 1) for i in range(len(left))]
    assert diagnose_run(run)["checked"]
    (rows,) = (run / "recording").glob("*.bin")
    before = rows.read_bytes()
    whole = before[: len(before) // len(left) * len(left)]
    assert main(["train", "--resume", str(run), "--total-steps", str(left[-1] + 48), "--quiet"]) == 0
    assert rows.read_bytes().startswith(whole)
    assert read_recording(run / "recording").steps.tolist() == [*left, left[-1] + 48]
