"""Steps that are too long or too short, on recordings made of columns: what is found, and what only looks like it."""

from __future__ import annotations

import numpy as np
import pytest

from marl_stable.monitor.causes import rates
from tests.monitor.causes.steps import FAILED, LAYERS, LEARNED, PER, N, case, moving

LEVELS = {"charts/return": -10 * np.exp(-np.arange(N) / 4)}  # learned, and done with it


def test_weights_replaced_in_an_iteration_are_a_rate_too_high_and_the_remedy_is_one_digit() -> None:
    columns = moving(0.02) | {("layer_weight", name): 0.6 for name in LAYERS}
    for name, first in zip(LAYERS, (0.95, 0.97, 0.99), strict=True):  # as far for each, from different sizes
        columns["layer_change", name] = np.where(np.arange(N) < 1, first, 0.02)
    hits = rates.learning_rate_too_high(case(columns | FAILED))
    assert hits[0].onset_steps == 0
    assert hits[0].confidence == 0.9
    assert hits[0].evidence["step_over_weights"] == pytest.approx(0.11, rel=0.1)
    assert hits[0].config == {"algo.lr": 1e-4}


def test_adams_word_counts_where_it_lasts_and_the_networks_own_rate_is_the_one_to_lower() -> None:
    said = np.where(np.arange(N) >= 20, 0.3, 0.005)
    columns = moving(0.05) | FAILED
    own = {"algo.actor_lr": 0.1}
    hits = rates.learning_rate_too_high(case(columns | {"update_ratio": said}, own))
    assert hits[0].onset_steps == 22 * PER
    assert hits[0].config == {"algo.actor_lr": 1e-3}
    once = np.where(np.arange(N) == 20, 0.3, 0.005)
    assert rates.learning_rate_too_high(case(columns | {"update_ratio": once})) == []


def test_large_steps_of_a_run_that_learns_are_no_fault_unless_each_update_replaces_the_policy() -> None:
    change = moving(0.99) | LEARNED
    weight = {("layer_weight", name): size for name, size in zip(LAYERS, (0.6, 0.5, 0.8), strict=True)}
    assert rates.learning_rate_too_high(case(change | weight)) == []
    assert rates.learning_rate_too_high(case(change | weight | {"losses/approx_kl": 5.0}))[0].confidence == 0.6


def test_weights_that_all_grew_by_one_factor_were_not_moved_by_gradients() -> None:
    change = np.full(N, 0.02)
    change[0] = 0.9
    assert rates.learning_rate_too_high(case(moving(change, weight=1.5) | FAILED)) == []


def test_healthy_steps_are_neither_too_large_nor_too_small() -> None:
    healthy = moving(np.linspace(0.2, 1e-4, N)) | {"update_ratio": np.linspace(0.015, 1e-6, N)} | FAILED
    assert rates.learning_rate_too_high(case(healthy)) == []
    assert rates.learning_rate_too_low(case(healthy)) == []


def test_weights_that_went_nowhere_are_a_rate_too_low() -> None:
    hits = rates.learning_rate_too_low(case(moving(2e-4) | FAILED, {"algo.lr": 4e-6}))
    assert (hits[0].confidence, hits[0].onset_steps) == (0.85, 0)
    assert hits[0].evidence["travelled"] == pytest.approx(N * 2e-4, rel=0.01)
    assert hits[0].config == {"algo.lr": pytest.approx(2e-3)}
    one_each = {"algo.update_epochs": 1, "algo.num_minibatches": 1, "algo.lr": 1e-3}  # few steps, which look usual
    assert rates.learning_rate_too_low(case(moving(4e-3) | FAILED, one_each))[0].config == {"algo.lr": 2e-3}
    assert rates.learning_rate_too_low(case(moving(2e-4) | LEVELS))[0].confidence == 0.7
    assert rates.learning_rate_too_low(case(moving(1.5e-3) | LEVELS)) == []


def test_where_the_return_rises_all_the_short_way_that_weights_have_gone_the_rate_is_too_low() -> None:
    assert rates.learning_rate_too_low(case(moving(4e-3) | LEARNED))[0].confidence == 0.85
    slower = np.linspace(8e-3, 0, N)  # under a schedule the last steps are small, and so is what they bring
    columns = moving(slower) | {"charts/return": -10 + 60 * np.cumsum(slower)}
    assert rates.learning_rate_too_low(case(columns))[0].onset_steps == 0
    assert rates.learning_rate_too_low(case(moving(6e-3) | LEARNED)) == []  # that far is a way
    assert rates.learning_rate_too_low(case(moving(4e-3) | LEVELS)) == []


def test_few_episodes_are_enough_where_what_came_of_them_is_no_better_than_chance() -> None:
    few = np.where(np.arange(N) % 8 == 7, -10.0, np.nan)
    assert rates.learning_rate_too_low(case(moving(4e-3) | {"charts/return": few}))[0].confidence == 0.85


@pytest.mark.parametrize(
    "held",
    [{"skipped": 1.0}, {"non_finite": 0.9}, {"adam_memory": 1e-4}, {"update_ratio": 1e-9}],
)
def test_weights_that_something_else_holds_are_no_rate_too_low(held: dict[str, float]) -> None:
    assert rates.learning_rate_too_low(case(moving(2e-4) | FAILED | held)) == []


def test_nothing_is_said_of_a_rate_too_low_in_the_first_quarter_of_a_run() -> None:
    assert rates.learning_rate_too_low(case(moving(2e-4) | FAILED, total=10 * N * PER)) == []


def test_steps_that_all_but_stop_are_a_rate_too_low_since_then() -> None:
    change = np.where(np.arange(N) >= 20, 2e-5, 0.02)
    hits = rates.learning_rate_too_low(case(moving(change) | LEARNED | {"grad_norm": 1.0}))
    assert (hits[0].onset_steps, hits[0].confidence) == (21 * PER, 0.7)
    assert hits[0].says is not None
    quiet = {"grad_norm": np.where(np.arange(N) >= 20, 1e-4, 1.0)}  # it is the gradients that have gone
    assert rates.learning_rate_too_low(case(moving(change) | LEARNED | quiet)) == []
    schedule = moving(0.02 * np.linspace(1.0, 1 / N, N))
    assert rates.learning_rate_too_low(case(schedule | LEARNED | {"grad_norm": 1.0})) == []
