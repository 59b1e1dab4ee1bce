"""What entries of a run folder's JSON must look like to be relied on.

What looks otherwise, by a slip of an editor or in a folder of another release, is left out where the file is read, so
that it is unknown to all that works with it.

A shape is a type (`float`: a finite number), None, a list (of one shape: any number of these; of several: each element
its own), a tuple (any of these), or a dictionary: by `str` the shape of every value, else the shapes of values by name,
of which those with a `?` may be missing.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

FIGURE = (float, None)  # None where it was not finite
PLACE = {"group": str, "network": str}

METADATA: Mapping[str, Any] = {
    "status": str,
    "steps": float,
    "total_steps": float,
    "seconds": float,
    "returns": [[float, FIGURE]],
    "baselines": {str: ({"return": FIGURE, "ci95": [FIGURE, FIGURE]}, None)},
    "spec": {
        "groups": [{"name": str, "agents": [str], "action": {"n?": (int, [int]), "low?": [FIGURE]}, "team": str}],
        "turn_based?": bool,
    },
    "preflight": dict,
    "contributions": {str: {"loss": FIGURE, "error": FIGURE}},
}
"""Of `metadata.json`, as far as anything is made of it."""

PREFLIGHT: Mapping[str, Any] = {
    "rewards": {str: {str: FIGURE}},
    "terms": {str: {str: {str: float}}},
    "unaccounted": {str: float},
    "observations": {str: dict},
    "ends": {"longest?": FIGURE},
    "effects": {
        "without_effect?": [{"agent": str, "dimension?": int}],
        "like_choice_0?": [{"agent": str, "dimension?": int, "choices": [int]}],
    },
    "control": {str: {str: float}},
    "untrained": [PLACE | {"tensor": str, "agent?": str}],
    "non_finite": [PLACE],
    "range": {str: {str: [int]}},
}
"""Of its `preflight`, part by part."""

INCIDENT: Mapping[str, Any] = {"steps": float, "kind": str, "where": dict, "value": FIGURE, "action?": str}
"""A line of `incidents.jsonl`."""


def reliable(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a `metadata.json` without entries, and parts of its preflight, that do not look as they must."""
    found = _fitting(metadata, METADATA)
    return found | {"preflight": _fitting(found["preflight"], PREFLIGHT)} if "preflight" in found else found


def fits(value: Any, shape: Any) -> bool:
    """Whether `value`, as read from JSON, has a shape."""
    if isinstance(shape, tuple):
        return any(fits(value, one) for one in shape)
    if isinstance(shape, list):
        return isinstance(value, list) and _elements_fit(value, shape)
    if isinstance(shape, Mapping):
        return isinstance(value, dict) and _values_fit(value, shape)
    if shape is None:
        return value is None
    if shape is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
    return isinstance(value, shape)


def _elements_fit(value: list[Any], shape: list[Any]) -> bool:
    shapes = shape * len(value) if len(shape) == 1 else shape
    return len(value) == len(shapes) and all(map(fits, value, shapes))


def _values_fit(value: dict[str, Any], shape: Mapping[Any, Any]) -> bool:
    if str in shape:
        return all(fits(one, shape[str]) for one in value.values())
    for name, wanted in shape.items():
        key = name.removesuffix("?")
        if not (fits(value[key], wanted) if key in value else name.endswith("?")):
            return False
    return True


def _fitting(found: Mapping[str, Any], shapes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name not in shapes or fits(value, shapes[name])}
