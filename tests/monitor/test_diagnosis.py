"""The root cause comes first, and a symptom without a cause is said to have none."""

from __future__ import annotations

import json

import numpy as np

from marl_stable.monitor.case import Case, Finding
from marl_stable.monitor.diagnosis import actions_taken, diagnose, ordered
from tests.monitor.causes.recordings import AGENT, EVERY, NOISE, WHOLE, N, case, recorded, stepped, stuck

LAST = N * EVERY


def finding(cause: str, onset: int = 0, confidence: float = 0.9) -> Finding:
    return Finding(cause, confidence, onset, {}, {}, "", "", {})


def order(*found: Finding) -> list[str]:
    return [entry.cause for entry in ordered(list(found), case(("charts/return", WHOLE, 0.0)))]


def test_early_comes_before_late() -> None:
    assert order(finding("reward_shift", LAST // 2), finding("critic_divergence", LAST // 4))[0] == "critic_divergence"


def test_upstream_comes_first_of_what_began_together() -> None:
    late = finding("critic_divergence", LAST // 2)
    assert order(late, finding("reward_shift", LAST // 2 + EVERY))[0] == "reward_shift"


def test_last_resorts_come_last_and_doubtful_findings_after_them() -> None:
    found = finding("actor_saturation"), finding("stale_replay", LAST // 2), finding("reward_shift", 0, 0.3)
    assert order(*found) == ["stale_replay", "actor_saturation", "reward_shift"]
    assert order() == []


def test_healthy_run_has_no_finding_and_says_what_was_looked_for() -> None:
    found = diagnose(case(("charts/return", WHOLE, np.linspace(0, 1, N)), ("reward_mean", AGENT, -1.0 + 0.1 * NOISE)))
    assert (found["verdict"], found["findings"], found["symptoms"], found["return"]) == ("healthy", [], [], 1.0)
    assert "reward_shift" in found["checked"]
    assert "reward_outliers" not in found["checked"]


def test_symptom_without_a_cause_is_unknown() -> None:
    found = diagnose(case(("charts/return", WHOLE, 0.01 * NOISE)))
    assert found["verdict"] == "failing"
    assert [entry["cause"] for entry in found["findings"]] == ["unknown"]
    assert "no learning" in found["findings"][0]["explanation"]


def test_remedy_of_what_is_unknown_can_be_followed() -> None:
    flat = ("charts/return", WHOLE, 0.01 * NOISE)
    run = diagnose(case(flat, ("reward_std", AGENT, 0.3), config={"algo.gamma": 0.99}))["findings"][0]
    assert "--experiment" in run["remedy"]
    assert "causes looked for explains it" in run["explanation"]
    for settings in ({}, {"loop": "own", "algo.gamma": 0.99}):  # a metrics.csv alone, and a loop of one's own
        elsewhere = diagnose(case(flat, config=settings))["findings"][0]
        assert "--experiment" not in elsewhere["remedy"]


def test_where_nothing_could_be_looked_for_that_is_said() -> None:
    told = diagnose(Case(recorded(("losses/critic", WHOLE, np.exp(np.linspace(0.0, 6.0, N))))))
    assert (told["findings"][0]["cause"], told["checked"]) == ("unknown", [])
    assert told["findings"][0]["explanation"] == (
        "The run shows diverging loss, and what was recorded is too little to look for any cause."
    )


def test_numbers_near_the_end_of_the_range_are_judged_without_a_word_of_numpys() -> None:
    huge = recorded(("charts/return", WHOLE, 1e308), ("losses/critic", WHOLE, 1e308))
    assert json.dumps(diagnose(Case(huge))["verdict"])
    signs = recorded(("charts/return", WHOLE, np.sign(NOISE) * 1e308))
    assert diagnose(Case(signs))["symptoms"] == ["no_learning"]


def test_loss_that_grew_with_what_is_paid_fails_no_run() -> None:
    rise = 1 - np.exp(-np.arange(N) / 12)
    curves = ("charts/return", WHOLE, 20.0 + 480.0 * rise + 8.0 * NOISE), ("losses/critic", WHOLE, 0.5 + 40.0 * rise)
    found = diagnose(Case(recorded(*curves)))
    assert (found["verdict"], found["symptoms"], found["findings"]) == ("healthy", ["diverging_loss"], [])
    flat = diagnose(Case(recorded(("charts/return", WHOLE, 20.0 + 8.0 * NOISE), curves[1])))
    assert flat["verdict"] == "failing"


def test_finding_without_a_symptom_is_a_warning_in_plain_types() -> None:
    mean = ("reward_mean", AGENT, stepped(-1.0, 9.0))
    found = diagnose(case(mean, ("charts/return", WHOLE, np.linspace(0, 1, N))))
    assert found["verdict"] == "warning"
    assert found["findings"][0]["cause"] == "reward_shift"
    assert json.loads(json.dumps(found)) == found
    assert diagnose(case(*stuck(), mean))["verdict"] == "failing"


def test_actions_taken_are_counted_with_their_first_step() -> None:
    acts = ["none", "skipped_update", "warned", "skipped_update", "restored"]
    found = actions_taken([{"steps": 10 * i, "action": act} for i, act in enumerate(acts)])
    assert found == [
        {"steps": 10, "action": "skipped_update", "count": 2},
        {"steps": 40, "action": "restored", "count": 1},
    ]


def test_what_has_not_begun_to_learn_is_unknown_only_once_the_run_is_over() -> None:
    flat = ("charts/return", WHOLE, 0.01 * NOISE)
    found = diagnose(case(flat, total_steps=LAST + EVERY))
    assert (found["verdict"], found["findings"], found["symptoms"]) == ("healthy", [], ["no_learning"])


def test_what_is_left_out_of_learning_is_a_warning_where_learning_goes_on() -> None:
    bad = ("obs_non_finite", AGENT | {"feature": 2}, np.where(np.arange(N) > 9, 1e-3, 0.0))
    known = {"baselines": {"random": {"return": 0.0, "ci95": [-0.1, 0.1]}, "best_constant": None}}
    rising = ("charts/return", WHOLE, np.linspace(0.0, 5.0, N))
    assert diagnose(case(bad, rising, **known))["verdict"] == "warning"
    assert diagnose(case(bad, ("charts/return", WHOLE, 0.01 * NOISE), **known))["verdict"] == "failing"
