"""A recording as detectors read it, and the bytes in which it is kept: also where they were torn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from marl_stable.monitor.recording import (
    EMPTY,
    Recording,
    encode_columns,
    encode_row,
    of_metrics,
    read_columns,
    read_recording,
    read_rows,
    row_type,
    segments,
)
from marl_stable.monitor.table import Column, columns

NAN, INF = np.nan, np.inf
RED, BLUE = (("group", "g"), ("agent", "red")), (("group", "g"), ("agent", "blue"))
PARTS = st.one_of(st.text(max_size=5), st.integers(0, 9))
PLACES = st.dictionaries(st.sampled_from(["group", "network", "agent", "feature", "layer"]), PARTS, max_size=4)
COLUMNS = st.lists(st.builds(lambda name, place: Column(name, tuple(place.items())), st.text(max_size=8), PLACES))
ANY = st.floats(allow_nan=True, allow_infinity=True)


def recording(steps: list[int], **signals: Mapping[Any, list[float]]) -> Recording:
    table = {Column(name, place): np.array(x) for name, parts in signals.items() for place, x in parts.items()}
    return Recording(np.array(steps, dtype=np.int64), table)


def segment(folder: Path, number: int, names: list[str], rows: dict[int, list[float]]) -> Path:
    """A segment as a run leaves it; the list of its columns."""
    file = folder / f"{number:03}.json"
    file.write_bytes(encode_columns([Column(name, ()) for name in names]))
    file.with_suffix(".bin").write_bytes(b"".join(encode_row(steps, np.array(x)) for steps, x in rows.items()))
    return file


def column(found: Recording, signal: str) -> tuple[list[int], list[float]]:
    (series,) = found.series(signal)
    return series.steps.tolist(), series.values.tolist()


# ---- as detectors read it


def test_a_series_is_what_was_read_at_a_place_and_infinities_are_values():
    found = recording([10, 20, 30], reward_std={RED: [1.0, NAN, INF], BLUE: [NAN, NAN, -1.0]})
    red, blue = found.series("reward_std")
    assert (red.signal, red.where) == ("reward_std", {"group": "g", "agent": "red"})
    assert (red.steps.tolist(), red.values.tolist()) == ([10, 30], [1.0, INF])
    assert (blue.steps.tolist(), blue.values.tolist()) == ([30], [-1.0])
    assert [series.where["agent"] for series in found.series("reward_std", agent="blue", group="g")] == ["blue"]
    assert found.series("reward_std", agent="green") == found.series("reward_mean") == []
    assert found.series("reward_std", network="actor") == []
    assert "reward_std" in found
    assert "reward_mean" not in found
    assert found.signals() == ["reward_std"]


def test_what_was_never_read_has_no_series():
    found = recording([10, 20], obs_std={RED: [NAN, NAN]})
    assert found.series("obs_std") == []
    assert found.mean("obs_std") is None
    assert found.mean("reward_std") is None
    assert EMPTY.mean("reward_std") is None


def test_the_mean_is_over_the_places_that_were_read():
    found = recording([1, 2, 3, 4], x={RED: [1.0, NAN, INF, INF], BLUE: [3.0, NAN, 0.0, -INF]})
    mean = found.mean("x")
    assert mean is not None
    assert (mean.where, mean.steps.tolist(), mean.values.tolist()) == ({}, [1, 3], [2.0, INF])


def test_until_is_what_was_known_then():
    found = recording([10, 20, 30], x={RED: [1.0, 2.0, 3.0]}, y={BLUE: [NAN, NAN, 7.0]}).until(20)
    assert found.steps.tolist() == [10, 20]
    assert column(found, "x") == ([10, 20], [1.0, 2.0])
    assert found.series("y") == []


def test_joined_prefers_its_own_signals_and_keeps_all_steps():
    own = recording([10, 30], x={RED: [1.0, 3.0]}, **{"charts/return": {(): [5.0, NAN]}})
    found = own.joined(recording([10, 20], x={BLUE: [8.0, 9.0]}, y={(): [6.0, NAN]}))
    assert found.steps.tolist() == [10, 20, 30]
    assert column(found, "x") == ([10, 30], [1.0, 3.0])
    assert column(found, "charts/return") == ([10], [5.0])
    assert column(found, "y") == ([10], [6.0])
    assert column(EMPTY.joined(own), "x") == column(own.joined(EMPTY), "x") == column(own, "x")


def test_metrics_are_told_apart_by_group_and_network():
    tags = ["losses/critic", "losses/critic/a", "grad_norm/actor", "grad_norm/actor/a", "eval/return", "eval/return/a"]
    found = of_metrics({"steps": [1.0, 2.0], "seconds": [0.1, 0.2]} | {tag: [1.0, NAN] for tag in tags}, ["a", "b"])
    places = {name: [series.where for series in found.series(name)] for name in found.signals()}
    assert places == {
        "losses/critic": [{}, {"group": "a"}],
        "grad_norm": [{"network": "actor"}, {"group": "a", "network": "actor"}],
        "eval/return": [{}, {"group": "a"}],
    }
    assert found.steps.tolist() == [1, 2]
    assert of_metrics({}, []).steps.tolist() == []


def test_groups_may_be_called_as_networks_are_or_have_strokes():
    table = {"steps": [1.0], "losses/critic": [1.0], "grad_norm/critic": [2.0], "charts/return": [3.0]}
    found = of_metrics(table, ["critic"])  # one group: tags without parts
    assert found.series("losses/critic")[0].where == {}
    assert found.series("grad_norm")[0].where == {"network": "critic"}
    table |= {"losses/critic/critic": [4.0], "grad_norm/critic/critic": [5.0], "charts/return/a/b": [6.0]}
    found = of_metrics(table, ["critic", "a/b"])
    assert [x.where for x in found.series("losses/critic")] == [{}, {"group": "critic"}]
    assert [x.where for x in found.series("grad_norm", group="critic")] == [{"group": "critic", "network": "critic"}]
    assert [x.where for x in found.series("charts/return", group="a/b")] == [{"group": "a/b"}]


# ---- on disk


@given(known=COLUMNS)
@settings(max_examples=60, deadline=None)
def test_columns_come_back_as_they_were(known: list[Column], tmp_path_factory):
    file = tmp_path_factory.mktemp("columns") / "000.json"
    file.write_bytes(encode_columns(known))
    assert read_columns(file) == known


@given(data=st.data(), width=st.integers(0, 5), torn=st.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_rows_come_back_in_single_precision_and_a_torn_one_is_left_out(
    data: st.DataObject, width: int, torn: int, tmp_path_factory
):
    table = data.draw(arrays(np.float64, st.tuples(st.integers(0, 4), st.just(width)), elements=ANY))
    steps = sorted(data.draw(st.sets(st.integers(0, 2**62), min_size=len(table), max_size=len(table))))
    file = tmp_path_factory.mktemp("rows") / "000.bin"
    whole = b"".join(encode_row(at, row) for at, row in zip(steps, table, strict=True))
    assert len(whole) == len(table) * row_type(width).itemsize
    file.write_bytes(whole + b"\x01" * torn)
    rows = read_rows(file, width)
    assert rows["steps"].tolist() == steps
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(rows["values"], table.astype(np.float32))


def test_a_number_beyond_single_precision_is_infinite():
    (row,) = np.frombuffer(encode_row(7, np.array([1e300, -1e300, NAN, 1e-300])), row_type(4))
    np.testing.assert_array_equal(row["values"], [INF, -INF, NAN, 0.0])


def test_segments_are_read_in_their_order_also_beyond_a_thousand(tmp_path: Path):
    for number in (1000, 999, 2):
        segment(tmp_path, number, ["x"], {})
    (tmp_path / "notes.json").write_text("{}")
    (tmp_path / ".000.json.7.tmp").write_text("[]")
    assert [file.name for file in segments(tmp_path)] == ["002.json", "999.json", "1000.json"]


def test_columns_that_appear_later_have_no_values_before(tmp_path: Path):
    segment(tmp_path, 0, ["x"], {10: [1.0], 20: [2.0]})
    segment(tmp_path, 1, ["x", "y"], {30: [3.0, 4.0]})
    found = read_recording(tmp_path)
    assert found.steps.dtype == np.int64
    assert found.steps.tolist() == [10, 20, 30]
    assert column(found, "x") == ([10, 20, 30], [1.0, 2.0, 3.0])
    assert column(found, "y") == ([30], [4.0])


@pytest.mark.parametrize("damage", [b"", b'[["x", {', b"\0\0\0\0", b"null", b'{"x": 1}', b"[1, 2]", b"\xff\xfe", b"[]"])
def test_a_segment_without_its_columns_is_left_out(tmp_path: Path, damage: bytes):
    segment(tmp_path, 0, ["x"], {10: [1.0]})
    segment(tmp_path, 1, ["x", "y"], {20: [2.0, 3.0]}).write_bytes(damage)
    segment(tmp_path, 2, ["x"], {30: [4.0]})
    assert column(read_recording(tmp_path), "x") == ([10, 30], [1.0, 4.0])


def test_what_is_missing_torn_or_zeros_is_left_out(tmp_path: Path):
    assert read_recording(tmp_path / "none").steps.tolist() == []
    segment(tmp_path, 0, ["x"], {10: [1.0]})
    segment(tmp_path, 1, ["x"], {20: [2.0]}).with_suffix(".bin").unlink()
    with segment(tmp_path, 2, ["x"], {30: [3.0]}).with_suffix(".bin").open("ab") as file:
        file.write(bytes(2 * row_type(1).itemsize))  # what a power cut leaves of a file that had grown
        file.write(encode_row(40, np.ones(1))[:-1])
    segment(tmp_path, 3, ["x"], {50: [5.0]}).unlink()
    (tmp_path / "004.json").mkdir()  # cannot be read
    assert column(read_recording(tmp_path), "x") == ([10, 30], [1.0, 3.0])


def test_places_of_agents_and_layers_survive_the_disk(tmp_path: Path):
    names = list(columns("stability/obs_peak", "g", (2, 2), ("red", "blue")))
    (tmp_path / "000.json").write_bytes(encode_columns(names))
    (tmp_path / "000.bin").write_bytes(encode_row(10, np.arange(4.0)))
    (series,) = read_recording(tmp_path).series("obs_peak", agent="blue", feature=1)
    assert (series.where, series.values.tolist()) == ({"group": "g", "agent": "blue", "feature": 1}, [3.0])


def test_places_are_found_again_whatever_was_asked_before_and_what_is_cut_off_is_a_recording_of_its_own():
    found = recording([10, 20, 30], reward_std={RED: [1.0, 2.0, 3.0], BLUE: [4.0, NAN, NAN]})
    for _ in range(2):  # the second time from the index
        assert [series.where["agent"] for series in found.series("reward_std", group="g")] == ["red", "blue"]
        assert [series.values.tolist() for series in found.series("reward_std", agent="red")] == [[1.0, 2.0, 3.0]]
        assert found.series("reward_std", agent="green") == found.series("reward_std", layer="a") == []
    found.series("reward_std").clear()  # a list of the caller's own
    assert len(found.series("reward_std")) == 2
    early = found.until(20)
    assert early.steps.tolist() == [10, 20]
    assert early.series("reward_std", agent="red")[0].values.tolist() == [1.0, 2.0]
    assert early.until(5).series("reward_std") == []
