"""What a run has gained, against play without learning, and whether it is on its way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from marl_stable.monitor.gains import curve, gained, no_better_than_chance, rises, thrives, under_way
from tests.monitor.causes.recordings import EVERY, NOISE, WHOLE, N, case, spec

BASE = {"baselines": {"random": {"return": 0.0}, "best_constant": {"return": 5.0}}}
DIP = np.concatenate([np.linspace(0.0, -9.0, N // 2), np.linspace(-9.0, -1.0, N - N // 2)])


def returns(values: Any, **facts: Any) -> Any:
    return case(("charts/return", WHOLE, values), **(BASE | facts))


@pytest.mark.parametrize(("level", "gains"), [(9.0, True), (5.0, True), (3.0, False), (0.0, False), (-4.0, False)])
def test_a_gain_is_one_over_random_play_that_no_constant_action_has_as_well(level: float, gains: bool) -> None:
    of = returns(level + 0.1 * NOISE)
    assert gained(of) is gains
    assert no_better_than_chance(of) is not gains


@pytest.mark.parametrize(("error", "gains"), [(0.1, True), (1.0, True), (2.0, False)])
def test_evaluations_of_the_same_episodes_gain_no_more_than_the_baseline_is_known(error: float, gains: bool) -> None:
    random = {"return": 0.0, "ci95": [-1.96 * error, 1.96 * error]}
    assert gained(returns(3.0, baselines={"random": random, "best_constant": None})) is gains
    constant = {"return": 4.5, "ci95": [4.5 - 1.96 * error, 4.5 + 1.96 * error]}
    known = {"random": {"return": 0.0, "ci95": [0.0, 0.0]}, "best_constant": constant}
    assert gained(returns(3.0, baselines=known)) is (error >= 1.0)


def test_nothing_is_said_of_what_is_not_measured_nor_of_competing_teams_nor_early() -> None:
    unknown = returns(9.0 + 0.1 * NOISE, baselines={})
    assert not gained(unknown)
    assert not no_better_than_chance(unknown)
    game = spec()
    others = game["groups"][0] | {"name": "other", "team": "others", "agents": ["agent_2"]}
    two = returns(9.0 + 0.1 * NOISE, spec=game | {"groups": [*game["groups"], others]})
    assert not gained(two)
    assert not no_better_than_chance(two)
    assert not no_better_than_chance(returns(0.1 * NOISE, total_steps=10 * N * EVERY))


def test_a_return_that_was_lower_is_on_its_way_while_the_run_is() -> None:
    assert rises(returns(DIP + 0.1 * NOISE, total_steps=2 * N * EVERY))
    assert not rises(returns(DIP + 0.1 * NOISE))
    assert not rises(returns(-9.0 + 0.1 * NOISE, total_steps=2 * N * EVERY))
    assert not under_way(returns(DIP))
    assert not under_way(returns(DIP, total_steps=None))


def test_a_curve_is_of_training_only_where_that_has_more_readings() -> None:
    few = np.where(np.arange(N) % 7 == 6, 1.0, np.nan)  # five evaluations
    rare = np.where(np.arange(N) % 20 == 19, 2.0, np.nan)  # long episodes: two have ended
    assert len(curve(case(("eval/return", WHOLE, few), ("charts/return", WHOLE, rare)))[0]) == 5
    assert len(curve(case(("eval/return", WHOLE, few), ("charts/return", WHOLE, 1.0)))[0]) == N


@pytest.mark.parametrize("rows", [3, 4, 10, N])
def test_one_outlier_is_no_goal_from_which_a_gain_is_measured(rows: int) -> None:
    rising = 5.0 + np.linspace(1.0, 4.0, N) + 0.05 * NOISE
    spiked = np.where(np.arange(N) == 1, 6_000.0, rising)
    assert gained(returns(np.where(np.arange(N) < rows, spiked, np.nan)))


WAYS = {
    "up": (RISING := 9.0 * (1 - np.exp(-np.arange(N) / 8.0)), True),
    "up and down a little": (np.where(np.arange(N) < 30, RISING, 6.5), False),
    "down": (9.0 - RISING, False),
    "nowhere": (0.0 * RISING, False),
}


@pytest.mark.parametrize("known", [{}, {"baselines": {}}])
@pytest.mark.parametrize("way", WAYS)
def test_what_thrives_is_above_its_beginning_and_as_high_as_ever(way: str, known: dict[str, Any]) -> None:
    values, well = WAYS[way]
    assert thrives(returns(values + 0.1 * NOISE, **known)) is well


def test_what_is_good_from_the_first_reading_thrives_only_where_chance_is_known_to_be_worse() -> None:
    assert thrives(returns(9.0 + 0.1 * NOISE))
    assert not thrives(returns(9.0 + 0.1 * NOISE, baselines={}))
    assert not thrives(returns(np.where(np.arange(N) < 9, RISING, np.nan), baselines={}))  # too few to say
    assert not thrives(case())
    game = spec()
    others = game["groups"][0] | {"name": "other", "team": "others", "agents": ["agent_2"]}
    assert not thrives(returns(RISING, spec=game | {"groups": [*game["groups"], others]}))
