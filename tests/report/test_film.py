from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from marl_stable.report.animation import write_animation
from marl_stable.types import UsageError


def squares(count: int, height: int = 40, width: int = 60) -> Iterator[np.ndarray]:
    """A square that moves."""
    for i in range(count):
        frame = np.full((height, width, 3), 255, np.uint8)
        frame[10:26, 2 * i : 2 * i + 16] = (200, 30, 60)
        yield frame


def read(path: Path) -> tuple[list[np.ndarray], float]:
    """Frames and their rate."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.pix_fmt == "yuv420p"  # what browsers show
        assert stream.average_rate is not None
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)], float(stream.average_rate)


@pytest.mark.parametrize(("fps", "shown"), [(10, 10), (12.5, 12.5), (1000, 50)])
def test_frames_and_their_rate(fps: float, shown: float, tmp_path: Path) -> None:
    write_animation(squares(12), tmp_path / "episode.mp4", fps)
    frames, rate = read(tmp_path / "episode.mp4")
    assert (len(frames), rate) == (12, shown)
    for found, drawn in zip(frames, squares(12), strict=True):
        assert np.sqrt(np.square(found.astype(float) - drawn).mean()) < 12  # of 255; colours are halved in size


@pytest.mark.parametrize(("size", "shown"), [((41, 61), (40, 60)), ((1, 1), (2, 2)), ((800, 402), (400, 200))])
def test_sides_are_made_even_and_long_ones_shrink(
    size: tuple[int, int], shown: tuple[int, int], tmp_path: Path
) -> None:
    write_animation(squares(2, *size), tmp_path / "episode.mp4", 10)
    assert read(tmp_path / "episode.mp4")[0][0].shape == (*shown, 3)


def test_without_the_library_it_says_what_to_install_before_anything_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never() -> Iterator[np.ndarray]:
        pytest.fail("drew a frame")
        yield from ()

    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UsageError, match=r"episode\.mp4 needs PyAV.*pip install 'marl_stable\[mp4\]'"):
        write_animation(never(), tmp_path / "episode.mp4", 10)
    assert list(tmp_path.iterdir()) == []
