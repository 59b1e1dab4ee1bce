"""What a user sees: told of failing runs, and not of healthy ones that look so."""

from __future__ import annotations

from typing import Any

import numpy as np

from marl_stable.monitor.symptoms import fails, symptoms, troubles
from tests.monitor.causes.recordings import AGENT, CONTINUOUS, EVERY, NOISE, WHOLE, N, case, spec, stepped, stuck

RISE = 1 - np.exp(-np.arange(N) / 8.0)


def names(*series: Any, **facts: Any) -> list[str]:
    return [symptom.name for symptom in symptoms(case(*series, **facts))]


def test_nothing_is_seen_in_an_empty_case_nor_in_a_healthy_one() -> None:
    assert names() == []
    loss = ("losses/critic", WHOLE, np.exp(-np.arange(N) / 10.0))
    acts = ("sameness", AGENT, 0.5), ("actions/responsiveness", AGENT, RISE)
    assert names(("charts/return", WHOLE, RISE + 0.03 * NOISE), loss, *acts) == []


def test_repeated_action_needs_both_sameness_and_no_response_and_lasts() -> None:
    assert names(*stuck())[0] == "repeated_action"
    well = ("charts/return", WHOLE, RISE)
    deaf, lively = ("actions/responsiveness", AGENT, 0.001), ("actions/responsiveness", AGENT, 0.4)
    assert names(well, ("sameness", AGENT, 1.0), lively) == []
    assert names(well, ("sameness", AGENT, 0.3), deaf) == []
    assert names(well, ("sameness", AGENT, stepped(1.0, 0.3)), deaf) == []  # it recovered
    thrown = ("actions/responsiveness", AGENT, np.where(np.arange(N) == N - 1, 0.4, 0.001))
    assert names(well, ("sameness", AGENT, 1.0), thrown) == ["repeated_action"]  # from one end to the other


def test_kinds_of_actions_have_limits_of_their_own() -> None:
    series = ("charts/return", WHOLE, RISE), ("sameness", AGENT, 0.9), ("actions/responsiveness", AGENT, 0.04)
    assert names(*series, spec=spec(CONTINUOUS)) == ["repeated_action"]
    assert names(*series) == []


def test_greedy_repetition_is_known_from_the_monitors_incidents() -> None:
    seen = {"kind": "repeated_action", "steps": 30 * EVERY, "where": {"agent": "agent_0"}, "value": 1.0}
    series = ("charts/return", WHOLE, RISE), ("sameness", AGENT, 0.5), ("actions/responsiveness", AGENT, 0.001)
    assert names(*series, incidents=[seen]) == ["repeated_action"]
    assert names(*series, incidents=[seen | {"steps": EVERY}]) == []


def test_no_learning_is_measured_from_random_play() -> None:
    known = {"baselines": {"random": {"return": 0.0}, "best_constant": {"return": 0.5}}}
    assert names(("charts/return", WHOLE, 0.02 * NOISE), **known) == ["no_learning"]
    assert names(("charts/return", WHOLE, 1.0 + 0.02 * NOISE), **known) == []  # it had learned by the first reading
    assert names(("charts/return", WHOLE, RISE + 0.05 * NOISE)) == []
    half = case(("charts/return", WHOLE, 0.02 * NOISE), total_steps=10 * N * EVERY)
    assert symptoms(half) == ()  # too early to tell


def test_one_outlier_of_rewards_sets_no_goal_for_what_is_learned() -> None:
    row = np.arange(N)
    for read in (row >= 0, row % 4 == 3):  # ten rows are the fewest of which anything is told
        for gain, told in ((5.0, []), (0.0, ["no_learning"])):
            spiked = np.where(row == 19, 6_000.0, -6.0 + gain * RISE + 0.05 * NOISE)
            for known in ({"baselines": {"random": {"return": -6.0}}}, {}):
                assert names(("charts/return", WHOLE, np.where(read, spiked, np.nan)), **known) == told


def test_competing_teams_need_not_rise() -> None:
    game = spec()
    other = game["groups"][0] | {"name": "other", "team": "others", "agents": ["agent_2"]}
    assert names(("charts/return", WHOLE, 0.02 * NOISE), spec=game | {"groups": [*game["groups"], other]}) == []


def test_few_evaluations_leave_the_curve_to_training_episodes() -> None:
    few = ("eval/return", WHOLE, np.where(np.arange(N) % 6 == 0, 1.0 * RISE, np.nan))
    assert names(few, ("charts/return", AGENT, 0.02 * NOISE)) == ["no_learning"]


def test_collapse_divergence_and_what_is_no_number() -> None:
    fell = np.where(np.arange(N) < 25, RISE, 0.1) + 0.01 * NOISE
    assert "collapse_after_peak" in names(("charts/return", WHOLE, fell))
    grown = ("losses/critic", WHOLE, np.exp(np.linspace(0.0, 6.0, N)))
    assert names(grown) == ["diverging_loss"]
    assert names(("losses/critic", WHOLE, stepped(100.0, 1.0))) == []
    assert names(("non_finite", {"group": "agent", "network": "actor"}, stepped(0.0, 0.1))) == ["non_finite"]


def test_identical_agents_are_a_whole_group() -> None:
    other = AGENT | {"agent": "agent_1"}
    assert names(("equal_actions", AGENT, 1.0), ("equal_actions", other, 1.0)) == ["identical_agents"]
    assert names(("equal_actions", AGENT, 1.0), ("equal_actions", other, 0.6)) == []


def test_oscillation_is_a_cycle_that_is_large() -> None:
    waves = np.sin(np.arange(N) * 2 * np.pi / 5)
    assert "oscillation" in names(("charts/return", WHOLE, 2 * RISE + waves))
    assert "oscillation" not in names(("charts/return", WHOLE, 30 * RISE + 0.02 * waves))


def test_no_learning_is_no_matter_while_the_return_is_on_its_way_up() -> None:
    known = {"baselines": {"random": {"return": 0.0}}, "total_steps": 3 * N * EVERY // 2}
    dip = np.concatenate([np.linspace(0.0, -9.0, N // 2), np.linspace(-9.0, -3.0, N - N // 2)]) + 0.1 * NOISE
    assert "no_learning" not in names(("charts/return", WHOLE, dip), **known)
    assert "no_learning" in names(("charts/return", WHOLE, dip), **(known | {"total_steps": N * EVERY}))
    assert "no_learning" in names(("charts/return", WHOLE, -9.0 + 0.1 * NOISE), **known)


def test_collapse_is_told_late_enough_and_of_what_is_still_down() -> None:
    fell = stepped(10.0, 0.0) + 0.1 * NOISE
    known = {"baselines": {"random": {"return": 0.0}}}
    assert "collapse_after_peak" in names(("charts/return", WHOLE, fell), **known)
    assert names(("charts/return", WHOLE, fell), **known, total_steps=10 * N * EVERY) == []
    back = np.where(np.arange(N) == N - 1, 10.0, fell)
    assert "collapse_after_peak" not in names(("charts/return", WHOLE, back), **known)


def test_repetition_that_pays_is_seen_and_no_trouble() -> None:
    known = {"baselines": {"random": {"return": 0.0}, "best_constant": {"return": 5.0}}}
    same = stuck()[1:]
    pays = case(("charts/return", WHOLE, 5.0 + 0.1 * NOISE), *same, **known)
    assert [symptom.name for symptom in symptoms(pays)] == ["repeated_action"]
    assert troubles(pays) == ()
    assert not fails(pays)
    poor = case(("charts/return", WHOLE, 2.0 + 0.1 * NOISE), *same, **known)
    assert fails(poor, "repeated_action")
    assert not fails(poor, "oscillation")


def test_a_loss_that_grows_with_the_return_is_seen_and_no_trouble() -> None:
    grown = ("losses/critic", WHOLE, np.exp(np.linspace(-6.0, -3.0, N)))
    rising = ("charts/return", WHOLE, RISE + 0.03 * NOISE)
    facts: list[dict[str, Any]] = [{"baselines": {"random": {"return": 0.1}}}, {"baselines": {}}, {"spec": None}]
    for known in facts:
        thriving = case(grown, rising, **known)
        assert [symptom.name for symptom in symptoms(thriving)] == ["diverging_loss"]
        assert troubles(thriving) == ()


def test_a_loss_that_grows_while_the_return_does_not_is_trouble() -> None:
    losses = np.exp(np.linspace(0.0, 3.5, N)), stepped(1.0, np.inf)
    grown, infinite = (("losses/critic", WHOLE, values) for values in losses)
    falls = np.where(np.arange(N) < 20, RISE, RISE[20] - 0.25 * np.linspace(0.0, 1.0, N)) + 0.01 * NOISE
    facts: list[dict[str, Any]] = [{"baselines": {"random": {"return": 0.0}}}, {"baselines": {}}]
    for known in facts:
        for returns in (0.03 * NOISE, falls, -RISE + 0.03 * NOISE):
            assert fails(case(grown, ("charts/return", WHOLE, returns), **known), "diverging_loss")
        assert fails(case(infinite, ("charts/return", WHOLE, RISE), **known), "diverging_loss")
        assert fails(case(grown, **known), "diverging_loss")  # nothing is known of returns
