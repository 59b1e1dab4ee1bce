from __future__ import annotations

import logging
import math
import re
import struct
from pathlib import Path
from types import ModuleType

import pytest
from tensorboard.backend.event_processing import event_accumulator, plugin_event_accumulator  # type: ignore[import-untyped]
from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c  # type: ignore[import-untyped]
from tensorboard.plugins.custom_scalar import layout_pb2  # type: ignore[import-untyped]

from marl_stable.report.layout import LAYOUT
from marl_stable.report.tensorboard import TensorBoardLog

EVERYTHING = {"scalars": 0, "histograms": 0, "tensors": 0}
LAYOUT_TAG = "custom_scalars__config__"


def load(folder: Path, module: ModuleType = event_accumulator):
    accumulator = module.EventAccumulator(str(folder), EVERYTHING)
    accumulator.Reload()
    return accumulator


def steps_of(folder: Path, tag: str, module: ModuleType) -> list[int]:
    accumulator = load(folder, module)
    events = accumulator.Scalars(tag) if module is event_accumulator else accumulator.Tensors(tag)
    return [event.step for event in events]


def layout(folder: Path) -> layout_pb2.Layout:
    (event, *_) = load(folder).Tensors(LAYOUT_TAG)
    return layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])


def test_scalars_come_back_while_the_log_is_still_open(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path)
    log.scalars(100, {"losses/critic": 0.5, "charts/return": -9})
    log.scalars(200, {"losses/critic": math.nan, "eval/return": math.inf})
    read = load(tmp_path)
    assert read.Tags()["scalars"] == ["losses/critic", "charts/return", "eval/return"]
    assert [(e.step, e.value) for e in read.Scalars("charts/return")] == [(100, -9.0)]
    critic = read.Scalars("losses/critic")
    assert [e.step for e in critic] == [100, 200]
    assert critic[0].value == 0.5
    assert math.isnan(critic[1].value)
    assert read.Scalars("eval/return")[0].value == math.inf


def test_a_value_beyond_float32_is_shown_as_infinite(tmp_path: Path) -> None:
    TensorBoardLog(tmp_path).scalars(1, {"losses/critic": 1e300})
    assert load(tmp_path).Scalars("losses/critic")[0].value == math.inf


def test_a_histogram_keeps_counts_edges_and_moments(tmp_path: Path) -> None:
    TensorBoardLog(tmp_path).histogram("actions/agent_0/1", 300, [0, 3, 1, 0], [-1.0, -0.5, 0.0, 0.5, 1.0])
    (event,) = load(tmp_path).Histograms("actions/agent_0/1")
    histogram = event.histogram_value
    assert event.step == 300
    assert list(histogram.bucket) == [0, 3, 1, 0]
    assert list(histogram.bucket_limit) == [-0.5, 0.0, 0.5, 1.0]
    assert (histogram.min, histogram.max, histogram.num) == (-0.5, 0.5, 4)
    assert histogram.sum == pytest.approx(3 * -0.25 + 0.25)
    assert histogram.sum_squares == pytest.approx(4 * 0.25**2)


def test_tensorboard_draws_the_bins_that_were_logged(tmp_path: Path) -> None:
    TensorBoardLog(tmp_path).histogram("h", 0, [0, 3, 1, 0], [-1.0, -0.5, 0.0, 0.5, 1.0])
    (event,) = load(tmp_path, plugin_event_accumulator).Tensors("h")
    shown = event.tensor_proto
    assert [dim.size for dim in shown.tensor_shape.dim] == [2, 3]  # bins x (left, right, count)
    expected = [-0.5, 0.0, 3.0, 0.0, 0.5, 1.0]
    assert list(memoryview(shown.tensor_content).cast("f")) == expected


def test_an_empty_histogram_is_no_error(tmp_path: Path) -> None:
    TensorBoardLog(tmp_path).histogram("h", 0, [0, 0], [0.0, 1.0, 2.0])
    assert load(tmp_path).Histograms("h")[0].histogram_value.num == 0


def test_counts_and_edges_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="zip"):
        TensorBoardLog(tmp_path).histogram("h", 0, [1, 2], [0.0, 1.0])


def test_the_layout_begins_with_critic_loss_actor_output_and_reward(tmp_path: Path) -> None:
    TensorBoardLog(tmp_path)
    charts = [chart for category in layout(tmp_path).category for chart in category.chart]
    assert [list(chart.multiline.tag) for chart in charts[:3]] == [
        ["losses/critic(/|$)"],
        ["actions/saturation(/|$)", "actions/repeat_ratio(/|$)", "actions/responsiveness(/|$)"],
        ["charts/return(/|$)", "eval/return(/|$)"],
    ]
    titles = [category.title for category in layout(tmp_path).category]
    assert titles == list(LAYOUT)
    assert titles[1:4] == ["Gradients", "Policy", "Episodes"]


def test_a_chart_shows_a_tag_and_its_parts_and_no_other_tag(tmp_path: Path) -> None:
    TensorBoardLog(tmp_path)
    charts = {chart.title: chart for category in layout(tmp_path).category for chart in category.chart}
    (actor, _) = charts["Norm before clipping"].multiline.tag
    assert re.match(actor, "grad_norm/actor")
    assert re.match(actor, "grad_norm/actor/adversary")
    assert not re.match(actor, "grad_norm/actor_clipped_fraction")
    assert re.match(charts["Terms"].multiline.tag[0], "rewards/terms/collision")


@pytest.mark.parametrize("module", [event_accumulator, plugin_event_accumulator])
def test_resuming_hides_later_steps_of_every_tag(
    tmp_path: Path, module: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)  # TensorBoard warns that it purges
    before = TensorBoardLog(tmp_path)
    for steps in range(0, 100, 10):
        before.scalars(steps, {"every": steps, "rare": steps})
    after = TensorBoardLog(tmp_path, purge_step=51)
    after.scalars(60, {"every": -1})
    assert steps_of(tmp_path, "every", module) == [0, 10, 20, 30, 40, 50, 60]
    assert steps_of(tmp_path, "rare", module) == [0, 10, 20, 30, 40, 50]
    assert LAYOUT_TAG in load(tmp_path, module).Tags()["tensors"]


def test_the_files_of_a_folder_sort_by_age(tmp_path: Path) -> None:
    for steps in range(5):
        TensorBoardLog(tmp_path).scalars(steps, {"x": 1})
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 5
    assert all(name.startswith("events.out.tfevents.") for name in names)
    read = [record_steps(tmp_path / name) for name in names]
    assert read == [[0], [1], [2], [3], [4]]


def record_steps(path: Path) -> list[int]:
    """Steps of the scalars in one file, to its last byte and with its checksums checked."""
    data, steps = path.read_bytes(), list[int]()
    while data:
        (length,) = struct.unpack_from("<Q", data)
        record, (checksum,) = data[12 : 12 + length], struct.unpack_from("<I", data, 12 + length)
        assert checksum == masked_crc32c(record)
        event = Event.FromString(record)
        if any(value.HasField("simple_value") for value in event.summary.value):
            steps.append(event.step)
        data = data[16 + length :]
    return steps


def test_a_full_disk_raises_and_the_log_is_whole_afterwards(
    tmp_path: Path, small_files, capsys: pytest.CaptureFixture[str]
) -> None:
    """torch's SummaryWriter prints a traceback from its thread here, and stays dead."""
    log = TensorBoardLog(tmp_path)
    log.scalars(1, {"x": 1})
    (path,) = tmp_path.iterdir()
    for steps in (2, 3):
        with small_files(path.stat().st_size + 10), pytest.raises(OSError, match="too large"):
            log.scalars(steps, {"x": steps})
    log.scalars(4, {"x": 4})
    assert record_steps(path) == [1, 4]
    assert [e.step for e in load(tmp_path).Scalars("x")] == [1, 4]
    assert capsys.readouterr().err == ""


def test_a_log_that_cannot_be_created_leaves_no_file(tmp_path: Path, small_files) -> None:
    with small_files(10), pytest.raises(OSError, match="too large"):
        TensorBoardLog(tmp_path)
    assert list(tmp_path.iterdir()) == []
