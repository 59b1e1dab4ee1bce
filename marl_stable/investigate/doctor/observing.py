"""Every observation against its space, and whether the environment leaves alone what it handed over.

A leaf is a part of an observation with a space of its own; an observation that is no Dict or Tuple is one leaf.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from marl_stable.investigate.doctor.findings import Notebook, Severity, short
from marl_stable.investigate.doctor.play import Moment, Play
from marl_stable.investigate.doctor.watching import Watched

ROUNDING = 1e-5  # of the range, or of the bound's own size
NON_FINITE = "Find where it divides by zero, takes a root or reads an empty sensor, and give a finite value there."


class Held(NamedTuple):
    """An array that the environment handed over, and what it held then."""

    agent: str
    array: NDArray[Any]
    then: NDArray[Any]


class Observing:
    """Watches observations: presence, shape, type, bounds, NaN and infinity, and arrays that change afterwards."""

    def __init__(self, notes: Notebook) -> None:
        self._notes = notes
        self._held: list[Held] = []
        self._spaces: dict[str, Any] = {}

    def begin(self, play: Play, moment: Moment) -> None:
        """An episode begins."""
        self._look(play, moment, moment.agents)

    def step(self, play: Play, moment: Moment, given: dict[str, Any], kept: dict[str, Any]) -> None:
        """Agents have acted."""
        self._look(play, moment, moment.agents if play.turn_based else [*moment.acted, *moment.agents])

    def finish(self, watched: Watched) -> None:
        """Nothing is left to say."""

    def _look(self, play: Play, moment: Moment, agents: list[str]) -> None:
        self._compare_held()
        for agent in dict.fromkeys(agents):
            if agent not in moment.obs:
                continue  # whoever watches the agents tells
            value = moment.obs[agent]
            if agent not in self._spaces:
                self._spaces[agent] = play.space("observation", agent)
            if value is None and agent not in moment.agents:
                continue  # of the dead no last observation is asked
            offset = 0
            for path, space, leaf in leaves(self._spaces[agent], value):
                where = {"agent": agent, **({"part": path} if path else {})}
                self._check(space, leaf, where, offset)
                offset += flat_size(space)
                if isinstance(leaf, np.ndarray):
                    self._held.append(Held(agent, leaf, leaf.copy()))

    def _compare_held(self) -> None:
        for agent, array, then in self._held:
            if not _equal(array, then):
                what = (
                    f"The array that was returned as the observation of {agent} changed when the environment went on: "
                    "whoever kept it has lost what was seen."
                )
                worst = int(np.argmax(np.asarray(array != then).reshape(-1)))
                remedy = "Return a copy, as in `return self.buffer.copy()`."
                self._notes.note(
                    "observation_aliased", "error", {"agent": agent}, array.reshape(-1)[worst], what, remedy
                )
        self._held.clear()

    def _check(self, space: Any, leaf: Any, where: dict[str, Any], offset: int) -> None:
        if leaf is MISSING:
            what = f"The observation of {where['agent']} lacks this part, which its space has."
            self._note("observation_shape", where, "missing", what)
        elif isinstance(space, spaces.Box):
            self._check_box(space, leaf, where, offset)
        elif isinstance(space, spaces.Space) and not _contains(space, leaf):
            self._note(
                "observation_out_of_bounds" if _is_number(leaf, space) else "observation_shape",
                where,
                short(leaf),
                f"The observation of {where['agent']} is {short(leaf)}, which is not in {short(str(space))}.",
            )

    def _check_box(self, space: spaces.Box, leaf: Any, where: dict[str, Any], offset: int) -> None:
        agent = where["agent"]
        try:
            array = np.asarray(leaf)
        except (ValueError, TypeError, RuntimeError):  # lists of unequal lengths; a tensor that wants gradients
            array = np.empty((), object)
        if array.dtype.kind not in "biuf":
            self._note(
                "observation_dtype", where, short(leaf), f"The observation of {agent} is {short(leaf)}, not numbers."
            )
            return
        if array.shape != space.shape:
            what = f"The observation of {agent} has shape {array.shape}; its space says {space.shape}."
            self._note("observation_shape", where, list(array.shape), what)
            return
        if not isinstance(leaf, np.ndarray | np.generic) or array.dtype != space.dtype:
            kind = str(array.dtype) if isinstance(leaf, np.ndarray | np.generic) else type(leaf).__name__
            what = f"The observation of {agent} is of type {kind}; its space says an array of {space.dtype}."
            remedy = f"Return np.asarray(observation, np.{space.dtype}), or declare the space with {kind}."
            self._notes.note("observation_dtype", "warning", where, kind, what, remedy)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            self._tell_non_finite(array, where, offset)
        self._check_bounds(space, array, where, offset)

    def _tell_non_finite(self, array: NDArray[Any], where: dict[str, Any], offset: int) -> None:
        features = np.flatnonzero(~np.isfinite(array.reshape(-1)))
        value = float(array.reshape(-1)[features[0]])
        what = f"Feature {offset + features[0]} of {where['agent']} is {value} in random play."
        at = where | {"feature": int(offset + features[0])}
        self._notes.note("observation_non_finite", "error", at, value, what, NON_FINITE)

    def _check_bounds(self, space: spaces.Box, array: NDArray[Any], where: dict[str, Any], offset: int) -> None:
        if array.dtype.kind == "b" or ((array >= space.low) & (array <= space.high)).all():
            return
        x, low, high = (part.astype(np.float64).reshape(-1) for part in (array, space.low, space.high))
        with np.errstate(invalid="ignore"):
            size = np.where(np.isfinite(high - low), high - low, 1.0)
        slack = ROUNDING * np.maximum(size, 1.0)
        outside = np.flatnonzero((x < low - slack) | (x > high + slack))
        if not len(outside):
            return
        feature = int(outside[0])
        what = (
            f"Feature {offset + feature} of {where['agent']} was {x[feature]:.4g}, outside of its space's bounds "
            f"{low[feature]:.4g} to {high[feature]:.4g}."
        )
        at = where | {"feature": offset + feature}
        remedy = "Widen the bounds to what can be seen, or clip the observation."
        self._notes.note("observation_out_of_bounds", "error", at, x[feature], what, remedy)

    def _note(self, id: str, where: dict[str, Any], value: Any, what: str, severity: Severity = "error") -> None:
        remedy = "Return what observation_space says, or declare what is returned."
        self._notes.note(id, severity, where, value, what, remedy)


MISSING = object()
"""Stands for a part of an observation that is not there."""


def leaves(space: Any, value: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Path, space and value of each part, in the order in which Gymnasium flattens them."""
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            item = value[key] if isinstance(value, Mapping) and key in value else MISSING
            yield from leaves(part, item, f"{path}.{key}" if path else str(key))
    elif isinstance(space, spaces.Tuple):
        items = value if isinstance(value, tuple | list) and len(value) == len(space.spaces) else None
        for i, part in enumerate(space.spaces):
            yield from leaves(part, MISSING if items is None else items[i], f"{path}.{i}" if path else str(i))
    else:
        yield path, space, value


def flat_size(space: Any) -> int:
    """Numbers in a part of an observation; 1 for a category and for what has no size."""
    if isinstance(space, spaces.Discrete) or not isinstance(space, spaces.Space) or space.shape is None:
        return 1
    return int(np.prod(space.shape))


def _contains(space: spaces.Space[Any], leaf: Any) -> bool:
    try:
        return bool(space.contains(leaf))
    except Exception:  # a space of the user's own
        return False


def _is_number(leaf: Any, space: Any) -> bool:
    return isinstance(space, spaces.Discrete) and isinstance(leaf, int | np.integer)


def _equal(array: NDArray[Any], then: NDArray[Any]) -> bool:
    if array.dtype.kind in "fc":
        return bool(np.array_equal(array, then, equal_nan=True))
    return bool(np.array_equal(array, then))
