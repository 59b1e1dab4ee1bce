"""Random legal actions, drawn without touching the environment: `space.sample` would advance a generator of its own."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from marl_stable.envs.spaces import MASK

LARGEST = 1e37  # a bound beyond it is infinite for every purpose


def sample(space: spaces.Space[Any], mask: NDArray[np.bool_] | None, rng: np.random.Generator) -> Any:
    """An action of `space` in its own dtype and shape; `mask (n,)` says which of a Discrete space's are legal."""
    if isinstance(space, spaces.Discrete):
        choices = np.arange(space.n) if mask is None or not mask.any() else np.flatnonzero(mask)
        return space.dtype.type(rng.choice(choices) + space.start)
    if isinstance(space, spaces.MultiDiscrete):
        return (rng.integers(0, space.nvec) + space.start).astype(space.dtype)
    if isinstance(space, spaces.MultiBinary):
        return rng.integers(0, 2, space.shape).astype(space.dtype)
    if isinstance(space, spaces.Box):
        return _sample_box(space, rng)
    own = copy.deepcopy(space)
    own.seed(int(rng.integers(2**31)))
    return own.sample()


def _sample_box(space: spaces.Box, rng: np.random.Generator) -> NDArray[Any]:
    low, high = usable_bounds(space)
    if np.issubdtype(space.dtype, np.floating):
        values = rng.uniform(low, high)
    else:
        values = np.floor(rng.uniform(low, high + 1.0))
    inside: NDArray[Any] = np.clip(values, low, high).astype(space.dtype)
    return inside


def usable_bounds(space: spaces.Box) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bounds to draw from: those of the space, and where they are infinite a unit away from the other, or -1 and 1."""
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    no_low, no_high = ~(np.abs(low) < LARGEST), ~(np.abs(high) < LARGEST)
    bottom = np.where(no_low, np.where(no_high, -1.0, high - 1.0), low)
    top = np.where(no_high, np.where(no_low, 1.0, low + 1.0), high)
    return bottom, top


def mask_of(observation: Any, info: Any) -> Any:
    """The action mask as the environment gives it, in the observation or in the info; None where there is none."""
    for holder in (observation, info):
        if isinstance(holder, Mapping) and MASK in holder:
            return holder[MASK]
    return None


def as_choices(mask: Any, space: spaces.Space[Any]) -> NDArray[np.bool_] | None:
    """The mask as `(n,)` bool, or None where there is none that fits a Discrete space."""
    if mask is None or not isinstance(space, spaces.Discrete):
        return None
    try:
        legal = np.asarray(mask).reshape(-1) != 0
    except (TypeError, ValueError):
        return None
    return legal if legal.size == space.n else None


def dimensions(space: spaces.Space[Any]) -> int:
    """In how many numbers an action can be changed; 0 where it is not known how."""
    if isinstance(space, spaces.Discrete):
        return 1
    if isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary | spaces.Box):
        return int(np.prod(space.shape))
    return 0


def changed(action: Any, space: spaces.Space[Any], dimension: int, mask: NDArray[np.bool_] | None, by: int) -> Any:
    """The action with another value in one dimension: the `by`-th next choice that is legal, or the other half of the
    range; the same action where there is no other."""
    if isinstance(space, spaces.Discrete):
        choices = np.arange(space.n) if mask is None else np.flatnonzero(mask)
        others = choices[choices != int(action) - int(space.start)]
        return space.dtype.type(others[by % len(others)] + space.start) if len(others) else action
    other = np.array(action)
    flat = other.reshape(-1)
    if isinstance(space, spaces.MultiDiscrete):
        n, start = int(space.nvec.reshape(-1)[dimension]), int(space.start.reshape(-1)[dimension])
        flat[dimension] = (int(flat[dimension]) - start + 1 + by % max(n - 1, 1)) % n + start
    elif isinstance(space, spaces.MultiBinary):
        flat[dimension] = 1 - flat[dimension]
    else:
        assert isinstance(space, spaces.Box)
        low, high = (bound.reshape(-1)[dimension] for bound in usable_bounds(space))
        flat[dimension] = low if float(flat[dimension]) > (low + high) / 2 else high
    return other
