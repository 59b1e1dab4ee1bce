"""What a run has gained, against play without learning, and whether it is on its way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from marl_stable.monitor.gains import curve, gained, no_better_than_chance, rises, under_way
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
