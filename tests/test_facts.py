"""What a run folder's JSON must look like: what is so is kept to the letter, what is not is unknown."""

from __future__ import annotations

from typing import Any

import pytest

from marl_stable.facts import INCIDENT, fits, reliable

BASELINES = {"random": {"return": -1.0, "ci95": [-2, 0]}, "best_constant": None}


@pytest.mark.parametrize(
    ("shape", "those", "others"),
    [
        (float, [1, -2.5, 0], [None, "1", True, [1], float("nan"), float("inf"), 10**400]),
        (str, ["", "x"], [1, None, ["x"]]),
        ((float, None), [1.0, None], ["x", {}]),
        ([str], [[], ["a"], ["a", "b"]], ["a", {"a": "b"}, ["a", 1], None]),
        ([float, float], [[1, 2]], [[], [1], [1, 2, 3], [1, "2"]]),
        ({str: float}, [{}, {"a": 1, "b": 2}], [[], {"a": "x"}, None]),
        ({"a": float, "b?": str}, [{"a": 1}, {"a": 1, "b": "x", "c": [1]}], [{}, {"b": "x"}, {"a": 1, "b": 2}, []]),
    ],
    ids=str,
)
def test_a_value_has_a_shape_or_not(shape: Any, those: list[Any], others: list[Any]) -> None:
    assert [value for value in those if not fits(value, shape)] == []
    assert [value for value in others if fits(value, shape)] == []


def test_only_what_is_not_as_it_must_be_is_left_out_and_strangers_stay() -> None:
    preflight = {"untrained": [], "rewards": {"a": [1]}, "control": {"a": {"reward": 0.5}}, "new": [1]}
    found = {"status": 3, "steps": 9, "baselines": BASELINES, "preflight": preflight, "mine": {"a": [1]}}
    assert reliable(found) == {
        "steps": 9,
        "baselines": BASELINES,
        "preflight": {"untrained": [], "control": {"a": {"reward": 0.5}}, "new": [1]},
        "mine": {"a": [1]},
    }


def test_an_incident_tells_what_happened_when_and_where() -> None:
    entry = {"steps": 1, "kind": "collapse", "where": {}, "value": None, "limit": 0.0, "action": "restored"}
    assert fits(entry, INCIDENT)
    assert not any(fits({**entry, key: [1]}, INCIDENT) for key in ("steps", "kind", "where", "value", "action"))
    assert not any(fits({k: v for k, v in entry.items() if k != key}, INCIDENT) for key in ("steps", "kind", "where"))
