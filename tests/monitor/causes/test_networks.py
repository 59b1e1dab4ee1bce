"""Faults of networks, on recordings made of columns: what is found, and what only looks like it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from marl_stable.monitor.case import Case
from marl_stable.monitor.causes import networks
from marl_stable.monitor.recording import Recording
from marl_stable.monitor.table import Column

N, PER = 30, 1_000  # readings, and steps between them
FAILED, LEARNED = np.full(N, -10.0), np.linspace(-10, 0, N)
BATCH = {"algo.network.norm": "batch"}


def case(series: dict[str, Any], place: dict[str, Any], returns: Any = FAILED, **config: Any) -> Case:
    """A recording of signals at one place, and returns."""
    columns = {Column(name, tuple(place.items())): values + np.zeros(N) for name, values in series.items()}
    columns[Column("charts/return", ())] = returns
    settings = {"algo.network.hidden": [64, 64], "algo.network.norm": "layer"} | {
        f"algo.{key}": value for key, value in config.items()
    }
    facts = {"total_steps": N * PER, "baselines": {"random": {"return": -10.0, "ci95": [-10.1, -9.9]}}}
    return Case(Recording(PER * np.arange(1, N + 1), columns), settings, facts)


def at(layer: str) -> dict[str, Any]:
    return {"group": "team", "network": "actor", "layer": layer}


def test_a_last_layer_that_is_far_too_large_is_named_since_when_it_is() -> None:
    weight = np.where(np.arange(N) >= 20, 1.7, 0.1)
    hits = networks.activation_growth(case({"layer_weight": weight}, at("final")))
    assert hits[0].where == at("final")
    assert hits[0].onset_steps == 21 * PER
    assert hits[0].evidence["gain"] == pytest.approx(8 * 1.7)


@pytest.mark.parametrize(
    ("layer", "norm", "found"), [("hidden.1", "none", 1), ("hidden.1", "layer", 0), ("hidden.0", "none", 0)]
)
def test_hidden_layers_count_where_no_norm_follows_and_their_inputs_are_known(
    layer: str, norm: str, found: int
) -> None:
    given = case({"layer_weight": 1.7}, at(layer), **{"network.norm": norm})
    assert len(networks.activation_growth(given)) == found


def test_large_weights_are_told_of_where_few_episodes_say_no_more_than_that_they_did_not_help() -> None:
    few = np.where(np.arange(N) % 6 == 5, -10.0, np.nan)
    assert len(networks.activation_growth(case({"layer_weight": 1.7}, at("final"), few))) == 1
    assert networks.activation_growth(case({"layer_weight": 0.3}, at("final"), few)) == []


def test_neither_healthy_weights_nor_a_run_that_does_well_are_told_of() -> None:
    assert networks.activation_growth(case({"layer_weight": 0.3}, at("final"))) == []
    assert networks.activation_growth(case({"layer_weight": 1.7}, at("final"), LEARNED)) == []


def test_actions_far_beyond_their_bounds_are_growth_unless_nothing_squashes_them_or_the_run_does_well() -> None:
    place, seen = {"group": "team", "agent": "a", "dimension": 1}, {"preactivation": 9.0, "layer_weight": 0.1}
    hits = networks.activation_growth(case(seen, place))
    assert hits[0].where == {"agent": "a", "dimension": 1}
    assert "9" in str(hits[0].evidence["size"])
    assert networks.activation_growth(case(seen, place, squash=False)) == []
    assert networks.activation_growth(case(seen, place, LEARNED)) == []  # plays the bounds, and should
    assert networks.activation_growth(case(seen | {"preactivation": 3.0}, place)) == []


def test_dormant_units_are_told_of_where_most_sleep_and_the_run_fails() -> None:
    hits = networks.dormant_units(case({"dormant": np.where(np.arange(N) > 9, 0.9, 0.1)}, at("hidden.1")))
    assert hits[0].onset_steps == 11 * PER
    assert hits[0].evidence == {"dormant": 0.9}
    assert networks.dormant_units(case({"dormant": 0.3}, at("hidden.1"))) == []
    by_and_by = {"dormant": np.linspace(0.0, 1.0, N)}
    assert networks.dormant_units(case(by_and_by, at("hidden.1")))
    assert networks.dormant_units(case(by_and_by, at("hidden.1"), LEARNED)) == []


def test_ratios_before_the_first_step_accuse_batchnorm_where_there_is_some() -> None:
    place, off = {"group": "team", "agent": "a"}, np.where(np.arange(N) >= 10, 0.2, 2e-7)
    hits = networks.batchnorm_mismatch(case({"first_ratio": off}, place, LEARNED, **{"network.norm": "batch"}))
    assert hits[0].onset_steps == 11 * PER
    assert hits[0].evidence["factor"] == pytest.approx(1.2)
    own = {"critic_network.norm": "batch"}
    (hit,) = networks.batchnorm_mismatch(case({"first_ratio": off}, place, **own))
    assert hit.config == {"algo.critic_network.norm": "layer"}
    assert networks.batchnorm_mismatch(case({"first_ratio": off}, place)) == []
    assert networks.batchnorm_mismatch(case({"first_ratio": 5e-7}, place, **own)) == []


def test_many_dormant_units_are_usual_unless_they_fell_asleep_at_once() -> None:
    place = at("hidden.1")
    slowly = np.linspace(0.3, 0.9, N)
    assert networks.dormant_units(case({"dormant": slowly}, place)) == []
    at_once = {"dormant": np.where(np.arange(N) > 9, 0.7, 0.2)}
    assert networks.dormant_units(case(at_once, place))[0].onset_steps == 11 * PER
    assert networks.dormant_units(case({"dormant": np.linspace(0.3, 0.99, N)}, place))
    first_lessons = {"dormant": np.where(np.arange(N) == 0, 0.0, np.where(np.arange(N) == 1, 0.5, 0.9))}
    assert networks.dormant_units(case(first_lessons, place)) == []


@pytest.mark.parametrize("returns", [FAILED, LEARNED])
def test_a_fresh_network_is_awake_whatever_becomes_of_the_run(returns: Any) -> None:
    known = case({"dormant": 0.8}, at("hidden.0"), returns)
    assert networks.dormant_units(known)[0].onset_steps == 0
    for config in ({"init_from": "other"}, {"loop": "own"}):  # weights that are not fresh, or may not be
        assert networks.dormant_units(replace(known, config={**known.config, **config})) == []


def test_fresh_layers_far_from_the_input_may_sleep_where_the_run_does_well() -> None:
    known = case({}, {}, LEARNED)
    columns = {
        Column("dormant", tuple(at(f"hidden.{i}").items())): np.full(N, share) for i, share in ((0, 0.0), (5, 0.6))
    }
    deep = known.recording.joined(Recording(known.recording.steps, columns))
    assert networks.dormant_units(replace(known, recording=deep)) == []


def weights(**layers: Any) -> Case:
    """A run that does well, with the weights of these layers."""
    columns = {Column("layer_weight", tuple(at(name).items())): x + np.zeros(N) for name, x in layers.items()}
    known = case({}, {}, LEARNED)
    return replace(known, recording=known.recording.joined(Recording(known.recording.steps, columns)))


def test_weights_that_leap_as_no_step_moves_them_are_told_of_even_where_the_run_does_well() -> None:
    late = np.arange(N) >= 20
    grown = {name: np.where(late, 3.0, 1.0) * np.linspace(0.12, 0.13, N) for name in ("hidden", "final")}
    (hit,) = networks.activation_growth(weights(**grown))
    assert (hit.where, hit.onset_steps) == ({"group": "team", "network": "actor"}, 21 * PER)
    assert hit.evidence["factor"] == pytest.approx(3, rel=0.01)
    (hit,) = networks.activation_growth(weights(hidden=0.12, final=np.where(late, 2.0, 0.02)))
    assert hit.where["layer"] == "final"


@pytest.mark.parametrize(
    "layers",
    [
        {"hidden": np.where(np.arange(N) >= 1, 0.15, 0.12), "final": np.where(np.arange(N) >= 1, 0.1, 0.002)},
        {"hidden": np.linspace(0.12, 0.5, N), "final": np.linspace(0.12, 0.5, N)},  # alike, but slowly
        {"hidden": np.where(np.arange(N) >= 20, 0.6, 0.12), "final": np.where(np.arange(N) >= 20, 0.5, 0.02)},
    ],
)
def test_weights_that_steps_have_moved_have_not_leapt(layers: dict[str, Any]) -> None:
    assert networks.activation_growth(weights(**layers)) == []


@pytest.mark.parametrize(("weight", "sure"), [(0.4, True), (0.1, False)])
def test_actions_that_began_beyond_their_bounds_come_from_weights_or_from_the_entropy(
    weight: float, sure: bool
) -> None:
    seen = {"losses/entropy": -9.0, "preactivation": 9.0}
    known = case(seen, {"group": "team", "agent": "a", "dimension": 1})
    last = Recording(known.recording.steps, {Column("layer_weight", tuple(at("final").items())): np.full(N, weight)})
    (hit,) = networks.activation_growth(replace(known, recording=known.recording.joined(last)))
    assert (hit.confidence > 0.5) == sure
