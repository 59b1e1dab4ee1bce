"""simple_push beside mpe2's own: who knows the goal, and that agents push each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from marl_stable.envs.particle import ParticleEnv
from marl_stable.envs.particle.simple_push import SimplePush
from marl_stable.types import Box, PerGroup
from tests.envs.particle.twins import Actor, assert_twins, make, random_actions, roughly, towards

NAME = "simple_push_v3"


def meet(env: ParticleEnv, obs: PerGroup, draw: torch.Generator) -> PerGroup:
    """The two go to each other; what each sees of the other comes last."""
    continuous = isinstance(env.spec.groups[0].action, Box)
    return roughly({name: towards(seen[..., -2:], continuous) for name, seen in obs.items()}, draw)


@pytest.mark.parametrize("act", [random_actions, meet])
@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
def test_it_equals_mpe2(continuous: bool, act: Actor):
    kwargs: dict[str, Any] = {"max_cycles": 25, "continuous_actions": continuous}
    env = make(NAME, 6, **kwargs)
    env.reset(11)
    assert isinstance(env, SimplePush)
    assert set(env.goal[0].tolist()) == {0, 1}
    assert_twins(env, NAME, act, **kwargs)


def test_directed_actions_do_provoke_contacts():
    env = make(NAME, 20)
    obs = env.reset(1)
    touched = torch.zeros(20, dtype=torch.bool)
    for _ in range(24):
        obs = env.step(meet(env, obs, torch.Generator())).obs
        touched |= env.contacts.touching()[0].bool()
    assert touched.sum() >= 8


def test_both_landmarks_are_the_goal_equally_often_and_its_colour_names_it():
    env = make(NAME, 3000)
    own = env.reset(1)["agent"][:, 0, 4:7]
    assert isinstance(env, SimplePush)
    assert torch.equal(own.argmax(1) - 1, env.goal[0])
    assert float(env.goal.double().mean()) == pytest.approx(0.5, abs=0.03)
    goal, landmarks = env.pos[-2:], env.pos[4:8].unflatten(0, (2, 2))
    assert torch.equal(goal, landmarks[env.goal[0], :, torch.arange(3000)].T)


def test_the_adversary_sees_nothing_of_the_goal():
    env = make(NAME, 8)
    obs = env.reset(1)
    state = env.state_dict()
    state["pos"][-2:] += 0.5
    state["goal"] = 1 - state["goal"]
    moved = env.load_state_dict(state)
    assert torch.equal(moved["adversary"], obs["adversary"])
    differs = (moved["agent"] != obs["agent"]).any(dim=0)[0].nonzero().flatten().tolist()
    assert differs == [2, 3, 5, 6]
