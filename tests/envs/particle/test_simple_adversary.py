"""simple_adversary beside mpe2's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.envs.particle.twins import assert_twins, make

NAME = "simple_adversary_v3"


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_it_equals_mpe2(n: int, continuous: bool):
    kwargs: dict[str, Any] = {"N": n, "max_cycles": 25, "continuous_actions": continuous}
    assert_twins(make(NAME, **kwargs), NAME, **kwargs)


def test_every_landmark_is_the_goal_equally_often():
    env = make(NAME, 3000, N=3)
    env.reset(1)
    landmarks, goal = env.pos[8:14].unflatten(0, (3, 2)), env.pos[14:]
    chosen = (landmarks == goal).all(dim=1)  # (3, E)
    assert chosen.sum(0).eq(1).all()
    torch.testing.assert_close(chosen.double().mean(1), torch.full((3,), 1 / 3, dtype=torch.float64), atol=0.03, rtol=0)


def test_the_adversary_sees_nothing_of_the_goal():
    env = make(NAME, 8, N=3)
    obs = env.reset(1)
    state = env.state_dict()
    state["pos"][14:] += 0.5
    moved = env.load_state_dict(state)
    assert torch.equal(moved["adversary"], obs["adversary"])
    assert not torch.equal(moved["agent"][..., :2], obs["agent"][..., :2])
    assert torch.equal(moved["agent"][..., 2:], obs["agent"][..., 2:])
