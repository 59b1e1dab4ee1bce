"""The board of a crew: everything has its place, both sides see it, and what was taken down is nobody else's."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from marl_stable.envs.board import ALIGNMENT, Board, Layout
from marl_stable.types import Box, Discrete, EnvSpec, Group, MultiDiscrete

COPIES = 3
GROUPS = (
    Group("walker", ("walker_0", "walker_1"), 4, Discrete(5), "team", terms=("way", "touch")),
    Group("arm", ("arm_0",), 3, Box((0.0, 0.0), (1.0, 1.0)), "team"),
    Group("chooser", ("chooser_0",), 1, MultiDiscrete((2, 3, 4), (0, 0, 0)), "team"),
)
SPEC = EnvSpec("mine", tuple(agent for group in GROUPS for agent in group.agents), GROUPS)


def everything(board: Board) -> list[NDArray[Any]]:
    results = [array for kind in board.arrays for array in kind.values()]
    return [*results, *board.actions.values(), board.seeds, board.called, board.done, board.busy]


def span(array: NDArray[Any]) -> tuple[int, int]:
    start = array.__array_interface__["data"][0]
    return start, start + array.nbytes


def test_everything_has_its_shape_and_begins_at_zero() -> None:
    board = Board(SPEC, COPIES)
    assert {name: array.shape for name, array in board.arrays.obs.items()} == {
        "walker": (3, 2, 4), "arm": (3, 1, 3), "chooser": (3, 1, 1),
    }  # fmt: skip
    assert {name: array.shape for name, array in board.arrays.terms.items()} == {"walker": (3, 2, 2)}
    actions = {name: (array.shape, array.dtype) for name, array in board.actions.items()}
    assert actions == {
        "walker": ((3, 2), np.dtype(np.int64)),
        "arm": ((3, 1, 2), np.dtype(np.float32)),
        "chooser": ((3, 1, 3), np.dtype(np.int64)),
    }  # fmt: skip
    assert not any(array.any() for array in everything(board))


def test_no_two_arrays_share_a_cache_line_nor_leave_the_memory() -> None:
    size = Layout(SPEC, COPIES).size
    memory = np.zeros(size, np.uint8)
    spans = [span(array) for array in everything(Board(SPEC, COPIES, memory))]
    assert spans == sorted(spans)
    origin = span(memory)[0]
    assert all((start - origin) % ALIGNMENT == 0 for start, _ in spans)
    assert all(end <= start for (_, end), (start, _) in pairwise([*spans, (origin + size, 0)]))


def test_two_boards_over_one_memory_are_one() -> None:
    memory = bytearray(Layout(SPEC, COPIES).size)
    mine, theirs = Board(SPEC, COPIES, memory), Board(SPEC, COPIES, memory)
    for number, array in enumerate(everything(mine), 1):
        array[...] = number
    for one, other in zip(everything(mine), everything(theirs), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", range(6))
def test_what_was_taken_stays_as_it_was(kind: int) -> None:
    board = Board(SPEC, COPIES)
    for array in board.arrays[kind].values():
        array[...] = np.arange(array.size).reshape(array.shape) % 2
    taken = board.taken()
    assert taken[kind].keys() == board.arrays[kind].keys()
    for name, array in board.arrays[kind].items():
        before = array.copy()
        array[...] = 1 - array.astype(np.int64)
        np.testing.assert_array_equal(taken[kind][name], before)
        taken[kind][name][...] = 0  # and may be changed
        assert array.any()
