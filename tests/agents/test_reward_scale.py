"""Rewards in units of their deviation, and what an end is worth on that scale."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from marl_stable.agents.reward_scale import RewardScale
from marl_stable.envs.probe import Match
from tests.agents.loops import CPU, make_ddpg


def with_rewards(reward: Tensor, ends: bool = False, **settings: Any) -> RewardScale:
    """Of one agent that has seen the rewards `(N,)`, the last one at an end if there are `ends`."""
    env = Match(1, CPU)
    learner = make_ddpg(env, **settings).learners["agent"]
    alive = torch.ones(len(reward), 1, dtype=torch.bool)
    terminated = ends & (torch.arange(len(reward)) == len(reward) - 1).unsqueeze(1)
    learner.scale.take_in(reward.reshape(-1, 1), terminated, alive, settled=False)
    return learner.scale


def test_what_lies_beyond_an_end_is_a_reward_of_nothing_for_ever():
    scale = with_rewards(3 + 2 * torch.randn(1000, generator=torch.Generator().manual_seed(1)))
    rewards = torch.tensor([[3.0], [5.0], [0.0]])
    scaled = scale.normalized(rewards)
    torch.testing.assert_close(scaled, torch.tensor([[0.0], [1.0], [-1.5]]), atol=0.1, rtol=0)
    torch.testing.assert_close(scale.terminal_value(), scaled[2] / (1 - 0.9))


@pytest.mark.parametrize("gamma", [1.0, 0.999999])
def test_an_end_too_far_away_is_not_centred_on(gamma: float):
    rewards = 3 + 2 * torch.randn(1000, generator=torch.Generator().manual_seed(1))
    scale = with_rewards(rewards, ends=True, gamma=gamma)
    assert scale.terminal_value() == 0
    torch.testing.assert_close(
        scale.normalized(torch.tensor([[0.0], [4.0]])), torch.tensor([[0.0], [4 / 13**0.5]]), atol=0.1, rtol=0
    )


def test_an_offset_of_any_size_is_taken_away_where_nothing_ends():
    rewards = 1e5 + 2 * torch.randn(1000, generator=torch.Generator().manual_seed(1))
    scaled = with_rewards(rewards).normalized(rewards.unsqueeze(1))
    torch.testing.assert_close(scaled.mean(), torch.tensor(0.0), atol=0.1, rtol=0)
    torch.testing.assert_close(scaled.std(), torch.tensor(1.0), atol=0.1, rtol=0)
    with_ends = with_rewards(rewards, ends=True).normalized(rewards.unsqueeze(1))  # small differences, but none lost
    torch.testing.assert_close(with_ends.mean(), torch.tensor(1.0))
    assert with_ends.std() > 0


def rare(seed: int, *sizes: float) -> Tensor:
    """`(2560, 1)` rewards of nothing, but for one of each size in 500 steps."""
    drawn = torch.rand(2_560, 1, generator=torch.Generator().manual_seed(seed))
    return sum((size * ((drawn >= i / 500) & (drawn < (i + 1) / 500)) for i, size in enumerate(sizes)), 0 * drawn)


def trained_on(first: Tensor, later: list[Tensor]) -> RewardScale:
    """The statistics settle after `first`, as they do after the warm-up."""
    scale = with_rewards(first)
    for reward in later:
        scale.take_in(reward, torch.zeros_like(reward, dtype=torch.bool), torch.ones_like(reward).bool(), settled=True)
    return scale


def test_rare_rewards_are_not_all_the_same():
    scale = trained_on(rare(0, 1.0, 10.0), [rare(seed, 1.0, 10.0) for seed in range(1, 6)])
    nothing, one, ten = scale.normalized(torch.tensor([[0.0], [1.0], [10.0]]))
    torch.testing.assert_close(ten - nothing, 10 * (one - nothing))
    assert scale.reach <= 2 * ten


@pytest.mark.parametrize("corrupt", [1e6, torch.inf])
def test_outliers_stay_clipped_however_often_they_come(corrupt: float):
    usual = torch.randn(2_560, 1, generator=torch.Generator().manual_seed(1))
    scale = trained_on(usual, [torch.where(rare(seed, 1.0) > 0, corrupt, usual) for seed in range(1, 6)])
    assert scale.normalized(torch.tensor([[corrupt]])) == scale.reach == 10


def test_outliers_stay_clipped_where_they_are_rarer_than_any_goal():
    usual = torch.randn(2_560, 1, generator=torch.Generator().manual_seed(1))
    once = torch.where(torch.arange(2_560).unsqueeze(1) == 7, 100.0, usual)
    scale = trained_on(usual, [once, *[usual] * 7] * 6)  # six times in 120,000 steps
    assert scale.normalized(torch.tensor([[100.0]])) == 10
    assert scale.beyond == 6


def test_a_clip_that_gave_way_is_that_of_the_saved_state():
    scale = trained_on(rare(0, 1.0, 10.0), [rare(seed, 1.0, 10.0) for seed in range(1, 6)])
    other = RewardScale(1, 0.9, active=True)
    other.load_state_dict(scale.state_dict())
    rewards = torch.tensor([[1.0], [10.0], [1e9]])
    assert torch.equal(other.normalized(rewards), scale.normalized(rewards))
    assert scale.reach > 10


def test_the_first_end_is_remembered():
    scale = with_rewards(torch.full((10,), 5e6) + torch.arange(10), ends=True)
    assert scale.ends.all()
    nobody = torch.zeros(1, 1, dtype=torch.bool)
    scale.take_in(torch.ones(1, 1), nobody, ~nobody, settled=True)
    assert scale.ends.all()
    assert scale.state_dict()["ends"].all()


def test_raw_rewards_are_raw():
    scale = with_rewards(torch.full((10,), 5.0), normalize_reward=False)
    assert scale.terminal_value() == 0
    assert scale.normalized(torch.tensor([[123.0]])) == 123
