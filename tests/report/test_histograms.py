"""Histograms read back from event files: as they were written, of runs gone on with, and of torn files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from marl_stable.report.histograms import read_histograms
from marl_stable.report.tensorboard import TensorBoardLog

EDGES = [-1.0, -0.5, 0.0, 0.5, 1.0]


def test_they_are_what_was_written_with_empty_bins_at_the_ends_too(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path)
    log.scalars(10, {"x": 1.0})
    log.histogram("actions/a/0", 10, [0, 3, 1, 0], EDGES)
    log.histogram("actions/a/0", 20, [4, 0, 0, 0], EDGES)
    log.histogram("actions/b/0", 20, [1, 2], [-0.5, 0.5, 1.5])
    found = read_histograms(tmp_path)
    assert list(found) == ["actions/a/0", "actions/b/0"]
    np.testing.assert_array_equal(found["actions/a/0"].edges, EDGES)
    np.testing.assert_array_equal(found["actions/a/0"].steps, [10, 20])
    np.testing.assert_array_equal(found["actions/a/0"].counts, [[0, 3, 1, 0], [4, 0, 0, 0]])
    np.testing.assert_array_equal(found["actions/b/0"].edges, [-0.5, 0.5, 1.5])


def test_what_a_resumed_run_takes_back_is_gone(tmp_path: Path) -> None:
    before = TensorBoardLog(tmp_path)
    for steps in (10, 20, 30):
        before.histogram("h", steps, [steps, 0], [0.0, 1.0, 2.0])
    TensorBoardLog(tmp_path, purge_step=21).histogram("h", 25, [0, 25], [0.0, 1.0, 2.0])
    found = read_histograms(tmp_path)["h"]
    np.testing.assert_array_equal(found.steps, [10, 20, 25])
    np.testing.assert_array_equal(found.counts, [[10, 0], [20, 0], [0, 25]])


def test_a_torn_end_costs_the_last_record_alone(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path)
    for steps in (10, 20):
        log.histogram("h", steps, [1, 2], [0.0, 1.0, 2.0])
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for length in (len(whole) - 1, len(whole) - 40):
        file.write_bytes(whole[:length])
        np.testing.assert_array_equal(read_histograms(tmp_path)["h"].steps, [10])
    file.write_bytes(b"no event file at all")
    assert read_histograms(tmp_path) == {}


def test_a_folder_without_event_files_has_none(tmp_path: Path) -> None:
    assert read_histograms(tmp_path) == {}
