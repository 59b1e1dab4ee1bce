"""TensorBoard event files, written record by record in the calling thread.

Not through torch's SummaryWriter: where a write fails (a full disk), its background thread prints a traceback and
stays dead; and its first `purge_step` is ignored by the loader that TensorBoard serves histograms from, because no
session was started before. Both are pinned by tests.
"""

from __future__ import annotations

import itertools
import os
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary  # type: ignore[import-untyped]
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c  # type: ignore[import-untyped]
from tensorboard.plugins.custom_scalar import layout_pb2  # type: ignore[import-untyped]
from tensorboard.plugins.custom_scalar import metadata as custom_scalar

from marl_stable.report.files import RecordFile
from marl_stable.report.layout import LAYOUT


class TensorBoardLog:
    """One event file in `folder`; every call is on disk when it returns, so there is nothing to close.

    `purge_step` (resume): TensorBoard hides what earlier files say of that step and later ones (its fast loader, the
    default, of each tag as soon as that is logged again). All methods raise OSError where the file cannot be written;
    the next call may succeed again.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        # The time with its fraction first: TensorBoard reads the files of a folder in the order of their names.
        name = f"events.out.tfevents.{time.time():017.6f}.{os.getpid()}"
        self._file = RecordFile(folder / name)
        start = Event(step=purge_step or 0, session_log=SessionLog(status=SessionLog.START))
        head = (Event(file_version="brain.Event:2"), start, Event(summary=_layout()))
        self._file.begin(b"".join(_record(event) for event in head))

    def scalars(self, steps: int, row: Mapping[str, float | int]) -> None:
        """Log one value per tag at `steps`."""
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in row.items()]
        self._file.append(_record(Event(step=steps, summary=Summary(value=values))))

    def histogram(self, tag: str, steps: int, counts: Sequence[float], edges: Sequence[float]) -> None:
        """Log `counts` per bin, n of them, between the n + 1 rising `edges`."""
        middles = [(low + high) / 2 for low, high in itertools.pairwise(edges)]
        weighted = list(zip(counts, middles, strict=True))
        used = [i for i, count in enumerate(counts) if count] or [0]
        histogram = HistogramProto(
            min=edges[used[0]],  # TensorBoard drops empty outer bins and takes these for the outer edges of the rest
            max=edges[used[-1] + 1],
            num=sum(counts),
            sum=sum(count * middle for count, middle in weighted),
            sum_squares=sum(count * middle**2 for count, middle in weighted),
            bucket_limit=edges[1:],
            bucket=counts,
        )
        self._file.append(_record(Event(step=steps, summary=Summary(value=[Summary.Value(tag=tag, histo=histogram)]))))


def _layout() -> Any:
    categories = [
        layout_pb2.Category(title=title, chart=[_chart(name, tags) for name, tags in charts.items()])
        for title, charts in LAYOUT.items()
    ]
    value = Summary.Value(tag=custom_scalar.CONFIG_SUMMARY_TAG, metadata=custom_scalar.create_summary_metadata())
    value.tensor.dtype = 7  # DT_STRING
    value.tensor.string_val.append(layout_pb2.Layout(category=categories).SerializeToString())
    value.tensor.tensor_shape.SetInParent()
    return Summary(value=[value])


def _chart(title: str, tags: Sequence[str]) -> Any:
    """A chart of the tags and, where there are several groups, of their parts `<tag>/<group>`."""
    patterns = [f"{tag}(/|$)" for tag in tags]
    return layout_pb2.Chart(title=title, multiline=layout_pb2.MultilineChartContent(tag=patterns))


def _record(event: Any) -> bytes:
    """The event as it stands in the file: length, its checksum, data, its checksum (TFRecord)."""
    event.wall_time = time.time()
    data = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    return b"".join((length, struct.pack("<I", masked_crc32c(length)), data, struct.pack("<I", masked_crc32c(data))))
