"""The board that a crew and its environment share: orders on the one side, results on the other, for all copies.

All of it lies in one piece of memory, which other processes may see as well, and of that the results in one piece of
their own, so that a step is taken down by a single copy. NumPy only, as workers have no torch.

Shapes: E copies, A agents of one group, D action features, C choices of one MultiDiscrete action.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marl_stable.envs.copies import Arrays
from marl_stable.types import Discrete, EnvSpec, Group, MultiDiscrete

ALIGNMENT = 64  # bytes; no two arrays of a board share a cache line


class Place(NamedTuple):
    """Where an array lies in a piece of memory."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int

    def view(self, memory: Any) -> NDArray[Any]:
        """The array itself."""
        return np.ndarray(self.shape, self.dtype, memory, self.start)


class Layout:
    """Where everything lies on a board for `copies` of an environment."""

    def __init__(self, spec: EnvSpec, copies: int) -> None:
        self.size = 0  # bytes
        self.arrays = [self._places(kind) for kind in Arrays.zeros(spec, copies)]
        self.results = self.size  # bytes, the first ones
        self.actions = self._places({group.name: _no_actions(group, copies) for group in spec.groups})
        self.seeds = self._place(np.zeros(copies, np.int64))
        self.called, self.done, self.busy = (self._place(np.zeros(copies, np.bool_)) for _ in range(3))

    def _places(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Place]:
        return {name: self._place(array) for name, array in arrays.items()}

    def _place(self, array: NDArray[Any]) -> Place:
        place = Place(array.shape, array.dtype, self.size)
        self.size += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
        return place

    def arrays_in(self, memory: Any) -> Arrays:
        """What copies write, in a piece of memory whose first bytes are a board's results."""
        return Arrays(*({name: place.view(memory) for name, place in kind.items()} for kind in self.arrays))


class Board:
    """Reads and writes a piece of memory, its own where none is given."""

    def __init__(self, spec: EnvSpec, copies: int, memory: Any = None) -> None:
        """`memory`: a writable buffer of `Layout.size` bytes."""
        self._layout = layout = Layout(spec, copies)
        memory = bytearray(layout.size) if memory is None else memory
        self._results = np.frombuffer(memory, np.uint8, layout.results)
        self.arrays = layout.arrays_in(memory)  # (E, A, ...): what each copy wrote last
        # (E, A) or (E, A, C) int64, (E, A, D) float32: what to do in the next step
        self.actions = {name: place.view(memory) for name, place in layout.actions.items()}
        self.seeds = layout.seeds.view(memory)  # (E,) int64: of the episodes to begin
        self.called = layout.called.view(memory)  # (E,) bool: the copies that the next order is for
        self.done = layout.done.view(memory)  # (E,) bool: the episode ended in the copy's last step
        self.busy = layout.busy.view(memory)  # (E,) bool: its environment is at work; tells which one a process died of

    def taken(self) -> Arrays:
        """What the copies wrote last, in memory of its own."""
        return self._layout.arrays_in(self._results.copy())


def _no_actions(group: Group, copies: int) -> NDArray[Any]:
    shape = (copies, len(group.agents))
    if isinstance(group.action, Discrete):
        return np.zeros(shape, np.int64)
    if isinstance(group.action, MultiDiscrete):
        return np.zeros((*shape, len(group.action.n)), np.int64)
    return np.zeros((*shape, len(group.action.low)), np.float32)
