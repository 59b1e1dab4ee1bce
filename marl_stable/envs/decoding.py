"""What networks chose, as the environment takes it: numbered, rounded, within bounds, in its shape and dtype.

Training and a policy by itself both hand on actions by this code. Shapes: A agents of one group, D action features, K
choices of one MultiDiscrete action. NumPy only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from marl_stable.types import ActionSpec, Box, Discrete, EnvironmentFailure, MultiDiscrete

Decoder: TypeAlias = "Callable[[NDArray[Any]], list[Any]]"
"""Turns a group's actions, `(A,)` or `(A, K)` int64 or `(A, D)` float32, into what the environment takes, one for each
agent. The results share no memory with the input, so an environment may keep or change what it is given."""


def action_decoder(action: ActionSpec) -> Decoder:
    """The function that turns a group's actions into members of the environment's space.

    For spaces of whole numbers it raises EnvironmentFailure where an action is not finite.
    """
    if isinstance(action, Discrete):
        return _discrete_decoder(action)
    if isinstance(action, MultiDiscrete):
        return _choices_decoder(action)
    return _float_decoder(action) if np.issubdtype(action.dtype, np.floating) else _whole_number_decoder(action)


def _discrete_decoder(action: Discrete) -> Decoder:
    start, dtype = action.start, np.dtype(action.dtype)

    def decode(values: NDArray[Any]) -> list[Any]:
        return list((values + start if start else values).astype(dtype, copy=False))

    return decode


def _choices_decoder(action: MultiDiscrete) -> Decoder:
    start, shape, dtype = np.array(action.start), _shape(action, len(action.n)), np.dtype(action.dtype)

    def decode(values: NDArray[Any]) -> list[Any]:
        return [row.reshape(shape) for row in (values + start).astype(dtype)]

    return decode


def _float_decoder(action: Box) -> Decoder:
    shape, dtype = _shape(action, len(action.low)), np.dtype(action.dtype)
    low, high = np.array(action.low, dtype), np.array(action.high, dtype)

    def decode(values: NDArray[Any]) -> list[Any]:
        # A scaled action can miss its bound by one rounding; minimum and maximum let NaN through to be seen.
        inside = np.minimum(np.maximum(values.astype(dtype), low), high)
        return list(inside) if len(shape) == 1 else [row.reshape(shape) for row in inside]

    return decode


def _whole_number_decoder(action: Box) -> Decoder:
    shape, dtype = _shape(action, len(action.low)), np.dtype(action.dtype)
    low, high = np.array(action.low, np.float64), np.array(action.high, np.float64)

    def decode(values: NDArray[Any]) -> list[Any]:
        if not np.isfinite(values).all():
            raise EnvironmentFailure(f"the action {values.tolist()} has no whole number to stand for it")
        inside = np.clip(np.rint(values.astype(np.float64)), low, high).astype(dtype)
        return [row.reshape(shape) for row in inside]

    return decode


def _shape(action: MultiDiscrete | Box, size: int) -> tuple[int, ...]:
    """The environment's, of `size` numbers."""
    return action.shape or (() if action.scalar else (size,))
