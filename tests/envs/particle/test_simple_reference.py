"""simple_reference beside mpe2's own; moves and words at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from marl_stable.envs.particle.simple_reference import SimpleReference
from tests.envs.particle.twins import assert_twins, make

NAME = "simple_reference_v3"


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
def test_it_equals_mpe2(ratio: float, continuous: bool):
    kwargs: dict[str, Any] = {"local_ratio": ratio, "max_cycles": 25, "continuous_actions": continuous}
    env = make(NAME, num_envs=8, **kwargs)
    env.reset(seed=11)
    assert isinstance(env, SimpleReference)
    assert [set(goals) for goals in env.goal.tolist()] == [{0, 1, 2}, {0, 1, 2}]
    assert env.goal[0].ne(env.goal[1]).any()
    assert_twins(env, NAME, **kwargs)


def test_each_of_the_fifty_actions_is_one_move_and_one_word_that_the_other_hears():
    env = make(NAME, 50)
    env.reset(1)
    every = torch.arange(50)
    step = env.step({"agent": torch.stack([every, every.flip(0)], 1)})
    heard = step.obs["agent"][..., 11:]
    assert torch.equal(heard[:, 1].argmax(-1), every // 5)
    assert torch.equal(heard[:, 0].argmax(-1), every.flip(0) // 5)
    assert torch.equal(heard.sum(-1), torch.ones(50, 2))
    directions = torch.tensor([[0.0, 0.0], [-0.5, 0.0], [0.5, 0.0], [0.0, -0.5], [0.0, 0.5]])
    torch.testing.assert_close(step.obs["agent"][:, 0, :2], directions[every % 5])


def test_numbers_for_words_are_heard_as_they_are_within_their_bounds():
    env = make(NAME, 2, continuous_actions=True)
    env.reset(1)
    action = torch.zeros(2, 2, 15)
    action[:, 0, 5:] = torch.linspace(-0.5, 1.5, 10)
    heard = env.step({"agent": action}).obs["agent"][..., 11:]
    assert torch.equal(heard[:, 1], action[:, 0, 5:].clamp(0, 1))
    assert heard[:, 0].eq(0).all()
