"""Values that run away, and values that only began far off."""

from __future__ import annotations

import numpy as np

from tests.monitor.causes.recordings import AGENT, EVERY, NOISE, N, case, found, stepped

PAID = ("reward_mean", AGENT, -1.0)


def test_values_beyond_what_rewards_can_bring_have_diverged() -> None:
    hit = found("critic_divergence", case(PAID, ("infeasible", AGENT, stepped(0.0, 0.6))))[0]
    assert hit.onset_steps == (N // 2 + 1) * EVERY
    assert hit.where == {"agent": "agent_0"}
    assert not found("critic_divergence", case(PAID, ("infeasible", AGENT, np.where(np.arange(N) < 30, 0.5, 0.0))))
    assert not found("critic_divergence", case(PAID, ("infeasible", AGENT, np.where(np.arange(N) == 20, 0.5, 0.0))))


def test_targets_are_made_slower_than_they_are() -> None:
    seen = PAID, ("infeasible", AGENT, stepped(0.0, 0.6))
    known = {"algo.name": "matd3", "algo.tau": 0.001, "algo.twin_critics": True, "algo.network.norm": "layer"}
    assert found("critic_divergence", case(*seen, config=known))[0].config == {"algo.tau": 0.0005}
    known = {"algo.name": "maddpg", "algo.tau": 0.01, "algo.twin_critics": False, "algo.network.norm": "none"}
    advised = {"algo.twin_critics": True, "algo.tau": 0.005, "algo.critic_network.norm": "layer"}
    assert found("critic_divergence", case(*seen, config=known))[0].config == advised
    (said,) = found("critic_divergence", case(*seen, config={"algo.name": "mappo", "algo.network.norm": "layer"}))
    assert said.config == {}
    (loop,) = found("critic_divergence", case(*seen, config={"loop": "own", "algo.lr": 1e-3}))
    assert loop.config == {"algo.critic_network.norm": "layer"}  # whether it has targets is not known
    assert said.remedy.startswith("Lower the critic's step size")


def test_critic_that_began_far_off_has_not_run_away_nor_one_without_rewards() -> None:
    assert not found("critic_divergence", case(PAID, ("infeasible", AGENT, 0.9)))
    of = case(("reward_mean", AGENT, 0.0), ("infeasible", AGENT, stepped(0.0, 0.6)))
    assert not found("critic_divergence", of)


def test_values_that_leave_returns_behind_with_growing_errors() -> None:
    grown = np.exp(np.linspace(0.0, 5.0, N))
    usual = PAID, ("infeasible", AGENT, 0.0), ("return_mean", AGENT, -5.0 + 0.1 * NOISE), ("return_std", AGENT, 2.0)
    hit = found("critic_divergence", case(*usual, ("value_mean", AGENT, 10 * grown), ("td_scale", AGENT, grown)))[0]
    assert hit.evidence["value_over_return"] > 3
    calm = ("value_mean", AGENT, -4.0), ("td_scale", AGENT, 0.5 + 0.01 * NOISE)
    assert not found("critic_divergence", case(*usual, *calm))


def test_where_values_returns_and_deviations_are_infinite_nothing_is_told_and_nothing_warned_of() -> None:
    without_end = np.where(np.arange(N) < N // 2, -5.0, -np.inf)
    usual = PAID, ("infeasible", AGENT, 0.0), ("return_mean", AGENT, without_end), ("return_std", AGENT, np.inf)
    of = case(*usual, ("value_mean", AGENT, without_end), ("td_scale", AGENT, 0.5))
    assert not found("critic_divergence", of)
    assert not found("value_normalisation", of)


def test_targets_that_are_what_is_learned_let_values_chase_themselves() -> None:
    place = {"group": "agent", "network": "critic"}
    learned = "layer_change", place | {"layer": "final"}, stepped(0.0, 1e-2, 3)
    seen = PAID, ("infeasible", AGENT, 0.0), learned
    slow = {"algo.tau": 0.01}
    hit = found("critic_divergence", case(*seen, ("target_gap", place, stepped(0.02, 0.0)), config=slow))[0]
    assert (hit.where, hit.onset_steps) == (place, (N // 2 + 1) * EVERY)
    assert not found("critic_divergence", case(*seen, ("target_gap", place, stepped(0.0, 0.02, 3)), config=slow))
    current = ("target_gap", place, 0.0)
    assert found("critic_divergence", case(*seen, current, config=slow))[0].onset_steps == 0
    assert not found("critic_divergence", case(*seen, current, config={"algo.tau": 1.0}))  # as was asked


def test_values_in_wrong_units_that_carry_returns_along_have_not_diverged() -> None:
    came = np.exp(np.linspace(0.0, 9.0, N))
    seen = PAID, ("infeasible", AGENT, stepped(0.0, 1.0, 3)), ("first_ratio", AGENT, 0.0), ("return_mean", AGENT, came)
    biased = *seen, ("return_std", AGENT, came / 2), ("value_mean", AGENT, 1.5 * came)
    assert found("critic_divergence", case(*biased))
    normal = {"algo.normalize_value": True}
    assert found("value_normalisation", case(*biased, config=normal))
    assert not found("critic_divergence", case(*biased, config=normal))
