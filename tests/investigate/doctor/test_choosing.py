"""Random actions are legal and in the form of their space, and changed ones differ in one dimension only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from marl_stable.investigate.doctor.choosing import as_choices, changed, dimensions, sample
from marl_stable.investigate.doctor.comparing import digest

F32 = np.float32
SPACES: list[spaces.Space[Any]] = [
    spaces.Discrete(5),
    spaces.Discrete(3, start=-1),
    spaces.MultiDiscrete([2, 3, 4]),
    spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])),
    spaces.MultiBinary(4),
    spaces.Box(-1, 1, (3,), np.float32),
    spaces.Box(np.array([0, -5], F32), np.array([1, 7], F32)),
    spaces.Box(-np.inf, np.inf, (2,), np.float64),
    spaces.Box(0, np.inf, (2, 2), np.float32),
    spaces.Box(-3e38, 3e38, (2,), np.float32),
    spaces.Box(0, 4, (3,), np.int64),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_sample_is_in_its_space_and_every_dimension_can_be_changed(space: spaces.Space[Any]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        action = sample(space, None, rng)
        assert space.contains(action)
        for dimension in range(dimensions(space)):
            other = changed(action, space, dimension, None, 1)
            assert space.contains(other)
            differing = np.flatnonzero(np.reshape(action, -1) != np.reshape(other, -1))
            assert differing.tolist() == [dimension]


def test_bounds_are_reached_by_whole_numbers() -> None:
    rng = np.random.default_rng(0)
    drawn = np.concatenate([sample(SPACES[-1], None, rng) for _ in range(100)])
    assert set(drawn.tolist()) == {0, 1, 2, 3, 4}


def test_masked_choices_are_neither_drawn_nor_changed_to() -> None:
    rng = np.random.default_rng(0)
    space = spaces.Discrete(4, start=2)
    legal = as_choices(np.array([0, 1, 0, 1], np.int8), space)
    assert legal is not None
    assert {int(sample(space, legal, rng)) for _ in range(50)} == {3, 5}
    assert changed(np.int64(3), space, 0, legal, 0) == 5
    assert changed(np.int64(3), space, 0, np.array([False, True, False, False]), 0) == 3


def test_other_spaces_are_sampled_by_themselves_and_left_alone() -> None:
    space = spaces.Tuple([spaces.Discrete(3), spaces.Box(0, 1, (2,))])
    space.seed(5)
    first = space.sample()
    space.seed(5)
    assert space.contains(sample(space, None, np.random.default_rng(0)))
    assert digest(space.sample(), space) == digest(first, space)
    assert dimensions(space) == 0


def test_a_mask_that_does_not_fit_is_none() -> None:
    assert as_choices([1, 0], spaces.Discrete(3)) is None
    assert as_choices(None, spaces.Discrete(3)) is None
    assert as_choices([1, 0], spaces.MultiBinary(2)) is None


def test_equal_numbers_have_equal_digests() -> None:
    assert digest(np.array([0.0])) == digest(np.array([-0.0]))
    assert digest(np.array([1.0])) != digest(np.array([1.0 + 1e-15]))
    parts = spaces.Dict({"a": spaces.Box(0, 1, (1,)), "b": spaces.Discrete(2)})
    assert digest({"a": np.zeros(1), "b": 1}, parts) == digest({"b": 1, "a": np.zeros(1)}, parts)
    assert digest({"a": np.zeros(1), "b": 1}, parts) != digest({"a": np.zeros(1), "b": 0}, parts)
