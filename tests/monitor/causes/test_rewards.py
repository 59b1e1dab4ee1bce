"""Faults of what agents are paid, and what looks like them and is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from marl_stable.monitor.stability_monitor import StabilityMonitor
from tests.monitor.causes.recordings import AGENT, EVERY, NOISE, WHOLE, N, case, found, stepped, stuck

RAW = {"algo.normalize_reward": False, "algo.normalize_value": False}
LEARNING = -0.3 * np.exp(-np.arange(N) / 3.0)


def rewards(**figures: Any) -> dict[str, Any]:
    return {"rewards": {"agent_0": figures}}


def baselines(random: float, constant: float) -> dict[str, Any]:
    return {
        name: {"return": value, "ci95": [value - 0.1, value + 0.1]}
        for name, value in (("random", random), ("best_constant", constant))
    }


@pytest.mark.parametrize(("std", "named"), [(5e-4, "small"), (5e3, "large"), (0.05, ""), (100.0, ""), (5.0, "")])
def test_scale_of_returns_at_random_is_judged_with_room_where_the_run_is_well(std: float, named: str) -> None:
    of = case(("reward_std", AGENT, std / 10), config=RAW, preflight=rewards(return_std=std))
    for which in ("small", "large"):
        assert bool(found(f"reward_scale_too_{which}", of)) == (which == named)
    assert not found("reward_scale_too_small", case(("reward_std", AGENT, 1e-5), preflight=rewards(return_std=None)))


def test_mild_scale_is_named_where_the_run_fails() -> None:
    of = case(("reward_std", AGENT, 0.01), *stuck(), config=RAW, preflight=rewards(return_std=0.05))
    assert found("reward_scale_too_small", of)[0].onset_steps == 0


def test_normalised_runs_have_no_scale_from_the_start() -> None:
    of = case(("reward_std", AGENT, 1e-4), config={"algo.normalize_reward": True}, preflight=rewards(return_std=5e-4))
    assert not found("reward_scale_too_small", of)


def test_sudden_change_of_scale_is_one_only_where_the_mean_changes_alike() -> None:
    std = ("reward_std", AGENT, stepped(0.3, 3e-4))
    hit = found("reward_scale_too_small", case(std, ("reward_mean", AGENT, stepped(-1.0, -1e-3))))
    assert hit[0].onset_steps == (N // 2 + 1) * EVERY
    assert not found("reward_scale_too_small", case(std, ("reward_mean", AGENT, stepped(0.5, 1.0))))  # it is solved
    mean = ("reward_mean", AGENT, stepped(-1.0, -1e-3))
    assert not found("reward_scale_too_small", case(std, mean, config={"algo.warm_up": EVERY * N // 2}))


def test_offset_is_measured_in_rewards_at_random_and_takes_the_place_of_a_large_scale() -> None:
    series = ("reward_mean", AGENT, 999.0), ("reward_std", AGENT, 0.3)
    of = case(*series, config=RAW, preflight=rewards(return_std=4e3, offset_ratio=3e3))
    assert found("reward_offset", of)[0].evidence["offset_over_scale"] == 3e3
    assert not found("reward_scale_too_large", of)
    learned = ("reward_mean", AGENT, 1.0), ("reward_std", AGENT, stepped(0.4, 1e-3))
    assert not found("reward_offset", case(*learned, config=RAW))
    assert not found("reward_offset", case(("reward_mean", AGENT, 1.0), ("reward_std", AGENT, 0.0), config=RAW))


def test_outliers_are_measured_against_the_usual_largest_rewards() -> None:
    peak = np.where(np.arange(N) == 20, 1e6, 1.5)
    hit = found("reward_outliers", case(("reward_peak", AGENT, peak), ("reward_p999", AGENT, 1.4)))[0]
    assert hit.onset_steps == 21 * EVERY
    assert hit.where == {"agent": "agent_0"}
    goals = np.where(np.arange(N) % 7 == 0, 10.0, 0.0)  # a sparse task
    assert not found("reward_outliers", case(("reward_peak", AGENT, goals), ("reward_p999", AGENT, 0.0)))


def paid(mean: np.ndarray[Any, Any]) -> tuple[Any, ...]:
    return ("reward_mean", AGENT, mean), ("reward_median", AGENT, mean), ("reward_peak", AGENT, 0.5)


def test_shift_leaps_beyond_all_that_was_met() -> None:
    assert found("reward_shift", case(*paid(stepped(-1.0, 9.0) + 0.05 * NOISE)))[0].onset_steps == (N // 2 + 1) * EVERY
    assert not found("reward_shift", case(*paid(stepped(-1.0, -0.6) + 0.01 * NOISE)))  # learning may leap
    assert not found("reward_shift", case(*paid(LEARNING)))
    assert not found("reward_shift", case(*paid(-1.0 + 0.1 * NOISE)))


@pytest.mark.parametrize(("steps", "named"), [(stepped(0.0, 0.01), False), (0.01, True), (0.0, True)])
def test_the_first_policy_that_has_learned_may_leap(steps: Any, named: bool) -> None:
    ratio = ("update_ratio", {"group": "agent", "network": "actor"}, steps)
    leaps = stepped(-1.0, 9.0, N // 2 + 1) + 0.05 * NOISE  # at the first reading that the new weights act in
    assert bool(found("reward_shift", case(*paid(leaps), ratio))) == named


def test_drop_is_a_shift_unless_the_policy_broke() -> None:
    drop = stepped(1.0, -1.0) + 0.01 * NOISE
    assert found("reward_shift", case(*paid(drop)))
    for signal, usual, then in (("sameness", 0.2, 1.0), ("update_ratio", 1e-3, 0.3), ("layer_weight", 0.1, 1.0)):
        assert not found("reward_shift", case(*paid(drop), (signal, AGENT, stepped(usual, then))))


def test_no_reward_signal_is_told_from_a_task_that_is_solved() -> None:
    flat = ("reward_std", AGENT, 0.0), ("reward_mean", AGENT, 0.0)
    assert found("no_reward_signal", case(*flat))[0].onset_steps == 0
    std = ("reward_std", AGENT, stepped(0.4, 0.0))
    solved = ("reward_mean", AGENT, stepped(0.6, 1.0)), ("reward_median", AGENT, stepped(0.6, 1.0))
    peak = ("reward_peak", AGENT, stepped(0.4, 0.0))
    assert not found("no_reward_signal", case(std, *solved, peak))
    dips = np.where(np.arange(N) % 5 == 1, 0.99, 1.0) * stepped(
        0.6, 1.0, 5
    )  # 0 is paid once in a while, until it is not
    rare = ("reward_mean", AGENT, dips), ("reward_median", AGENT, 1.0), ("reward_peak", AGENT, stepped(1.0, 0.0))
    assert not found("no_reward_signal", case(std, *rare))
    gone = ("reward_mean", AGENT, stepped(-1.0, 0.0)), ("reward_median", AGENT, stepped(-1.0, 0.0))
    hit = found("no_reward_signal", case(std, *gone, peak))
    assert hit[0].onset_steps == (N // 2 + 1) * EVERY
    sparse = ("reward_zero", AGENT, stepped(0.99, 1.0)), ("reward_mean", AGENT, stepped(0.01, 0.0))
    assert not found("no_reward_signal", case(std, *sparse))


@pytest.mark.parametrize("size", [1e6, 1e9, 1e12])
def test_one_huge_reward_is_no_measure_of_how_much_the_others_vary(size: float) -> None:
    spike = np.arange(N) == 20
    series = (
        ("reward_mean", AGENT, np.where(spike, size / 500, -1.0)),
        ("reward_std", AGENT, np.where(spike, size / 20, 0.3)),
        ("reward_peak", AGENT, np.where(spike, size, 1.0)),
        ("reward_p999", AGENT, 0.9),
    )
    assert not found("no_reward_signal", case(*series))
    assert found("reward_outliers", case(*series))[0].onset_steps == 21 * EVERY


@pytest.mark.parametrize("size", [1e6, 1e9, 1e12])
def test_one_huge_reward_in_a_loop_of_ones_own_is_an_outlier(size: float) -> None:
    generator = torch.Generator().manual_seed(0)
    monitor = StabilityMonitor(every=1)
    ends = (torch.arange(64) % 16 == 15).unsqueeze(1).expand(64, 8)
    for i in range(60):
        reward = 0.3 * torch.randn(64, 8, generator=generator) - 1
        if i == 30:
            reward[3, 2] = size
        monitor.step(reward=reward, done=ends)
    assert [(entry["cause"], entry["onset_steps"]) for entry in monitor.report()["findings"]] == [
        ("reward_outliers", 31)
    ]


def test_rewards_that_became_infinite_are_not_said_to_be_alike() -> None:
    late = stepped(1.0, np.inf)
    assert not found("no_reward_signal", case(("reward_mean", AGENT, late), ("reward_std", AGENT, late)))
    always = ("reward_mean", AGENT, np.inf), ("reward_std", AGENT, 0.3)
    assert not found("no_reward_signal", case(*always))


def test_rounding_of_a_large_constant_reward_is_no_variation() -> None:
    mean = ("reward_mean", AGENT, 999.0)
    assert found("no_reward_signal", case(mean, ("reward_std", AGENT, 5e-5)))
    assert not found("no_reward_signal", case(mean, ("reward_std", AGENT, 5e-3)))


def test_constant_action_is_optimal_where_policies_repeat_one_and_nothing_is_better() -> None:
    same = ("sameness", AGENT, 1.0), ("actions/responsiveness", AGENT, 0.001)
    good, poor = ("charts/return", WHOLE, 25.0), ("charts/return", WHOLE, 10.0)
    known = {"baselines": baselines(5.0, 25.0)}
    assert found("constant_action_is_optimal", case(good, *same, **known))
    assert not found("constant_action_is_optimal", case(poor, *same, **known))
    assert not found("constant_action_is_optimal", case(good, ("sameness", AGENT, 0.3), same[1], **known))
    nothing = {"baselines": {"random": {"return": None, "ci95": [None, None]}, "best_constant": None}}
    assert not found("constant_action_is_optimal", case(good, *same, **nothing))


def test_rewards_that_are_no_numbers_are_named_where_most_of_them_were() -> None:
    rare = ("reward_non_finite", {"group": "agent", "agent": "agent_1"}, np.where(np.arange(N) == 3, 1e-4, 0.0))
    often = ("reward_non_finite", AGENT, np.where(np.arange(N) > 5, 1e-2, 0.0))
    hit = found("reward_non_finite", case(rare, often))[0]
    assert hit.onset_steps == 4 * EVERY
    assert hit.where == {"agent": "agent_0"}
    assert not found("reward_non_finite", case(("reward_non_finite", AGENT, 0.0)))


def test_shift_that_begins_within_an_iteration_is_spread_over_two_readings() -> None:
    mean = stepped(-1.0, 9.0) + 0.05 * NOISE
    mean[N // 2] = 2.0
    hit = found("reward_shift", case(*paid(mean)))[0]
    assert hit.onset_steps == (N // 2 + 1) * EVERY
    assert hit.evidence["after"] == pytest.approx(9.0, abs=0.2)


def test_shift_of_a_dense_reward_is_beyond_what_a_policy_gains_at_once_and_a_critic_may_be_surprised() -> None:
    mean = (*paid(stepped(-0.8, 0.8) + 0.01 * NOISE)[:2], ("reward_peak", AGENT, 4.0), ("reward_zero", AGENT, 0.0))
    surprise = ("grad_spike", AGENT | {"network": "critic"}, np.where(np.arange(N) == N // 2, 1.0, 0.0))
    assert found("reward_shift", case(*mean, surprise, ("reward_std", AGENT, 0.3)))
    assert not found("reward_shift", case(*mean, ("reward_std", AGENT, 1.0)))


def test_a_leap_between_the_end_of_long_episodes_and_the_next_is_no_shift() -> None:
    mean = paid(stepped(1.0, -1.0) + 0.01 * NOISE)
    ends = np.where(np.arange(N) == N // 2 - 1, 1_000.0, np.nan)
    assert not found("reward_shift", case(*mean, ("charts/episode_length", WHOLE, ends)))
    assert found("reward_shift", case(*mean, ("charts/episode_length", WHOLE, 25.0)))


def test_offset_that_is_normalised_is_told_of_where_critics_explain_nothing() -> None:
    series = ("reward_mean", AGENT, 999.0), ("reward_std", AGENT, 0.3), ("charts/return", WHOLE, np.linspace(0, 1, N))
    known = {"config": {"algo.normalize_value": True}, "preflight": rewards(return_std=4e3, offset_ratio=3e3)}
    assert found("reward_offset", case(*series, ("explained_variance", AGENT, -0.8), **known))
    assert not found("reward_offset", case(*series, ("explained_variance", AGENT, 0.5), **known))


def test_rewards_of_another_scale_are_no_outliers() -> None:
    scale = stepped(1.0, 1e-4, 10)
    series = ("reward_mean", AGENT, -scale), ("reward_std", AGENT, 0.3 * scale), ("reward_peak", AGENT, 2.0 * scale)
    changed = case(*series, ("reward_p999", AGENT, 1.4 * scale))
    assert not found("reward_outliers", changed)
    assert found("reward_scale_too_small", changed)
