"""Frames of an episode as a small looping GIF or WebP, or as an MP4.

Shapes: H height, W width, in pixels.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from marl_stable.report.files import replace_file
from marl_stable.report.film import encoder, film
from marl_stable.types import UsageError

LONGEST_SIDE = 400  # pixels
MOST_FRAMES_PER_SECOND = 50  # browsers slow down what is faster

_TICK = {".gif": 10, ".webp": 1}  # ending: milliseconds that a frame's time is a multiple of
_FILM = ".mp4"


def write_animation(frames: Iterable[NDArray[np.uint8]], path: Path, fps: float) -> None:
    """Write `frames`, each (H, W, 3), as an animation, endless but for MP4; the ending of `path` says which format.

    Frames longer than 400 pixels are shrunk by a whole factor; equal frames in a row become one that lasts longer.
    More than 50 frames per second are shown as 50. The folder is created, and the file appears whole or not at all.
    Raises UsageError for another ending than .gif, .webp and .mp4, where what .mp4 needs is not installed, for no
    frames or frames of another shape, and where nothing can be written.
    """
    ending = path.suffix.lower()
    if ending not in (*_TICK, _FILM):
        raise UsageError(f"the animation {path} ends in {ending or 'nothing'!r}; it must end in .gif, .webp or .mp4.")
    av = encoder(path) if ending == _FILM else None  # before an episode is played
    if not (math.isfinite(fps) and fps > 0):
        raise UsageError(f"fps is {fps!r}; it must be a positive number of frames per second.")
    with _refusing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    images = _images(frames, ending, path)
    with _refusing(path):
        shown = min(fps, MOST_FRAMES_PER_SECOND)
        replace_file(path, (film(images, shown, av) if av else _encoded(images, ending, shown),))


@contextlib.contextmanager
def _refusing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"the animation {path} cannot be written ({error.strerror}); choose another place.") from None


def _images(frames: Iterable[NDArray[np.uint8]], ending: str, path: Path) -> list[Image.Image]:
    """The shrunk frames; for GIF each in the 256 colours that suit it best, which takes a third of the memory."""
    images: list[Image.Image] = []
    shape: tuple[int, ...] | None = None
    for number, frame in enumerate(frames):
        shape = shape or frame.shape
        if frame.shape != shape or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size or frame.dtype != np.uint8:
            found = f"shape {frame.shape} and type {frame.dtype}"
            raise UsageError(f"frame {number} has {found}; all frames must be (H, W, 3) uint8 of one size.")
        image = Image.fromarray(frame).reduce(math.ceil(max(frame.shape) / LONGEST_SIDE))
        images.append(image.quantize(256) if ending == ".gif" else image)
    if not images:
        raise UsageError(f"there are no frames for the animation {path}; render at least one step.")
    return images


def _encoded(images: Sequence[Image.Image], ending: str, fps: float) -> bytes:
    file = io.BytesIO()
    durations = _durations(len(images), fps, _TICK[ending])
    options = {} if ending == ".gif" else {"quality": 90}
    images[0].save(file, ending[1:], save_all=True, append_images=images[1:], duration=durations, loop=0, **options)
    return file.getvalue()


def _durations(count: int, fps: float, tick: int) -> list[int]:
    """Milliseconds of each frame, multiples of `tick`, rounded so that the errors do not add up."""
    ends = [round(1000 * i / fps / tick) * tick for i in range(count + 1)]
    return [end - begin for begin, end in itertools.pairwise(ends)]
