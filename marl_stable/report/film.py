"""Pictures as an MP4 film: H.264 in yuv420p, which every browser and player shows. Needs the extra `mp4` (PyAV)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType

from PIL import Image

from marl_stable.types import UsageError


def encoder(path: Path) -> ModuleType:
    """PyAV; UsageError where it is not installed."""
    try:
        import av
    except ImportError:
        remedy = "pip install 'marl_stable[mp4]', or let it end in .gif or .webp"
        raise UsageError(f"the animation {path} needs PyAV, which is not installed; {remedy}.") from None
    return av


def film(images: Sequence[Image.Image], fps: float, av: ModuleType) -> bytes:
    """`images` of one size as a film of `fps` frames per second; sides are made even, as the format wants them."""
    width, height = (side - side % 2 or 2 for side in images[0].size)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for image in images:
            frame = av.VideoFrame.from_image(image.crop((0, 0, width, height)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())  # what the encoder has kept back
    return file.getvalue()
