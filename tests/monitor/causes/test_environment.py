"""Faults between agents and their environment, and games that look like them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.monitor.causes.recordings import AGENT, EVERY, N, case, found, spec, stepped, stuck

ENDS = ("ends_terminated", {"group": "agent"}, 1.0), ("ends_length_std", {"group": "agent"}, 0.0)


def seen(**figures: Any) -> dict[str, Any]:
    return {"ends": {"longest": 25}, "observations": {"agent_0": {"clock": []}}} | figures


def test_time_limit_is_an_end_at_one_length_that_nobody_can_see_coming() -> None:
    assert found("time_limit_as_termination", case(*ENDS, preflight=seen()))[0].onset_steps == 0
    assert found("time_limit_as_termination", case(*ENDS))
    for excuse in ({"ends": {"longest": 2}}, {"observations": {"agent_0": {"clock": [3]}}}):
        assert not found("time_limit_as_termination", case(*ENDS, preflight=seen(**excuse)))
    assert not found("time_limit_as_termination", case(*ENDS, spec=spec() | {"turn_based": True}))
    assert not found("time_limit_as_termination", case(ENDS[0], ("ends_length_std", {"group": "agent"}, 6.0)))
    assert not found("time_limit_as_termination", case(("ends_terminated", {"group": "agent"}, 0.5), ENDS[1]))


@pytest.mark.parametrize("kind", ["zero_width", "infinite", "mismatch"])
def test_range_is_judged_before_the_first_step(kind: str) -> None:
    usual: dict[str, list[int]] = {"zero_width": [], "infinite": [], "mismatch": []}
    hit = found("action_range_mismatch", case(preflight={"range": {"agent": usual | {kind: [1]}}}))[0]
    assert hit.where == {"group": "agent", "dimension": 1}
    assert not found("action_range_mismatch", case(preflight={"range": {"agent": usual}}))


def test_range_is_judged_by_what_bounds_cut_off() -> None:
    cut = ("bound_clipped", AGENT | {"dimension": 0}, 0.8)
    assert found("action_range_mismatch", case(cut, *stuck(), preflight={}))[0].config == {"algo.squash": True}
    assert not found("action_range_mismatch", case(cut, preflight={}))  # who learns may well play the bounds
    usual = ("bound_clipped", AGENT | {"dimension": 0}, 0.3)  # a standard normal has 0.32 beyond its bounds
    assert not found("action_range_mismatch", case(usual, *stuck(), preflight={}))


def effects(*dimensions: int, like: tuple[int, ...] = ()) -> dict[str, Any]:
    choices = [{"agent": "agent_0", "choices": list(like)}] if like else []
    dead = [{"agent": "agent_0", "dimension": dimension} for dimension in dimensions]
    return {"effects": {"without_effect": dead, "like_choice_0": choices}}


def test_actions_without_effect_are_a_fault_where_they_are_more_than_a_spare_dimension() -> None:
    wide = {"low": [0.0] * 5, "high": [1.0] * 5}
    one, most, every = (case(preflight=effects(*range(n)), spec=spec(wide)) for n in (1, 3, 5))
    assert not found("action_has_no_effect", one)  # as the first one of the particle games
    assert found("action_has_no_effect", most)[0].where == {"agent": "agent_0", "dimension": 0}
    assert found("action_has_no_effect", every)[0].where == {"agent": "agent_0"}
    whole = {"effects": {"without_effect": [{"agent": "agent_0"}], "like_choice_0": []}}
    assert found("action_has_no_effect", case(preflight=whole))
    assert found("action_has_no_effect", case(preflight=effects(like=(1, 2, 3))))
    assert not found("action_has_no_effect", case(preflight=effects(like=(4,))))


def test_padding_is_told_from_games_that_show_nothing_now_and_then() -> None:
    features = [("obs_std", AGENT | {"feature": i}, 1.0) for i in range(4)]
    bursts = np.where(np.arange(N) % 5 == 0, 0.0, 0.3)
    padded = ("obs_padded", AGENT, bursts)
    assert found("masking_error", case(padded, *features))[0].where == {"agent": "agent_0"}
    assert not found("masking_error", case(padded, features[0]))  # a sign that is seen once
    assert not found("masking_error", case(("obs_padded", AGENT, 1.0), *features))
    assert not found("masking_error", case(("obs_padded", AGENT, 0.0), *features))


def change(network: str, layer: str, values: Any) -> tuple[str, dict[str, Any], Any]:
    return "layer_change", {"group": "agent", "network": network, "layer": layer}, values


def test_tensor_that_stands_still_beside_others_is_untrained() -> None:
    moving = change("actor", "final", 1e-3)
    hit = found("untrained_parameters", case(moving, change("actor", "hidden.0", 0.0)))[0]
    assert hit.where == {"group": "agent", "network": "actor", "layer": "hidden.0"}
    assert hit.onset_steps == 0
    whole = case(change("critic", "final", 1e-3), change("actor", "final", 0.0))
    assert found("untrained_parameters", whole)[0].where["network"] == "actor"
    late = case(moving, change("actor", "hidden.0", stepped(1e-3, 0.0)))
    assert found("untrained_parameters", late)[0].onset_steps == (N // 2 + 1) * EVERY
    assert not found("untrained_parameters", case(change("actor", "final", 0.0), change("critic", "final", 0.0)))
    warm_up = change("actor", "final", stepped(0.0, 1e-3, 5))
    assert not found("untrained_parameters", case(warm_up, change("critic", "final", 1e-3)))


def test_first_update_tells_unless_there_was_nothing_to_learn_from() -> None:
    entry = {"group": "agent", "network": "actor", "tensor": "hidden.0.weight", "why": "stayed"}
    still = change("actor", "final", 1e-3)
    preflight = {"untrained": [entry], "non_finite": []}
    assert found("untrained_parameters", case(still, preflight=preflight))[0].where["layer"] == "hidden.0.weight"
    refused = preflight | {"non_finite": [{"group": "agent", "network": "actor"}]}
    assert not found("untrained_parameters", case(still, preflight=refused))
