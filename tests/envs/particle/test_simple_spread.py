"""simple_spread beside mpe2's own; collisions."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from marl_stable.envs.particle import ParticleEnv
from marl_stable.types import Box, PerGroup
from tests.envs.particle.twins import Actor, assert_twins, make, random_actions, roughly, towards

NAME = "simple_spread_v3"


def collide(env: ParticleEnv, obs: PerGroup, draw: torch.Generator) -> PerGroup:
    """Everyone makes for a point near the middle, where they meet."""
    return roughly({"agent": towards(0.05 - obs["agent"][..., 2:4], isinstance(env.spec.groups[0].action, Box))}, draw)


@pytest.mark.parametrize("act", [random_actions, collide])
@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
@pytest.mark.parametrize(("n", "ratio"), [(1, 0.5), (2, 0.0), (2, 1.0), (3, 0.5), (5, 0.25)])
def test_it_equals_mpe2(n: int, ratio: float, continuous: bool, act: Actor):
    kwargs: dict[str, Any] = {"N": n, "local_ratio": ratio, "max_cycles": 25, "continuous_actions": continuous}
    assert_twins(make(NAME, **kwargs), NAME, act, **kwargs)


def test_directed_actions_do_provoke_collisions():
    env = make(NAME, N=3, local_ratio=1.0)
    obs = env.reset(1)
    collided = torch.zeros(3, 3)
    for _ in range(24):
        step = env.step(collide(env, obs, torch.Generator()))
        obs, collided = step.obs, collided + step.reward["agent"]
    assert (collided <= -2).all()


def test_a_state_saved_in_the_midst_of_a_collision_goes_on_with_it():
    env, fresh = make(NAME), make(NAME)
    obs = env.reset(1)
    hits = 0
    for _ in range(20):
        action = collide(env, obs, torch.Generator())
        fresh.reset(5)
        fresh.load_state_dict(env.state_dict())
        step, again = env.step(action), fresh.step(action)
        obs = step.obs
        assert torch.equal(again.obs["agent"], obs["agent"])
        assert torch.equal(again.reward["agent"], step.reward["agent"])
        hits += bool(env.contacts.touching().any())
    assert hits > 5
