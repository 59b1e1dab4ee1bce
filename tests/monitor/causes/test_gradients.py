"""Faults of gradients, on recordings made of columns: what is found, and what only looks like it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from marl_stable.monitor.causes import gradients
from tests.monitor.causes.steps import FAILED, LEARNED, ONCE, PER, N, case, moving


def spiked(height: float, memory: float = 1.0, at: int = 20, count: int = 1) -> dict[Any, Any]:
    """Gradients of 0.3 with peaks of `height` at `count` readings, and what Adam remembers of gradients after them."""
    peak, left = 0.3 * ONCE, ONCE.copy()
    peak[at : at + count] = height
    left[at + 1 : at + 8] = memory
    return {"grad_norm_peak": peak, "grad_norm": 0.3, "adam_memory": left}


# ---- spikes


def test_a_spike_that_stuns_adam_is_named_where_it_was() -> None:
    hits = gradients.exploding_gradients(case(spiked(1e6, memory=1e-3) | LEARNED))
    assert [(hit.onset_steps, hit.confidence) for hit in hits] == [(21 * PER, 0.8)]
    assert hits[0].where == {"group": "team", "network": "actor"}
    assert hits[0].evidence["memory"] == pytest.approx(1e-3)


def test_a_spike_is_surer_in_a_run_that_fails_and_doubtful_where_adam_is_well() -> None:
    assert gradients.exploding_gradients(case(spiked(1e6, memory=1e-3) | FAILED))[0].confidence > 0.9
    assert gradients.exploding_gradients(case(spiked(1e6) | FAILED))[0].confidence < 0.5


@pytest.mark.parametrize(
    "columns",
    [
        spiked(1e6) | LEARNED,  # clipped, and no harm done
        spiked(10.0, memory=1e-3) | FAILED,  # no spike
        spiked(1e6, memory=1e-3, count=20) | FAILED,  # a level that lasts
        spiked(1e6, memory=1e-3, at=1) | FAILED,  # first lessons
        {"grad_norm_peak": np.geomspace(3, 1e-6, N), "grad_norm": 1e-3, "adam_memory": 0.01} | LEARNED,
    ],
)
def test_no_spike_where_none_does_harm(columns: dict[Any, Any]) -> None:
    assert gradients.exploding_gradients(case(columns)) == []


def test_where_all_is_learned_any_lesson_stands_out_and_is_no_spike() -> None:
    peak = np.geomspace(5, 1e-4, N)
    peak[-5] = 4.0
    quiet = {"grad_norm_peak": peak, "grad_norm": peak / 2, "adam_memory": 0.01}
    assert gradients.exploding_gradients(case(quiet | FAILED)) == []


# ---- depth


def graded(first: float, frozen: float) -> dict[Any, Any]:
    """Gradients of layers from input to output, and the share of weights below Adam's floor."""
    return {("layer_grad", "hidden.0"): first, ("layer_grad", "hidden.1"): 1e-3, ("layer_grad", "final"): 1e-2} | {
        "eps_frozen": frozen
    }


@pytest.mark.parametrize(("first", "frozen"), [(1e-6, 0.0), (1e-3, 0.95)])
def test_gradients_that_do_not_reach_the_first_layers_have_vanished(first: float, frozen: float) -> None:
    still = {"update_ratio": 1e-7, ("layer_weight", "final"): 0.1}
    hits = gradients.vanishing_gradients(case(graded(first, frozen) | still | FAILED))
    assert hits[0].where == {"group": "team", "network": "actor"}
    assert hits[0].onset_steps == 0
    assert hits[0].evidence["eps_frozen"] == frozen


@pytest.mark.parametrize(
    "more",
    [
        LEARNED,  # no harm
        FAILED | {"dormant": 0.9},  # dead units
        moving(1e-4) | {"update_ratio": 1e-3} | FAILED,  # steps too short
    ],
)
def test_what_looks_like_vanished_gradients_is_told_apart(more: dict[Any, Any]) -> None:
    assert gradients.vanishing_gradients(case(graded(1e-6, 0.95) | more)) == []


def test_healthy_depths_have_not_vanished() -> None:
    assert gradients.vanishing_gradients(case(graded(4e-4, 0.06) | FAILED)) == []
    constant_features = {"update_ratio": 3e-3, ("layer_weight", "final"): 0.1}
    assert gradients.vanishing_gradients(case(graded(4e-4, 0.7) | constant_features | FAILED)) == []


# ---- memory


def remembering(weight: Any, gradient: Any) -> dict[Any, Any]:
    """A recurrent actor whose memory has these weights and gradients."""
    names = ("hidden.0", "hidden.1", "recurrent.input", "recurrent.memory", "final")
    columns = moving(0.05, layers=names) | {("layer_grad", name): 1e-3 for name in names}
    return columns | {("layer_weight", gradients.MEMORY): weight, ("layer_grad", gradients.MEMORY): gradient}


@pytest.mark.parametrize(("weight", "gradient"), [(2.0, 5e-4), (0.12, 5e-2)])
def test_memory_that_grows_from_step_to_step_is_named(weight: float, gradient: float) -> None:
    late = np.arange(N) >= 25
    columns = remembering(np.where(late, weight, 0.12), np.where(late, gradient, 5e-4))
    hits = gradients.recurrent_gradients(case(columns | FAILED))
    assert hits[0].onset_steps == 26 * PER
    assert hits[0].where["layer"] == "recurrent.memory"
    assert gradients.recurrent_gradients(case(columns | LEARNED)) == []


def test_only_the_weights_of_memory_count() -> None:
    assert gradients.recurrent_gradients(case(remembering(0.12, 5e-4) | FAILED)) == []
    assert gradients.recurrent_gradients(case(moving(0.05, weight=2.0) | {("layer_grad", "final"): 1.0} | FAILED)) == []


@pytest.mark.parametrize(("first", "told"), [(4e-2, True), (2e-3, False)])
def test_a_large_memory_is_told_of_in_a_run_that_learns_where_gradients_grow_on_their_way_back(
    first: float, told: bool
) -> None:
    columns = remembering(2.0, 5e-4) | {("layer_grad", "hidden.0"): first, ("layer_grad", "final"): 1e-2} | LEARNED
    assert bool(gradients.recurrent_gradients(case(columns))) == told
    usual = columns | {("layer_weight", gradients.MEMORY): 0.12}
    assert gradients.recurrent_gradients(case(usual)) == []
