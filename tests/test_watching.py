"""From an iteration's tensors to its row of figures and its incidents."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from marl_stable.monitor.table import Host
from marl_stable.types import Discrete, EnvSpec, Group
from marl_stable.watching import non_finite_share, non_finite_updates, row_of, skipped_spikes, to_host

NAN, INF = math.nan, math.inf
RED, BLUE = (Group(name, (f"{name}_0", f"{name}_1"), 3, Discrete(2), name) for name in ("red", "blue"))
SPEC = EnvSpec("toy", RED.agents + BLUE.agents, (RED, BLUE))


def found(**groups: Any) -> dict[str, np.ndarray]:
    return {name: np.array(x) for name, x in groups.items()}


def test_all_tensors_come_over_in_their_shapes():
    stats = {
        "x": {"red": torch.arange(6.0).reshape(2, 3), "blue": torch.tensor(7, dtype=torch.int64)},
        "y": {"red": torch.tensor([True, False]), "blue": torch.empty(0)},
        "z": {"red": torch.ones(1, requires_grad=True)},
    }
    host = to_host(stats)
    assert {tag: {group: x.tolist() for group, x in groups.items()} for tag, groups in host.items()} == {
        "x": {"red": [[0, 1, 2], [3, 4, 5]], "blue": 7},
        "y": {"red": [1, 0], "blue": []},
        "z": {"red": [1]},
    }
    assert {x.dtype for groups in host.values() for x in groups.values()} == {np.dtype(np.float64)}


def test_a_tag_is_the_mean_over_all_agents_and_its_parts_those_of_groups():
    row = row_of({"charts/return": found(red=[1.0, 2.0, 3.0], blue=[8.0])})
    assert row == {"charts/return": 3.5, "charts/return/red": 2.0, "charts/return/blue": 8.0}
    assert row_of({"charts/return": found(red=[1.0, 2.0])}) == {"charts/return": 1.5}
    assert row_of({}) == {}


def test_a_curve_shows_where_a_number_was_none():
    row = row_of({"losses/critic": found(red=[1.0, NAN], blue=[INF])})
    assert [str(x) for x in row.values()] == ["nan", "nan", "inf"]


def test_signals_are_told_by_group_and_by_the_mean_or_the_largest_of_their_parts():
    row = row_of(
        {
            "stability/reward_std": found(red=[1.0, 2.0, 3.0], blue=[8.0]),
            "stability/reward_peak": found(red=[1.0, 2.0, 3.0], blue=[8.0]),
            "stability/obs_peak": found(red=[[1.0, NAN], [5.0, 2.0]]),
            "stability/grad_spike/actor": found(red=[0.5]),
        }
    )
    assert row == {
        "stability/reward_std": 5.0,  # groups count alike, however many agents they have
        "stability/reward_std/red": 2.0,
        "stability/reward_std/blue": 8.0,
        "stability/reward_peak": 8.0,
        "stability/reward_peak/red": 3.0,
        "stability/reward_peak/blue": 8.0,
        "stability/obs_peak": 5.0,
        "stability/grad_spike/actor": 0.5,
    }


def test_a_signal_that_was_not_read_has_no_cell():
    row = row_of(
        {
            "stability/reward_std": found(red=[NAN, NAN], blue=[2.0]),
            "stability/reward_peak": found(red=[NAN, INF], blue=[NAN]),
            "stability/entropy": found(red=[NAN], blue=[NAN, 1.0]),
        }
    )
    assert row == {
        "stability/reward_std": 2.0,
        "stability/reward_std/blue": 2.0,
        "stability/reward_peak": INF,
        "stability/reward_peak/red": INF,
    }


@pytest.mark.parametrize("tag", ["non_finite/actor", "skipped/critic", "stunned/actor", "sameness"])
def test_what_becomes_incidents_is_no_figure(tag: str):
    assert row_of({tag: found(red=[1.0])}) == {}
    assert row_of({f"stability/{tag}": found(red=[1.0])}) == {f"stability/{tag}": 1.0}


def test_only_what_was_skipped_beyond_what_was_not_finite_is_a_spike():
    host: Host = {
        "skipped/actor": found(red=[0.5, 0.0], blue=[0.25]),
        "skipped/critic": found(red=[0.75], blue=[0.1 + 0.2, 1.0]),
        "non_finite/actor": found(red=[0.0, 0.0], blue=[0.25]),
        "non_finite/critic": found(red=[0.5], blue=[0.3, 0.0]),
    }
    spikes = skipped_spikes(96, SPEC, host)
    assert [(x.where, x.value) for x in spikes] == [
        ({"network": "actor", "agent": "red_0"}, 0.5),
        ({"network": "critic", "group": "red"}, 0.25),
        ({"network": "critic", "agent": "blue_1"}, 1.0),
    ]
    assert {(x.steps, x.kind, x.action, x.limit) for x in spikes} == {(96, "gradient_spike", "skipped_update", 0.0)}
    refused = non_finite_updates(96, SPEC, host, "none")
    assert [(x.where, x.value, x.kind, x.action) for x in refused] == [
        ({"network": "actor", "group": "blue"}, 0.25, "non_finite_gradient", "none"),
        ({"network": "critic", "group": "red"}, 0.5, "non_finite_gradient", "none"),
        ({"network": "critic", "agent": "blue_0"}, 0.3, "non_finite_gradient", "none"),
    ]
    assert non_finite_share(host) == pytest.approx((0.25 + 0.5 + 0.3) / 6)


def test_without_a_step_there_is_neither_spike_nor_share():
    assert skipped_spikes(0, SPEC, {}) == non_finite_updates(0, SPEC, {}, "none") == []
    assert non_finite_share({}) == 0
    assert skipped_spikes(0, SPEC, {"skipped/actor": found(red=[NAN])}) == []
