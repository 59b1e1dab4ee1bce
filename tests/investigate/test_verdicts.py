"""What an experiment says, against tables made by hand."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

import marl_stable.monitor.causes  # noqa: F401  (registers every cause)
from marl_stable.investigate.remedies import Remedy
from marl_stable.investigate.verdicts import MOST, gain, judge, named
from marl_stable.monitor.case import CAUSES


class Short(NamedTuple):
    value: float | None
    symptoms: list[str] = []  # noqa: RUF012 - never changed


def shorts(*values: float | None) -> list[Short]:
    return [Short(value) for value in values]


@pytest.mark.parametrize(
    ("treated", "control", "found"),
    [
        ((-10, -12), (-20, -22), 10 / 2**0.5 * 2**0.5),  # controls differ by 2, and so a deviation of sqrt 2
        ((-10, -16), (-20, -20), 7 / 18**0.5 * 2**0.5),  # the differences are 10 and 4
        ((-20, -20), (-20, -20), 0.0),
        ((-30, -32), (-20, -22), -10 / 2**0.5 * 2**0.5),
        ((-10.1, -10.1), (-10, -10), -0.1 / 0.101 * 2**0.5),  # no pair is known better than to 1%
        ((1e9, 1e9), (1, 1), MOST),
        ((None, -3), (-5, -5), -MOST),
        ((-3, -3), (-5, None), MOST),
        ((None, -3), (-5, None), 0.0),
        ((0, 0), (0, 0), 0.0),
    ],
)
def test_gain_in_paired_standard_errors(treated: Any, control: Any, found: float) -> None:
    measured = gain(shorts(*treated), shorts(*control))
    if treated == (-10, -12):
        assert measured == pytest.approx(10.0)
    assert measured == pytest.approx(max(-MOST, min(MOST, found)))


def test_a_symptom_is_gone_where_every_control_has_it_and_no_treated_run() -> None:
    control = [Short(-9, ["no_learning", "repeated_action"]), Short(-9, ["repeated_action"])]
    cured = judge(Remedy("a", "", {}), "anew", [Short(-9), Short(-9)], control)
    assert (cured.gone, cured.gain, cured.helps) == (["repeated_action"], 0.0, True)
    half = judge(Remedy("a", "", {}), "anew", [Short(-9), Short(-9, ["repeated_action"])], control)
    assert (half.gone, half.helps) == ([], False)
    worse = judge(Remedy("a", "", {}), "anew", [Short(-19), Short(-19)], control)
    assert (worse.gone, worse.helps) == (["repeated_action"], False)


def finding(cause: str, confidence: float, **config: Any) -> dict[str, Any]:
    known = {"cause": cause, "confidence": confidence, "onset_steps": 100, "where": {}, "evidence": {"seen": 1.0}}
    return known | {"explanation": "", "remedy": "", "config": config}


def after(findings: list[dict[str, Any]], **gains: float) -> dict[str, Any]:
    """The diagnosis after remedies against causes gained so many standard errors, each +-1 apart by pairs."""
    control = shorts(-20.0, -22.0)
    tried = []
    for cause, gained in gains.items():
        treated = shorts(-20 + gained, -22 + gained)
        tried.append(judge(Remedy(cause, "smaller steps", {"algo.lr": 0.1}), "anew", treated, control))
    return named({"verdict": "failing", "findings": findings}, tried)


def test_the_cause_whose_remedy_helps_comes_first() -> None:
    doubted, proven = finding("reward_outliers", 0.9), finding("learning_rate_too_high", 0.4, **{"algo.lr": 0.01})
    found = after([doubted, proven], reward_outliers=0.0, learning_rate_too_high=10.0)
    assert [entry["cause"] for entry in found["findings"]] == ["learning_rate_too_high", "reward_outliers"]
    first, second = found["findings"]
    assert first["confidence"] == pytest.approx(0.7)
    assert first["evidence"] == {"seen": 1.0, "experiment_gain": pytest.approx(10.0)}
    assert first["config"] == {"algo.lr": 0.01}
    assert second["confidence"] == pytest.approx(0.45)
    assert second["evidence"]["experiment_gain"] == pytest.approx(0.0)
    assert doubted["evidence"] == {"seen": 1.0}


def test_what_helps_alike_stays_in_the_order_of_the_diagnosis() -> None:
    causes = ["a", "b", "c"]
    found = after([finding(cause, 0.6) for cause in causes], a=3.0, b=9.0, c=10.0)
    assert [entry["cause"] for entry in found["findings"]] == ["b", "c", "a"]


def test_where_nothing_helps_the_order_stays_and_confidence_falls() -> None:
    found = after([finding("a", 0.8), finding("b", 0.6)], a=1.0, b=-5.0, c=1.9)
    assert [(entry["cause"], entry["confidence"]) for entry in found["findings"]] == [("a", 0.4), ("b", 0.3)]


def test_a_finding_whose_remedy_was_not_tried_stays_as_it_is() -> None:
    assert after([finding("a", 0.8)], b=0.0)["findings"] == [finding("a", 0.8)]


def test_a_cause_that_only_the_experiment_names() -> None:
    found = after([finding("unknown", 0.2)], observation_scale=7.0, exploding_gradients=4.0)
    (only,) = found["findings"]
    assert set(only) == set(finding("", 0.0))
    assert (only["cause"], only["onset_steps"], only["config"]) == ("observation_scale", 100, {"algo.lr": 0.1})
    assert only["evidence"] == {"experiment_gain": pytest.approx(7.0)}
    assert "return is -14 instead of -21" in only["explanation"]
    assert found["verdict"] == "failing"


def test_a_usual_remedy_gives_its_flags_to_a_finding_without_any() -> None:
    found = after([finding("learning_rate_too_high", 0.6)], learning_rate_too_high=7.0)
    assert found["findings"][0]["config"] == {"algo.lr": 0.1}


def test_what_is_a_consequence_comes_after_a_cause_that_helps_as_much() -> None:
    found = after([finding("actor_saturation", 0.6)], actor_saturation=9.0, learning_rate_too_high=8.0)
    assert CAUSES["actor_saturation"].last_resort
    assert [entry["cause"] for entry in found["findings"]] == ["learning_rate_too_high", "actor_saturation"]
