from __future__ import annotations

import csv
import math
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marl_stable.report.metrics import MetricsFile, read_metrics
from marl_stable.types import UsageError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.csv"


def same(a: float, b: float) -> bool:
    return struct.pack("d", a) == struct.pack("d", b) or (math.isnan(a) and math.isnan(b))


def test_steps_and_seconds_come_first_then_tags_as_they_appeared(path: Path) -> None:
    file = MetricsFile(path)
    file.write({"losses/critic": 0.5, "seconds": 1.5, "steps": 10, "charts/return": -9.0})
    assert path.read_text() == "steps,seconds,losses/critic,charts/return\n10,1.5,0.5,-9.0\n"


def test_missing_values_are_empty_and_a_new_tag_widens_every_row(path: Path) -> None:
    file = MetricsFile(path)
    file.write({"steps": 1, "seconds": 0.5, "a": 1.0})
    file.write({"steps": 2, "seconds": 1.0, "eval/return": -3.0})
    file.write({"steps": 3, "a": math.nan, "b": math.inf, "c": -math.inf})
    assert path.read_text().splitlines() == [
        "steps,seconds,a,eval/return,b,c",
        "1,0.5,1.0,,,",
        "2,1.0,,-3.0,,",
        "3,,nan,,inf,-inf",
    ]


def test_each_row_is_on_disk_when_write_returns(path: Path) -> None:
    file = MetricsFile(path)
    for steps in range(5):
        file.write({"steps": steps, "seconds": 0.0})
        assert read_metrics(path)["steps"][-1] == steps


@given(st.lists(st.floats(), min_size=1, max_size=5))
def test_floats_come_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, values: list[float]) -> None:
    path = tmp_path_factory.mktemp("run") / "metrics.csv"
    file = MetricsFile(path)
    for steps, value in enumerate(values):
        file.write({"steps": steps, "seconds": 0.0, "x": value})
    read = read_metrics(path)
    assert all(same(a, b) for a, b in zip(read["x"], values, strict=True))
    assert read["steps"] == list(range(len(values)))


def test_an_empty_cell_reads_as_nan(path: Path) -> None:
    file = MetricsFile(path)
    file.write({"steps": 1, "seconds": 0.0, "a": 1.0})
    file.write({"steps": 2, "seconds": 0.0, "b": 2.0})
    read = read_metrics(path)
    assert read["a"][0] == 1.0
    assert math.isnan(read["a"][1])
    assert math.isnan(read["b"][0])
    assert read["b"][1] == 2.0


def test_tags_that_need_quotes_survive_resuming(path: Path) -> None:
    tags = {"rewards/terms/near, far": 1.0, 'rewards/terms/"x"': 2.0, "rewards/terms/two\nlines": 3.0, "größe": 4.0}
    MetricsFile(path).write({"steps": 1, "seconds": 0.0, **tags})
    MetricsFile(path, keep_until=1).write({"steps": 2, "seconds": 0.0, **tags})
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0][2:] == [tag.replace("\n", " ") for tag in tags]
    assert [row[0] for row in rows[1:]] == ["1", "2"]
    assert read_metrics(path)["größe"] == [4.0, 4.0]


def test_resuming_drops_later_rows_and_keeps_earlier_ones_byte_for_byte(path: Path) -> None:
    file = MetricsFile(path)
    for steps in (100, 200, 300, 400):
        file.write({"steps": steps, "seconds": steps / 7, "x": 1 / steps})
    lines = path.read_bytes().splitlines(keepends=True)
    MetricsFile(path, keep_until=200)
    assert path.read_bytes() == b"".join(lines[:3])


def test_a_resumed_run_writes_the_file_of_an_uninterrupted_one(path: Path, tmp_path: Path) -> None:
    rows = [
        {"steps": s, "seconds": s / 3, "loss": 1 / (s + 1), **({"eval": -s} if s % 4 == 3 else {})} for s in range(9)
    ]
    whole = tmp_path / "whole.csv"
    uninterrupted = MetricsFile(whole)
    for row in rows:
        uninterrupted.write(row)
    for row in rows[:6]:
        MetricsFile(path, keep_until=int(row["steps"])).write(row)
    resumed = MetricsFile(path, keep_until=2)  # before `eval` was first seen
    for row in rows[3:]:
        resumed.write(row)
    assert path.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("torn", [b"30", b"30,1.0", b"30,1.0,0.2", b"\0\0\0\0\n", b"\0\0,1.0,2.0\n", b"30,1.0\n"])
def test_a_torn_last_line_is_dropped_and_never_read(path: Path, torn: bytes) -> None:
    file = MetricsFile(path)
    file.write({"steps": 10, "seconds": 0.5, "x": 1.0})
    file.write({"steps": 20, "seconds": 1.0, "x": 2.0})
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert read_metrics(path)["steps"] == [10, 20]
    resumed = MetricsFile(path, keep_until=1000)
    assert path.read_bytes() == whole
    resumed.write({"steps": 30, "seconds": 1.5, "x": 3.0})
    assert path.read_bytes() == whole + b"30,1.5,3.0\n"


@pytest.mark.parametrize("content", [None, b"", b"steps,sec"])
def test_resuming_without_a_whole_header_begins_a_new_file(path: Path, content: bytes | None) -> None:
    if content is not None:
        path.write_bytes(content)
    MetricsFile(path, keep_until=5).write({"steps": 6, "seconds": 1.0})
    assert path.read_bytes() == b"steps,seconds\n6,1.0\n"


def test_without_keep_until_a_new_file_is_begun(path: Path) -> None:
    MetricsFile(path).write({"steps": 1, "seconds": 0.0, "old": 1.0})
    MetricsFile(path).write({"steps": 2, "seconds": 0.0})
    assert path.read_bytes() == b"steps,seconds\n2,0.0\n"


def test_a_full_disk_while_widening_loses_no_row_and_no_column(path: Path, small_files) -> None:
    file = MetricsFile(path)
    file.write({"steps": 1, "seconds": 0.0, "a": 1.0})
    before = path.read_bytes()
    with small_files(len(before)), pytest.raises(OSError, match="too large"):
        file.write({"steps": 2, "seconds": 0.0, "b": 2.0})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    file.write({"steps": 3, "seconds": 0.0, "b": 3.0})
    assert path.read_bytes() == b"steps,seconds,a,b\n1,0.0,1.0,\n3,0.0,,3.0\n"


def test_a_full_disk_while_appending_leaves_no_torn_row(path: Path, small_files) -> None:
    file = MetricsFile(path)
    file.write({"steps": 1, "seconds": 0.0})
    before = path.read_bytes()
    with small_files(len(before) + 3), pytest.raises(OSError, match="too large"):
        file.write({"steps": 2000, "seconds": 0.0})
    assert path.read_bytes() == before
    file.write({"steps": 3, "seconds": 0.0, "new": 1.0})
    assert path.read_bytes() == b"steps,seconds,new\n1,0.0,\n3,0.0,1.0\n"


def test_reading_what_is_no_metrics_file_says_so(path: Path) -> None:
    with pytest.raises(UsageError, match=r"metrics\.csv cannot be read \(No such file"):
        read_metrics(path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="first columns are not steps,seconds"):
        read_metrics(path)


def test_amending_completes_the_last_row_and_widens_for_what_is_new(path: Path) -> None:
    file = MetricsFile(path)
    file.write({"steps": 1, "seconds": 0.5, "a": 1.0})
    file.write({"steps": 2, "seconds": 1.0, "a": 2.0})
    file.amend({"steps": 2, "eval/return": -3.0, "b": math.nan})
    file.write({"steps": 3, "seconds": 1.5, "a": 3.0})
    file.amend({"steps": 3, "eval/return": -2.5})
    assert path.read_text().splitlines() == [
        "steps,seconds,a,eval/return,b",
        "1,0.5,1.0,,",
        "2,1.0,2.0,-3.0,nan",
        "3,1.5,3.0,-2.5,",
    ]


def test_amending_another_step_than_the_last_changes_no_cell(path: Path) -> None:
    file = MetricsFile(path)
    file.write({"steps": 1, "seconds": 0.5, "a": 1.0})
    file.write({"steps": 2, "seconds": 1.0, "a": 2.0})
    before = path.read_bytes()
    for steps in (1, 3):
        file.amend({"steps": steps, "a": 9.0})
    assert path.read_bytes() == before


def test_amending_where_the_first_row_was_lost_leaves_a_file_that_can_be_read(path: Path, small_files) -> None:
    file = MetricsFile(path)
    with small_files(3), pytest.raises(OSError, match="too large"):
        file.write({"steps": 1, "seconds": 0.5, "a": 1.0})
    file.amend({"steps": 1, "eval/return": -3.0})
    file.write({"steps": 2, "seconds": 1.0, "a": 2.0})
    assert read_metrics(path)["steps"] == [2]
    assert path.read_text() == "steps,seconds,eval/return,a\n2,1.0,,2.0\n"


def test_a_full_disk_while_amending_loses_nothing(path: Path, small_files) -> None:
    file = MetricsFile(path)
    file.write({"steps": 1, "seconds": 0.0, "a": 1.0})
    before = path.read_bytes()
    with small_files(len(before)), pytest.raises(OSError, match="too large"):
        file.amend({"steps": 1, "eval/return": -3.0})
    assert path.read_bytes() == before
    file.amend({"steps": 1, "eval/return": -3.0})
    assert read_metrics(path)["eval/return"] == [-3.0]


def test_undo_empties_its_tags_in_the_row_of_the_checkpoint_only(path: Path) -> None:
    file = MetricsFile(path)
    for steps in (1, 2, 3):
        file.write({"steps": steps, "seconds": 0.5, "a": 1.0, "evaluations": 7.0})
        file.amend({"steps": steps, "eval/return": -steps, "eval/episode_length": 5.0})
    MetricsFile(path, keep_until=2, undo="eval/")
    assert path.read_text().splitlines() == [
        "steps,seconds,a,evaluations,eval/return,eval/episode_length",
        "1,0.5,1.0,7.0,-1,5.0",
        "2,0.5,1.0,7.0,,",
    ]
    MetricsFile(path, keep_until=2)  # without undo everything stays
    assert read_metrics(path)["eval/return"][0] == -1


def test_a_column_that_loses_all_its_values_comes_back_in_the_order_of_an_uninterrupted_run(path: Path) -> None:
    whole = path.with_name("whole.csv")
    for file, interrupted in ((MetricsFile(whole), False), (MetricsFile(path), True)):
        file.write({"steps": 1, "seconds": 0.0, "a": 1.0})
        if interrupted:  # by an end, which evaluates: the tag appears before `charts/return`
            file.amend({"steps": 1, "eval/return": -9.0})
            file = MetricsFile(path, keep_until=1, undo="eval/")
        file.write({"steps": 2, "seconds": 0.0, "a": 1.0, "charts/return": -1.0})
        file.amend({"steps": 2, "eval/return": -2.0})
    assert path.read_bytes() == whole.read_bytes()
