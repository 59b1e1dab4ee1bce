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


def test_shortest_way_to_a_goal_is_no_time_limit() -> None:
    lengths = ("charts/episode_length", {"group": "agent"}, np.maximum(10.0, 29.0 - np.arange(N)))
    by_chance = {"longest": 22, "shortest": 14, "same_length": False}
    assert not found("time_limit_as_termination", case(*ENDS, preflight=seen(ends=by_chance)))
    for unknown in ({}, {"preflight": seen(ends={"longest": None, "same_length": None})}):
        assert not found("time_limit_as_termination", case(*ENDS, lengths, **unknown))  # episodes were longer
        longer = ("charts/episode_length", {"group": "agent"}, np.minimum(25.0, 10.0 + np.arange(N)))
        for never_longer in (longer, (*longer[:2], 25.0)):
            assert found("time_limit_as_termination", case(*ENDS, never_longer, **unknown))
    assert not found("time_limit_as_termination", case(*ENDS, (*longer[:2], 20.0), preflight=seen(ends=by_chance)))
    assert found("time_limit_as_termination", case(*ENDS, longer, preflight=seen(ends=by_chance)))  # a balanced pole
    limited = {"longest": 25, "shortest": 25, "same_length": True}
    assert found("time_limit_as_termination", case(*ENDS, (*longer[:2], 25.0), preflight=seen(ends=limited)))


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


def test_zeros_that_are_seen_first_are_no_padding() -> None:
    features = [("obs_std", AGENT | {"feature": i}, 1.0) for i in range(4)]
    firsts = ("obs_padded", AGENT, 0.05 + 0.004 * np.sin(np.arange(N)))
    assert found("masking_error", case(firsts, *features))
    lengths = ("charts/episode_length", {"group": "agent"}, 20.0)
    assert not found("masking_error", case(firsts, lengths, *features))
    assert found("masking_error", case((*firsts[:2], 0.07), lengths, *features))
    lived = ("alive", AGENT, 0.5)  # of ten steps, its first zeros are a tenth
    assert not found("masking_error", case((*firsts[:2], 0.1), lengths, lived, *features))
    assert found("masking_error", case((*firsts[:2], 0.1), lengths, *features))


def test_nobody_is_gone_where_there_is_one_agent() -> None:
    series = [("obs_std", AGENT | {"feature": i}, 1.0) for i in range(4)] + [("obs_padded", AGENT, 0.3)]
    alone = spec(agents=["agent_0"])
    assert not found("masking_error", case(*series, spec=alone))
    assert found("masking_error", case(*series, spec=alone, config={"loop": "own"}))  # it may stand for many


def change(network: str, layer: str, values: Any) -> tuple[str, dict[str, Any], Any]:
    return "layer_change", {"group": "agent", "network": network, "layer": layer}, values


def test_tensor_that_stands_still_beside_others_is_untrained() -> None:
    moving = change("actor", "final", 1e-3)
    hit = found("untrained_parameters", case(moving, change("actor", "hidden.0", 0.0)))[0]
    assert hit.where == {"group": "agent", "network": "actor", "layer": "hidden.0"}
    assert hit.onset_steps == 0
    dead = ("dormant", {"group": "agent", "network": "actor", "layer": "hidden.0"}, 0.98)
    assert not found("untrained_parameters", case(moving, change("actor", "hidden.0", 0.0), dead))
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


def lasting(length: Any, share: Any) -> Any:
    """Episodes of this length, of which a share terminates, all of those after the same number of steps."""
    lengths = ("charts/episode_length", {"group": "agent"}, length)
    return case(("ends_terminated", {"group": "agent"}, share), ENDS[1], lengths)


def test_time_limit_that_a_part_of_the_copies_reports_wrongly_is_seen_beside_the_others() -> None:
    hit = found("time_limit_as_termination", lasting(25.0, stepped(0.0, 0.3)))[0]
    assert hit.onset_steps == (N // 2 + 1) * EVERY
    assert not found("time_limit_as_termination", lasting(25.0, stepped(0.3, 0.0)))
    assert not found("time_limit_as_termination", lasting(np.where(np.arange(N) % 2, 22.0, 23.0), 0.3))  # goals


def target(signal: str, network: str, values: Any) -> tuple[str, dict[str, Any], Any]:
    return signal, {"group": "agent", "network": network}, values


def test_target_that_stands_still_while_what_it_follows_moves_is_untrained() -> None:
    learned = change("critic", "final", 1e-3)
    hit = found("untrained_parameters", case(learned, target("target_change", "critic", stepped(1e-4, 0.0))))[0]
    assert hit.where == {"group": "agent", "network": "critic"}
    assert hit.onset_steps == (N // 2 + 1) * EVERY
    assert "target" in hit.explanation
    assert not found("untrained_parameters", case(learned, target("target_change", "critic", 1e-6)))
    before_learning = change("critic", "final", stepped(0.0, 1e-3)), target("target_change", "critic", stepped(0, 1e-4))
    assert not found("untrained_parameters", case(*before_learning))


def test_network_whose_answers_are_certain_gets_no_gradient_and_is_not_untrained() -> None:
    certain = change("actor", "final", 0.0), change("critic", "final", 1e-3), *stuck()
    large = ("layer_weight", {"group": "agent", "network": "actor", "layer": "final"}, 30.0)
    config = {"algo.network.hidden": [64]}
    assert found("untrained_parameters", case(*certain, config=config))
    assert not found("untrained_parameters", case(*certain, large, config=config))
    entry = {"group": "agent", "network": "actor", "tensor": "hidden.0.weight", "why": "no gradient"}
    preflight = {"untrained": [entry], "non_finite": []}
    assert not found("untrained_parameters", case(*certain, large, config=config, preflight=preflight))


def test_targets_of_networks_whose_gradients_are_no_numbers_have_nothing_to_follow() -> None:
    entry = {"group": "agent", "network": "target_actor", "tensor": "all", "why": "had a gradient, and was not moved"}
    preflight = {"untrained": [entry], "non_finite": [{"group": "agent", "network": "actor"}]}
    moving = change("critic", "final", 1e-3)
    assert not found("untrained_parameters", case(moving, preflight=preflight))
    assert found("untrained_parameters", case(moving, preflight=preflight | {"non_finite": []}))
