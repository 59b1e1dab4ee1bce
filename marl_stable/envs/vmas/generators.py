"""Random numbers of its own for a library that draws from the process's generators: torch's, NumPy's and Python's."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from marl_stable.generators import go_on

Streams = list[Any]
"""States of torch's, NumPy's and Python's generators, and of the device's where that is a CUDA device."""


class OwnGenerators:
    """The states of generators that an instance draws from while it is `in_use`, kept apart from everybody else's."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device if device.type == "cuda" else None
        self._swapped = False
        self.seed(0)

    def seed(self, seed: int) -> None:
        """Begin anew from `seed`, without touching the process's generators."""
        self.states: Streams = [
            torch.Generator().manual_seed(seed).get_state(),
            np.random.RandomState(seed).get_state(),
            random.Random(seed).getstate(),
        ]
        if self.cuda is not None:
            self.states.append(torch.Generator(self.cuda).manual_seed(seed).get_state())

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """The process's generators are these meanwhile, and afterwards what they were, whatever happens.

        Within itself it changes nothing.
        """
        if self._swapped:
            yield
            return
        before = read(self.cuda)
        write(self.states, self.cuda)
        self._swapped = True
        try:
            yield
        finally:
            self._swapped = False
            self.states = read(self.cuda)
            write(before, self.cuda)

    def state_dict(self) -> dict[str, Any]:
        """The states, as plain types and tensors."""
        kind, keys, *rest = self.states[1]
        return {
            "torch": self.states[0],
            "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), *rest],
            "python": self.states[2],
            "cuda": self.states[3] if self.cuda is not None else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        kind, keys, *rest = state["numpy"]
        self.states = [state["torch"].cpu(), (kind, keys.cpu().numpy().astype(np.uint32), *rest), state["python"]]
        if self.cuda is not None:
            generator = torch.Generator(self.cuda)
            go_on(generator, state["torch"] if state["cuda"] is None else state["cuda"])
            self.states.append(generator.get_state())


def read(cuda: torch.device | None = None) -> Streams:
    """The states of the process's generators."""
    states: Streams = [torch.get_rng_state(), np.random.get_state(), random.getstate()]
    return states if cuda is None else [*states, torch.cuda.get_rng_state(cuda)]


def write(states: Streams, cuda: torch.device | None = None) -> None:
    """Give the process's generators these states."""
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])
    if cuda is not None:
        torch.cuda.set_rng_state(states[3], cuda)
