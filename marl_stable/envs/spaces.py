"""Gymnasium spaces in this package's terms: what is supported, and how an observation becomes a row.

Shapes: O observation features, n actions of a Discrete space. NumPy only.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from marl_stable.types import ActionSpec, Box, Discrete, EnvironmentFailure, MultiDiscrete, UsageError

MASK = "action_mask"
"""The key of an action mask, in a Dict observation or in an agent's info."""

Writer: TypeAlias = "Callable[[NDArray[np.float32], Any], None]"
"""Writes one agent's observation into its row `(O,)`; EnvironmentFailure where it does not fit the space."""


def fixed_space(space_of: Callable[[str], Any], agent: str, kind: str) -> Any:
    """The `kind` space ("observation", "action") of `agent`; UsageError where it differs from call to call."""
    with warnings.catch_warnings():  # PettingZoo warns where the method is left to its own default
        warnings.simplefilter("ignore")
        space, again = space_of(agent), space_of(agent)
    if space != again:
        raise UsageError(
            f"the {kind} space of {agent} changes between calls ({space}, then {again}); it must be fixed."
        )
    return space


def holds_mask(space: spaces.Space[Any], action: spaces.Space[Any], agent: str) -> bool:
    """Whether observations of `space` hold a mask of the actions of `action`, which then are their last features.

    Raises UsageError for a mask that does not say of each of the actions of a Discrete space whether it is legal.
    """
    if not isinstance(space, spaces.Dict) or MASK not in space.spaces:
        return False
    mask = space.spaces[MASK]
    if not isinstance(action, spaces.Discrete):
        raise UsageError(
            f"the observation of {agent} holds an {MASK}, and its action space is {action}; masks are supported for "
            "Discrete actions only, so take the mask out of the observation."
        )
    if not isinstance(mask, spaces.Box | spaces.MultiBinary) or spaces.flatdim(mask) != action.n:
        raise UsageError(
            f"the {MASK} in the observation of {agent} is {mask}; it must have one number, 0 or 1, for each of the "
            f"{action.n} actions."
        )
    return True


def observation_size(space: spaces.Space[Any], agent: str) -> int:
    """Number of features of the flattened observation, a mask not counted.

    Raises UsageError where the space cannot be flattened.
    """
    space = _without_mask(space)
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


def first_category(space: spaces.Space[Any]) -> int | None:
    """The number of the first category where an observation is one category, a mask not counted; else None."""
    space = _without_mask(space)
    return int(space.start) if isinstance(space, spaces.Discrete) else None


def observation_writer(space: spaces.Space[Any]) -> Writer:
    """The function that writes an observation of `space` into a float32 row; a mask comes last."""
    if isinstance(space, spaces.Box):
        return _box_writer(space.shape)
    if isinstance(space, spaces.Dict) and MASK in space.spaces:
        return _masked_writer(space)
    return _flattening_writer(space)


def write_mask(row: NDArray[np.float32], mask: Any) -> None:
    """Write a mask into its row `(n,)`: 1 where an action is legal, else 0; EnvironmentFailure for a wrong size."""
    array = np.asarray(mask)
    if array.size != row.size:
        raise EnvironmentFailure(f"has an {MASK} of {array.size} entries for {row.size} actions")
    row[...] = array.reshape(-1) != 0


def action_spec(space: spaces.Space[Any], agent: str) -> ActionSpec:
    """The action space in this package's terms; UsageError where it is not supported or its bounds are unusable."""
    if isinstance(space, spaces.Discrete):
        return Discrete(int(space.n), int(space.start), space.dtype.name)
    if isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary):
        return _choices_spec(space, agent)
    if not isinstance(space, spaces.Box):
        supported = "Discrete, MultiDiscrete, MultiBinary and Box action spaces are supported"
        raise UsageError(f"the action space of {agent} is {space}; {supported}.")
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
    return Box(tuple(low.tolist()), tuple(high.tolist()), *_form(space))


def _without_mask(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """What an observation shows beside the action mask: the part of the Dict that is left, or all its other parts."""
    if not isinstance(space, spaces.Dict) or MASK not in space.spaces:
        return space
    rest = {key: part for key, part in space.spaces.items() if key != MASK}
    return next(iter(rest.values())) if len(rest) == 1 else spaces.Dict(rest)


def _choices_spec(space: spaces.MultiDiscrete | spaces.MultiBinary, agent: str) -> MultiDiscrete:
    if isinstance(space, spaces.MultiDiscrete):
        n, start = space.nvec.ravel(), space.start.ravel()
    else:
        n = np.full(int(np.prod(space.shape)), 2)
        start = np.zeros_like(n)
    if n.size == 0:
        raise UsageError(f"the action space of {agent} is {space}, which is empty; give it one choice or more.")
    return MultiDiscrete(tuple(n.tolist()), tuple(start.tolist()), *_form(space))


def _form(space: spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary) -> tuple[tuple[int, ...], bool, str]:
    """Shape where it is not flat, whether it has no axes, and NumPy's name of the type of its numbers."""
    axes = len(space.shape)
    return space.shape if axes > 1 else (), axes == 0, np.dtype(space.dtype).name


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


def _masked_writer(space: spaces.Dict) -> Writer:
    size = spaces.flatdim(space.spaces[MASK])
    write_features = observation_writer(_without_mask(space))
    others = [key for key in space.spaces if key != MASK]
    alone = others[0] if len(others) == 1 else None

    def write(row: NDArray[np.float32], value: Any) -> None:
        write_features(row[:-size], value if alone is None else value[alone])
        write_mask(row[-size:], value[MASK])

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
