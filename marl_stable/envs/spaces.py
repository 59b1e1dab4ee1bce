"""Gymnasium spaces to arrays: what is supported, how an observation becomes a row, how a row becomes an action.

Shapes: A agents of one group, O observation features, D action features. NumPy only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from marl_stable.types import ActionSpec, Box, Discrete, EnvironmentFailure, UsageError

Writer: TypeAlias = "Callable[[NDArray[np.float32], Any], None]"
"""Writes one agent's observation into its row `(O,)`; EnvironmentFailure where it does not fit the space."""

Decoder: TypeAlias = "Callable[[NDArray[Any]], list[Any]]"
"""Turns a group's actions, `(A,)` int64 or `(A, D)` float32, into what the environment takes, one per agent. The
results share no memory with the input, so an environment may keep or change what it is given."""


def observation_size(space: spaces.Space[Any], agent: str) -> int:
    """Number of features of the flattened observation; UsageError where the space cannot be flattened."""
    for leaf in _leaves(space):
        if isinstance(leaf, spaces.Box) and leaf.dtype == np.uint8 and len(leaf.shape) == 3:
            raise UsageError(
                f"the observation of {agent} is an image {leaf.shape}; for now observations must be vectors, "
                "so extract features in the environment."
            )
    if not space.is_np_flattenable:
        raise UsageError(
            f"the observation space of {agent} is {space}, which has no fixed size; use Box, Discrete or Dict."
        )
    size = int(spaces.flatdim(space))
    if size == 0:
        raise UsageError(f"the observation space of {agent} is {space}, which is empty; give it one feature or more.")
    return size


def observation_writer(space: spaces.Space[Any]) -> Writer:
    """The function that writes an observation of `space` into a float32 row."""
    return _box_writer(space.shape) if isinstance(space, spaces.Box) else _flattening_writer(space)


def action_spec(space: spaces.Space[Any], agent: str) -> ActionSpec:
    """The action space in this package's terms; UsageError where it is not supported or its bounds are unusable."""
    if isinstance(space, spaces.Discrete):
        return Discrete(int(space.n), int(space.start))
    if not isinstance(space, spaces.Box):
        raise UsageError(f"the action space of {agent} is {space}; Discrete and Box action spaces are supported.")
    low, high = space.low.ravel().astype(np.float64), space.high.ravel().astype(np.float64)
    if low.size == 0:
        raise UsageError(f"the action space of {agent} is {space}, which is empty; give it one number or more.")
    # Bounds such as +-3e38 are infinite for every purpose: their distance overflows float32.
    if not (np.abs(low) < 1e37).all() or not (np.abs(high) < 1e37).all():
        raise UsageError(
            f"the action space of {agent} is {space}, which has no finite bounds; "
            "give its Box the range in which actions make a difference, such as -1 to 1."
        )
    if not (low < high).all():
        raise UsageError(f"the action space of {agent} is {space}; every low bound must be below its high bound.")
    return Box(tuple(low.tolist()), tuple(high.tolist()), space.shape if len(space.shape) > 1 else ())


def action_decoder(space: spaces.Space[Any]) -> Decoder:
    """The function that hands a group's actions to the environment in the dtype and shape of `space`."""
    if isinstance(space, spaces.Discrete):
        return _discrete_decoder(space)
    assert isinstance(space, spaces.Box)
    return _float_decoder(space) if np.issubdtype(space.dtype, np.floating) else _whole_number_decoder(space)


def _leaves(space: spaces.Space[Any]) -> Iterator[spaces.Space[Any]]:
    if isinstance(space, spaces.Dict):
        parts: tuple[spaces.Space[Any], ...] = tuple(space.spaces.values())
    elif isinstance(space, spaces.Tuple):
        parts = tuple(space.spaces)
    else:
        yield space
        return
    for part in parts:
        yield from _leaves(part)


def _box_writer(shape: tuple[int, ...]) -> Writer:
    flat = len(shape) == 1

    def write(row: NDArray[np.float32], value: Any) -> None:
        array = value if type(value) is np.ndarray else np.asarray(value)
        if array.shape != shape:  # assignment alone would broadcast a short observation without a word
            raise EnvironmentFailure(f"has shape {array.shape} where its space says {shape}")
        row[...] = array if flat else array.reshape(-1)

    return write


def _flattening_writer(space: spaces.Space[Any]) -> Writer:
    def write(row: NDArray[np.float32], value: Any) -> None:
        _check_categories(space, value)
        flat = np.asarray(spaces.flatten(space, value))
        if flat.shape != row.shape:
            raise EnvironmentFailure(f"has {flat.size} features where its space says {row.size}")
        row[...] = flat

    return write


def _check_categories(space: spaces.Space[Any], value: Any) -> None:
    """Refuse a category outside its space: flattening would light up another category for a negative one."""
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            _check_categories(part, value[key])
    elif isinstance(space, spaces.Tuple):
        for part, item in zip(space.spaces, value, strict=True):
            _check_categories(part, item)
    elif isinstance(space, spaces.Discrete | spaces.MultiDiscrete) and not space.contains(value):
        raise EnvironmentFailure(f"is {value!r}, which is not in {space}")


def _discrete_decoder(space: spaces.Discrete[Any]) -> Decoder:
    start, dtype = int(space.start), space.dtype

    def decode(values: NDArray[Any]) -> list[Any]:
        return list((values + start).astype(dtype))

    return decode


def _float_decoder(space: spaces.Box) -> Decoder:
    low, high, shape, dtype = space.low.ravel(), space.high.ravel(), space.shape, space.dtype

    def decode(values: NDArray[Any]) -> list[Any]:
        # A scaled action can miss its bound by one rounding; minimum and maximum let NaN through to be seen.
        inside = np.minimum(np.maximum(values.astype(dtype), low), high)
        return list(inside) if len(shape) == 1 else [row.reshape(shape) for row in inside]

    return decode


def _whole_number_decoder(space: spaces.Box) -> Decoder:
    low, high, shape, dtype = space.low.ravel(), space.high.ravel(), space.shape, space.dtype

    def decode(values: NDArray[Any]) -> list[Any]:
        if not np.isfinite(values).all():
            raise EnvironmentFailure(f"the action {values.tolist()} has no whole number to stand for it")
        inside = np.clip(np.rint(values.astype(np.float64)), low, high).astype(dtype)
        return [row.reshape(shape) for row in inside]

    return decode
