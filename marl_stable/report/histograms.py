"""The histograms of a run folder, read back from TensorBoard's event files, of live and crashed runs too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]
from tensorboard.compat.tensorflow_stub import errors  # type: ignore[import-untyped]
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New  # type: ignore[import-untyped]


class Histograms(NamedTuple):
    """What was counted under one tag."""

    edges: NDArray[np.float64]  # (b + 1,)
    steps: NDArray[np.int64]  # (n,)
    counts: NDArray[np.float64]  # (n, b)


def read_histograms(folder: Path) -> dict[str, Histograms]:
    """Histograms by tag. Of a run that was gone on with, what later files take back is left out."""
    found: dict[str, dict[int, Any]] = {}
    for event in _events(folder):
        if event.session_log.status == SessionLog.START and event.step:
            for tag, entries in found.items():
                found[tag] = {steps: entry for steps, entry in entries.items() if steps < event.step}
        for value in event.summary.value:
            if value.HasField("histo"):
                found.setdefault(value.tag, {})[event.step] = value.histo
    return {tag: _joined(entries) for tag, entries in found.items() if entries}


def _joined(entries: dict[int, Any]) -> Histograms:
    first = next(iter(entries.values()))
    # The writer drops the first edge, which is the least value only where the first bin is not empty: bins are alike.
    upper = np.array(first.bucket_limit)
    width = upper[1] - upper[0] if len(upper) > 1 else 1.0
    counts = np.array([entry.bucket for entry in entries.values()])
    return Histograms(np.concatenate([[upper[0] - width], upper]), np.array(list(entries)), counts)


def _events(folder: Path) -> Iterator[Any]:
    for file in sorted(folder.glob("events.out.tfevents.*")):
        reader = PyRecordReader_New(str(file))
        with contextlib.suppress(errors.OutOfRangeError, errors.DataLossError, OSError):  # to a torn end
            while True:
                reader.GetNext()
                yield Event.FromString(reader.record())
