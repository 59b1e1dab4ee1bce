"""Faults of what agents see."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.monitor.causes.recordings import AGENT, EVERY, N, case, found, stepped, stuck


def feature(i: int, std: Any, signal: str = "obs_std") -> tuple[str, dict[str, Any], Any]:
    return signal, AGENT | {"feature": i}, std


USUAL = [feature(i, 1.0 + i) for i in range(4)]


def test_feature_that_drowns_the_others_unless_normalised() -> None:
    hit = found("observation_scale", case(*USUAL, feature(4, 1e5)))[0]
    assert hit.where == {"agent": "agent_0", "feature": 4}
    assert hit.onset_steps == 0
    assert not found("observation_scale", case(*USUAL, feature(4, 1e5), config={"algo.normalize_obs": True}))
    assert not found("observation_scale", case(*USUAL, feature(4, 50.0)))


def test_feature_that_changes_its_scale_under_way_even_if_normalised() -> None:
    late = feature(4, stepped(1.0, 1e5))
    hit = found("observation_scale", case(*USUAL, late, config={"algo.normalize_obs": True}))[0]
    assert hit.onset_steps == (N // 2 + 1) * EVERY
    assert hit.where["feature"] == 4
    growing = feature(4, np.geomspace(1.0, 1e3, N))  # what agents explore
    assert not found("observation_scale", case(*USUAL, growing, config={"algo.normalize_obs": True}))


def test_feature_that_stopped_while_others_go_on() -> None:
    hit = found("observation_constant", case(*USUAL, feature(4, stepped(1.0, 0.0))))[0]
    assert hit.onset_steps == (N // 2 + 1) * EVERY
    assert hit.where == {"agent": "agent_0", "feature": 4}
    assert not found("observation_constant", case(*USUAL, feature(4, 0.0)))  # a flag that never changes
    assert not found("observation_constant", case(*USUAL))


def test_agent_that_never_saw_anything_counts_where_the_run_fails() -> None:
    blind = [feature(i, 0.0) for i in range(3)]
    assert found("observation_constant", case(*blind, *stuck()))[0].where == {"agent": "agent_0"}
    assert not found("observation_constant", case(*blind))


def test_observations_that_are_no_numbers() -> None:
    bad = feature(2, np.where(np.arange(N) > 9, 1e-3, 0.0), "obs_non_finite")
    hit = found("observation_non_finite", case(bad, feature(1, 0.0, "obs_non_finite")))[0]
    assert hit.onset_steps == 11 * EVERY
    assert hit.where == {"agent": "agent_0", "feature": 2}
    assert not found("observation_non_finite", case(feature(1, 0.0, "obs_non_finite")))


def test_feature_that_stops_where_somebody_repeats_an_action_is_what_is_seen_of_it() -> None:
    stops = *USUAL, feature(4, stepped(1.0, 0.0))
    assert not found("observation_constant", case(*stops, ("sameness", AGENT, stepped(0.4, 1.0))))
    assert not found("observation_constant", case(*stops, ("losses/entropy", {"group": "agent"}, stepped(1.0, 0.001))))
    assert found("observation_constant", case(*stops, ("sameness", AGENT, 0.4)))
