"""Spaces of several choices, and observations that hold an action mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from marl_stable.envs.decoding import action_decoder
from marl_stable.envs.pettingzoo import ParallelCopy
from marl_stable.envs.spaces import action_spec, holds_mask, observation_size, observation_writer
from marl_stable.types import Box, Discrete, EnvironmentFailure, MultiDiscrete, UsageError
from tests.envs.fakes import Walk

MASK = spaces.Box(0, 1, (3,), np.int8)
BOOL: Any = bool  # Gymnasium takes it, and its types do not say so


@pytest.mark.parametrize(
    ("space", "spec"),
    [
        (spaces.MultiDiscrete([2, 5]), MultiDiscrete((2, 5), (0, 0))),
        (spaces.MultiDiscrete([2, 5], start=np.array([-1, 3])), MultiDiscrete((2, 5), (-1, 3))),
        (spaces.MultiDiscrete([4], dtype=np.int32), MultiDiscrete((4,), (0,), dtype="int32")),
        (spaces.MultiDiscrete(np.array(4)), MultiDiscrete((4,), (0,), scalar=True)),
        (spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])), MultiDiscrete((2, 3, 4, 5), (0,) * 4, (2, 2))),
        (spaces.MultiBinary(3), MultiDiscrete((2, 2, 2), (0, 0, 0), dtype="int8")),
        (spaces.MultiBinary([2, 2]), MultiDiscrete((2,) * 4, (0,) * 4, (2, 2), dtype="int8")),
    ],
)
def test_several_choices_at_once_count_from_zero_inside_and_from_start_outside(space: Any, spec: MultiDiscrete):
    assert action_spec(space, "agent") == spec
    env = Walk(action=space)
    copy = ParallelCopy(env, "test")
    copy.reset(1)
    lowest, highest = np.zeros(len(spec.n), np.int64), np.array(spec.n) - 1
    copy.step({"agent": np.stack([lowest, highest])})
    for agent, row in zip(env.possible_agents, (lowest, highest), strict=True):
        received = env.received[0][agent]
        assert space.contains(received)
        np.testing.assert_array_equal(received.reshape(-1), row + spec.start)


def test_binary_choices_arrive_as_the_spaces_own_bytes():
    (action,) = action_decoder(action_spec(spaces.MultiBinary([1, 2]), "agent"))(np.array([[1, 0]]))
    assert (action.dtype, action.tolist()) == (np.int8, [[1, 0]])


def test_what_the_environment_is_given_is_its_own():
    rows = np.array([[1, 0]])
    (action,) = action_decoder(MultiDiscrete((2, 2), (0, 0)))(rows)
    action[0] = 7
    assert rows.tolist() == [[1, 0]]


def test_agents_of_discrete_box_and_several_choices_live_in_one_environment():
    kinds = {"a": spaces.Discrete(2), "b": spaces.Box(-1, 1, (2,)), "c": spaces.MultiDiscrete([2, 3])}
    env = Walk(3)
    env.possible_agents = list(kinds)
    env.__dict__["action_space"] = kinds.__getitem__
    copy = ParallelCopy(env, "test")
    assert [type(group.action) for group in copy.spec.groups] == [Discrete, Box, MultiDiscrete]
    copy.reset(1)
    copy.step({"a": np.array([1]), "b": np.array([[0.5, -0.5]], np.float32), "c": np.array([[1, 2]])})
    assert all(kinds[agent].contains(action) for agent, action in env.received[0].items())


BESIDE = spaces.Box(-9, 9, (1, 2))
ONE = spaces.Box(-9, 9, (1,))


@pytest.mark.parametrize(
    ("space", "value", "row"),
    [
        (spaces.Tuple((spaces.Discrete(2), spaces.Box(-9, 9, (2, 1)))), (1, np.array([[3], [4]])), [0, 1, 3, 4]),
        (spaces.MultiDiscrete([2, 3]), np.array([1, 2]), [0, 1, 0, 0, 1]),
        (spaces.Box(0, 1, (2, 2, 2), np.int8), np.ones((2, 2, 2), np.int8), [1] * 8),
        (spaces.Box(0, 255, (3,), np.uint8), np.array([0, 9, 255], np.uint8), [0, 9, 255]),
        (spaces.Box(0, 1, (2,), BOOL), np.array([True, False]), [1, 0]),
        (spaces.Dict(observation=BESIDE, more=ONE), {"observation": np.array([[5, 6]]), "more": [7]}, [5, 6, 7]),
    ],
)
def test_observations_are_flattened(space: Any, value: Any, row: list[float]):
    assert not holds_mask(space, spaces.Discrete(3), "agent")
    assert observation_size(space, "agent") == len(row)
    written = np.full(len(row), np.nan, np.float32)
    observation_writer(space)(written, value)
    np.testing.assert_array_equal(written, row)


@pytest.mark.parametrize(
    ("beside", "features"),
    [
        ({"observation": (BESIDE, np.array([[5, 6]]))}, [5, 6]),
        ({"z": (spaces.Discrete(2), 1)}, [0, 1]),
        ({"a": (ONE, np.array([7])), "z": (ONE, np.array([8]))}, [7, 8]),
        ({"observation": (spaces.Dict(a=ONE, b=ONE), {"a": [1], "b": [2]})}, [1, 2]),
    ],
)
@pytest.mark.parametrize("mask", [MASK, spaces.MultiBinary(3)])
def test_a_mask_comes_last_whatever_is_beside_it(beside: dict[str, Any], features: list[float], mask: Any):
    space = spaces.Dict({key: part for key, (part, _) in beside.items()} | {"action_mask": mask})
    value = {"action_mask": np.array([1, 0, 1], np.int8)} | {key: seen for key, (_, seen) in beside.items()}
    assert holds_mask(space, spaces.Discrete(3), "agent")
    assert observation_size(space, "agent") == len(features)  # the mask is counted by its group
    row = np.full(len(features) + 3, np.nan, np.float32)
    observation_writer(space)(row, value)
    np.testing.assert_array_equal(row, [*features, 1, 0, 1])


def test_a_mask_is_read_as_yes_or_no():
    row = np.zeros(4, np.float32)
    space = spaces.Dict(observation=spaces.Box(-9, 9, (1,)), action_mask=MASK)
    observation_writer(space)(row, {"observation": np.zeros(1), "action_mask": np.array([[2.0, 0.0, True]])})
    assert row.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("mask", "action", "message"),
    [
        (MASK, spaces.Discrete(4), "must have one number, 0 or 1, for each of the 4 actions"),
        (spaces.Discrete(3), spaces.Discrete(3), "must have one number, 0 or 1, for each of the 3 actions"),
        (MASK, spaces.MultiDiscrete([3]), "masks are supported for Discrete actions only"),
        (MASK, spaces.Box(-1, 1, (3,)), "masks are supported for Discrete actions only"),
    ],
)
def test_a_mask_of_something_else_is_refused(mask: Any, action: Any, message: str):
    space = spaces.Dict(observation=spaces.Box(-9, 9, (1,)), action_mask=mask)
    with pytest.raises(UsageError, match=message):
        holds_mask(space, action, "agent_0")


def test_a_mask_beside_pixels_or_nothing_is_refused():
    pixels = spaces.Dict(observation=spaces.Box(0, 255, (8, 8, 3), np.uint8), action_mask=MASK)
    with pytest.raises(UsageError, match="for now observations must be vectors"):
        observation_size(pixels, "agent_0")
    with pytest.raises(UsageError, match="which is empty"):
        observation_size(spaces.Dict(action_mask=MASK), "agent_0")


@pytest.mark.parametrize(
    "value",
    [
        {"observation": np.zeros(1), "action_mask": np.ones(4)},
        {"observation": np.zeros(2), "action_mask": np.ones(3)},
    ],
)
def test_a_masked_observation_that_does_not_fit_is_a_failure(value: Any):
    space = spaces.Dict(observation=spaces.Box(-9, 9, (1,)), action_mask=MASK)
    with pytest.raises(EnvironmentFailure, match="has"):
        observation_writer(space)(np.zeros(4, np.float32), value)
