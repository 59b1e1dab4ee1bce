from __future__ import annotations

import errno
import logging
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from marl_stable.report.metrics import read_metrics
from marl_stable.report.sinks import Sink, Sinks


class Disk:
    """A log that fails while its disk is full."""

    def __init__(self) -> None:
        self.full = False
        self.writes = 0

    def write(self) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.writes += 1


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    accumulator = EventAccumulator(str(folder), {"scalars": 0})
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def test_a_full_disk_is_warned_about_once_until_it_works_again() -> None:
    disk, warnings = Disk(), list[str]()
    sink = Sink("metrics.csv", lambda: disk, warnings.append)
    for full in (False, True, True, False, True):
        disk.full = full
        sink.call(Disk.write)
    assert disk.writes == 2
    said = "metrics.csv cannot be written (No space left on device); training goes on, what it would log is lost."
    assert warnings == [said, said]


def test_a_log_that_cannot_be_opened_is_tried_again() -> None:
    disk, warnings, tries = Disk(), list[str](), list[int]()

    def open_log() -> Disk:
        tries.append(len(tries))
        if len(tries) < 3:
            raise PermissionError(errno.EACCES, "Permission denied")
        return disk

    sink = Sink("TensorBoard's log", open_log, warnings.append)
    for _ in range(4):
        sink.call(Disk.write)
    assert disk.writes == 3  # the first try was made when the sink was created
    assert len(tries) == 3
    assert len(warnings) == 1


def test_mistakes_of_the_program_are_not_hidden() -> None:
    sink = Sink("metrics.csv", Disk, lambda text: None)
    with pytest.raises(AttributeError):
        sink.call(lambda log: log.no_such_method())  # type: ignore[attr-defined]


def test_one_row_reaches_both_logs(tmp_path: Path) -> None:
    warnings = list[str]()
    sinks = Sinks(tmp_path, warnings.append)
    sinks.write({"steps": 10, "seconds": 0.5, "losses/critic": 0.25})
    sinks.histogram("actions/agent_0/0", 10, [1, 2], [-1.0, 0.0, 1.0])
    assert read_metrics(tmp_path / "metrics.csv") == {"steps": [10], "seconds": [0.5], "losses/critic": [0.25]}
    assert scalars(tmp_path, "losses/critic") == [(10, 0.25)]
    accumulator = EventAccumulator(str(tmp_path))
    accumulator.Reload()
    assert accumulator.Tags()["scalars"] == ["losses/critic"]
    assert accumulator.Tags()["histograms"] == ["actions/agent_0/0"]
    assert warnings == []


def test_resuming_keeps_the_rows_up_to_the_checkpoint_in_both(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)  # TensorBoard warns that it purges
    before = Sinks(tmp_path, pytest.fail)
    for steps in (10, 20, 30):
        before.write({"steps": steps, "seconds": 0.0, "x": steps})
    Sinks(tmp_path, pytest.fail, keep_until=20)
    assert read_metrics(tmp_path / "metrics.csv")["x"] == [10, 20]
    assert scalars(tmp_path, "x") == [(10, 10), (20, 20)]


def test_a_really_full_disk_never_raises_and_rows_come_back(tmp_path: Path, small_files) -> None:
    warnings = list[str]()
    with small_files(5):
        sinks = Sinks(tmp_path, warnings.append)
        for steps in (1, 2):
            sinks.write({"steps": steps, "seconds": 0.0, "x": steps})
            sinks.histogram("h", steps, [1], [0.0, 1.0])
        assert [text.split(" cannot")[0] for text in warnings] == ["TensorBoard's log", "metrics.csv"]
        assert list(tmp_path.iterdir()) == []
    sinks.write({"steps": 3, "seconds": 0.0, "x": 3})
    assert read_metrics(tmp_path / "metrics.csv")["x"] == [3]
    assert scalars(tmp_path, "x") == [(3, 3)]
    assert len(warnings) == 2


def test_a_deleted_run_folder_is_survived(tmp_path: Path) -> None:
    warnings = list[str]()
    folder = tmp_path / "run"
    folder.mkdir()
    sinks = Sinks(folder, warnings.append)
    sinks.write({"steps": 1, "seconds": 0.0})
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    sinks.write({"steps": 2, "seconds": 0.0})
    assert len(warnings) == 2
    assert "No such file or directory" in warnings[0]


def test_amended_values_reach_both_logs(tmp_path: Path) -> None:
    sinks = Sinks(tmp_path, pytest.fail)
    sinks.write({"steps": 10, "seconds": 0.5, "x": 0.25})
    sinks.amend({"steps": 10, "eval/return": -3.0})
    read = {"steps": [10], "seconds": [0.5], "x": [0.25], "eval/return": [-3.0]}
    assert read_metrics(tmp_path / "metrics.csv") == read
    assert scalars(tmp_path, "eval/return") == [(10, -3.0)]


def test_resuming_can_undo_what_only_the_end_called_for(tmp_path: Path) -> None:
    before = Sinks(tmp_path, pytest.fail)
    before.write({"steps": 10, "seconds": 0.5, "x": 0.25})
    before.amend({"steps": 10, "eval/return": -3.0})
    Sinks(tmp_path, pytest.fail, keep_until=10, undo="eval/")
    assert read_metrics(tmp_path / "metrics.csv") == {"steps": [10], "seconds": [0.5], "x": [0.25]}


def test_a_full_disk_while_amending_never_raises(tmp_path: Path, small_files) -> None:
    warnings = list[str]()
    sinks = Sinks(tmp_path, warnings.append)
    sinks.write({"steps": 1, "seconds": 0.0, "x": 1.0})
    with small_files(5):
        sinks.amend({"steps": 1, "eval/return": -3.0})
    assert [text.split(" cannot")[0] for text in warnings] == ["metrics.csv", "TensorBoard's log"]
    assert read_metrics(tmp_path / "metrics.csv")["x"] == [1.0]
