"""Going on with a generator of random numbers from a saved state."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor


def go_on(generator: torch.Generator, state: Tensor) -> None:
    """Let `generator` draw what would have been drawn next where `state` was taken.

    Generators of different kinds of device have different streams: on another kind it begins a stream of its own,
    with a seed that follows from the state, so that the same file always goes on alike.
    """
    state = state.cpu()
    if state.shape == generator.get_state().shape:
        generator.set_state(state)
    else:
        generator.manual_seed(zlib.crc32(state.numpy().tobytes()))
