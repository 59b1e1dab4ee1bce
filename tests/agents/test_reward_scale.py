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
