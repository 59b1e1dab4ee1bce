"""Faults of PPO's own, on recordings made of columns: what is found, and what only looks like it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from marl_stable.monitor.case import CAUSES, Case, findings
from marl_stable.monitor.causes import ppo
from marl_stable.monitor.recording import Recording
from marl_stable.monitor.table import Column

N, PER = 40, 1_000  # readings, and steps between them
FAILED, LEARNED = np.full(N, -10.0), np.linspace(-10, 0, N)
LATE = np.arange(N) >= 20
BOX = {"low": [-1.0, -1.0], "high": [1.0, 1.0]}


def case(series: dict[str, Any], returns: Any = FAILED, action: Any = None, **config: Any) -> Case:
    """A recording of signals of one agent, or of its group where the name has a slash, and returns."""
    group, agent = (("group", "team"),), (("group", "team"), ("agent", "a"))
    columns = {Column(name, group if "/" in name else agent): values + np.zeros(N) for name, values in series.items()}
    columns[Column("charts/return", ())] = returns
    facts = {
        "total_steps": N * PER,
        "baselines": {"random": {"return": -10.0, "ci95": [-10.1, -9.9]}},
        "spec": {"groups": [{"name": "team", "agents": ["a"], "team": "team", "action": action or {"n": 5}}]},
    }
    settings = {"algo.normalize_value": True} | {f"algo.{key}": value for key, value in config.items()}
    return Case(Recording(PER * np.arange(1, N + 1), columns), settings, facts)


# ---- ratios


def test_ratios_that_are_off_before_the_first_step_are_a_bug_whatever_the_return() -> None:
    hits = ppo.ratio_explosion(case({"first_ratio": np.where(LATE, 0.3, 3e-7)}, LEARNED))
    assert (hits[0].onset_steps, hits[0].confidence) == (21 * PER, 0.95)
    assert hits[0].where == {"agent": "a"}
    assert hits[0].evidence["first_ratio"] == pytest.approx(0.3)


def test_rounding_and_single_readings_and_batchnorm_are_no_ratio_explosion() -> None:
    assert ppo.ratio_explosion(case({"first_ratio": 1e-4})) == []
    assert ppo.ratio_explosion(case({"first_ratio": np.where(np.arange(N) == 5, 0.3, 0.0)})) == []
    batch = {"network.norm": "batch"}
    assert ppo.ratio_explosion(case({"first_ratio": 0.3}, **batch)) == []


def test_few_samples_that_count_are_doubtful_and_only_told_of_in_a_run_that_fails() -> None:
    seen = {"first_ratio": 0.0, "effective_samples": np.where(LATE, 0.1, 0.98)}
    hits = ppo.ratio_explosion(case(seen))
    assert hits[0].onset_steps == 21 * PER
    assert hits[0].confidence < 0.5
    assert ppo.ratio_explosion(case(seen, LEARNED)) == []
    assert ppo.ratio_explosion(case(seen | {"effective_samples": 0.9})) == []


# ---- units of values


def values(bias: Any) -> dict[str, Any]:
    """Returns of -20 with a deviation of 4, and values `bias` deviations above them."""
    return {"value_mean": -20 + 4 * (bias + np.zeros(N)), "return_mean": -20.0, "return_std": 4.0, "first_ratio": 0.0}


@pytest.mark.parametrize(("bias", "side"), [(1.3, "above"), (-5.0, "below")])
def test_values_that_stay_beside_the_returns_come_back_from_their_units_wrong(bias: float, side: str) -> None:
    hits = ppo.value_normalisation(case(values(bias), LEARNED))
    assert hits[0].onset_steps == 0
    assert hits[0].evidence["bias_over_return_std"] == pytest.approx(abs(bias))
    assert hits[0].says is not None
    assert side in hits[0].says
    late = ppo.value_normalisation(case(values(np.where(np.arange(N) >= 15, bias, 0.1))))
    assert late[0].onset_steps == 16 * PER


@pytest.mark.parametrize(
    "bias",
    [
        2 * np.exp(-np.arange(N) / 8),  # warming up
        4 * np.exp(-np.arange(N) / 30),  # slowly
        0.4,
        1.2 * np.where(np.arange(N) % 2 == 0, 1, -1),
    ],
)
def test_values_that_come_closer_or_were_never_far_are_healthy(bias: Any) -> None:
    assert ppo.value_normalisation(case(values(bias))) == []


def test_a_bias_has_other_reasons_where_nothing_is_normalised_or_values_make_no_sense_or_pay_has_changed() -> None:
    off = {"normalize_value": False}
    assert ppo.value_normalisation(case(values(1.3), **off)) == []
    assert ppo.value_normalisation(case(values(1.3) | {"explained_variance": 0.3}))
    assert ppo.value_normalisation(case(values(1.3) | {"explained_variance": -3.0})) == []
    noise = 0.01 * np.random.default_rng(0).standard_normal(N)
    shifted = values(np.where(LATE, 1.3, 0.0)) | {"reward_mean": np.where(LATE, 3.0, -1.0) + noise}
    assert ppo.value_normalisation(case(shifted)) == []


# ---- entropy


def test_a_policy_without_randomness_that_is_no_good_has_collapsed_since_then() -> None:
    nats = {"losses/entropy": np.where(LATE, 0.01, 1.5)}
    hits = ppo.entropy_collapse(case(nats))
    assert (hits[0].onset_steps, hits[0].where) == (21 * PER, {"group": "team"})
    assert ppo.entropy_collapse(case(nats, LEARNED)) == []  # it has learned, and decided
    assert ppo.entropy_collapse(case({"losses/entropy": 0.5})) == []


@pytest.mark.parametrize(
    ("config", "advised"),
    [
        ({"algo.entropy_coef": 0.01}, {"algo.entropy_coef": 0.03}),
        ({"algo.entropy_coef": 0.05}, {"algo.entropy_coef": 0.1}),
        ({"algo.entropy_coef": 0.1, "algo.lr": 1e-3}, {"algo.lr": 3e-4}),
        ({"algo.entropy_coef": 0.1}, {}),
        ({}, {"algo.entropy_coef": 0.03}),
    ],
)
def test_a_collapsed_policy_is_given_a_larger_bonus_or_where_that_is_large_smaller_steps(
    config: dict[str, Any], advised: dict[str, Any]
) -> None:
    known = replace(case({"losses/entropy": np.where(LATE, 0.01, 1.5)}), config=config)
    (found,) = findings(known, CAUSES["entropy_collapse"])
    assert found.config == pytest.approx(advised)
    assert "lower the learning rate" in found.remedy.lower()


def test_a_gaussian_has_collapsed_where_its_deviations_have() -> None:
    nats = 2 * (-4.5 + 0.5 * math.log(2 * math.pi * math.e))
    assert ppo.entropy_collapse(case({"losses/entropy": nats}, action=BOX))
    assert ppo.entropy_collapse(case({"losses/entropy": nats + 4}, action=BOX)) == []


@pytest.mark.parametrize(
    ("action", "most"), [({"n": 5}, math.log(5)), ({"n": [2, 8]}, math.log(16)), (BOX, math.log(4))]
)
def test_a_policy_as_random_as_can_be_to_the_end_that_learns_nothing_has_exploded(action: Any, most: float) -> None:
    hits = ppo.entropy_explosion(case({"losses/entropy": most - 0.01}, action=action))
    assert hits[0].onset_steps == 0
    assert hits[0].confidence == 0.5
    strong = ppo.entropy_explosion(case({"losses/entropy": most - 0.01}, action=action, entropy_coef=1.0))
    assert strong[0].confidence == 0.7
    assert ppo.entropy_explosion(case({"losses/entropy": most - 0.01}, LEARNED, action)) == []
    assert ppo.entropy_explosion(case({"losses/entropy": most - 0.3}, action=action)) == []


def test_an_unsquashed_gaussian_has_no_most_random_answer_but_deviations_can_be_too_wide() -> None:
    free = {"squash": False}
    assert ppo.entropy_explosion(case({"losses/entropy": 5.0}, action=BOX, **free)) == []
    hits = ppo.entropy_explosion(
        case({"losses/entropy": 5.0, "log_std": np.where(LATE, 1.6, -0.5)}, action=BOX, **free)
    )
    assert hits[0].evidence["std"] == pytest.approx(math.exp(1.6))
    assert hits[0].onset_steps == 21 * PER


def test_values_behind_returns_that_run_away_from_them_are_on_their_way() -> None:
    came = np.linspace(-9.0, 3.0, N)
    seen = {"value_mean": came - 1.0, "return_mean": came, "return_std": 1.0, "first_ratio": 0.0}
    assert ppo.value_normalisation(case(seen, LEARNED)) == []
    assert ppo.value_normalisation(case(seen | {"value_mean": came + 1.0}, LEARNED))  # before them


def test_a_policy_without_randomness_that_gained_nothing_needs_no_further_symptom() -> None:
    little = np.linspace(-10, -9.8, N) + 0.3 * np.sin(np.arange(N))
    assert ppo.entropy_collapse(case({"losses/entropy": 0.01}, little))


def weighing(weight: Any, nats: Any, returns: Any = LEARNED) -> Case:
    """A run whose entropy has this weight beside advantages."""
    known = case({"losses/entropy": nats}, returns)
    column = {Column("entropy_weight", (("group", "team"),)): weight + np.zeros(N)}
    return replace(known, recording=known.recording.joined(Recording(known.recording.steps, column)))


def test_an_entropy_that_is_charged_for_is_named_whatever_the_return() -> None:
    (hit,) = ppo.entropy_collapse(weighing(np.where(LATE, -0.1, 0.01), np.where(LATE, 0.2, 1.4)))
    assert (hit.where, hit.onset_steps, hit.evidence) == ({"group": "team"}, 21 * PER, {"weight": -0.1})
    assert ppo.entropy_collapse(weighing(0.01, np.where(LATE, 0.2, 1.4))) == []


def test_an_entropy_that_outweighs_advantages_is_named_where_it_shows() -> None:
    kept = math.log(5) - 0.01
    (hit,) = ppo.entropy_explosion(weighing(10.0 * np.linspace(1, 0, N), np.where(np.arange(N) < 37, kept, 1.5)))
    assert (hit.where, hit.onset_steps) == ({"group": "team"}, 0)
    (hit,) = ppo.entropy_explosion(weighing(np.where(LATE, 1.0, 0.01), np.where(LATE, 1.5, 1.2)))
    assert hit.onset_steps == 21 * PER
    assert ppo.entropy_explosion(weighing(0.01, kept)) == []
    assert ppo.entropy_explosion(weighing(1.0, np.linspace(1.6, 0.5, N))) == []  # it decides all the same
