"""simple_tag beside mpe2's own: chases, collisions at high speed, obstacles, and the price of leaving the square."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from marl_stable.envs.particle import ParticleEnv
from marl_stable.envs.particle.simple_tag import SimpleTag
from marl_stable.types import Box, PerGroup
from tests.envs.particle.twins import Actor, assert_twins, make, random_actions, roughly, towards

NAME = "simple_tag_v3"
SIZES = ((1, 3, 2), (2, 4, 3), (1, 1, 0), (3, 1, 1))  # good agents, adversaries, obstacles


def chase(env: ParticleEnv, obs: PerGroup, draw: torch.Generator) -> PerGroup:
    """Adversaries chase the first good agent; all good agents make for the middle, where they are caught."""
    assert isinstance(env, SimpleTag)
    first = 4 + 2 * (env.entities - env.agents) + 2 * (env.adversaries - 1)
    continuous = isinstance(env.spec.groups[0].action, Box)
    prey, middle = obs["adversary"][..., first : first + 2], -obs["agent"][..., 2:4]
    return roughly({"adversary": towards(prey, continuous), "agent": towards(middle, continuous)}, draw)


def flee(env: ParticleEnv, obs: PerGroup, draw: torch.Generator) -> PerGroup:
    """Everyone leaves the square for good; adversaries bump into obstacles where some are in the way."""
    continuous = isinstance(env.spec.groups[0].action, Box)
    return roughly({name: towards(seen[..., 2:4], continuous) for name, seen in obs.items()}, draw)


def tag(good: int, adversaries: int, obstacles: int, continuous: bool = False, cycles: int = 25) -> dict[str, Any]:
    sizes = {"num_good": good, "num_adversaries": adversaries, "num_obstacles": obstacles}
    return {**sizes, "max_cycles": cycles, "continuous_actions": continuous}


@pytest.mark.parametrize("act", [random_actions, chase])
@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
@pytest.mark.parametrize("sizes", SIZES)
def test_it_equals_mpe2(sizes: tuple[int, int, int], continuous: bool, act: Actor):
    kwargs = tag(*sizes, continuous)
    assert_twins(make(NAME, **kwargs), NAME, act, **kwargs)


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
@pytest.mark.parametrize("sizes", SIZES[:2])
def test_collisions_at_high_speed_equal_mpe2s(sizes: tuple[int, int, int], continuous: bool):
    kwargs = tag(*sizes, continuous, cycles=40)
    env = make(NAME, num_envs=4, **kwargs)
    rewards = assert_twins(env, NAME, chase, velocity=4.0, **kwargs)
    assert sum(int((reward["adversary"] > 0).all(1).sum()) for reward in rewards) > 10


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
def test_leaving_the_square_costs_what_it_costs_in_mpe2(continuous: bool):
    kwargs = tag(2, 2, 4, continuous, cycles=40)
    rewards = assert_twins(make(NAME, **kwargs), NAME, flee, **kwargs)
    paid = -torch.stack([reward["agent"] for reward in rewards])
    assert float(paid.min()) == 0
    for least, most in ((0.01, 0.99), (1.01, 9.9), (10.0, 20.0)):  # each branch
        assert ((paid >= least) & (paid <= most)).any()


def test_obstacles_push_the_agents_away_and_do_not_move():
    env = make(NAME, 50, num_adversaries=1, num_obstacles=1)
    env.reset(1)
    adversary, far = env.pos[:2], env.pos[2:4] + 9
    obstacle = adversary + torch.tensor([[0.1], [0.0]])  # to the right, overlapping
    env.load_state_dict(env.state_dict() | {"pos": torch.cat([adversary, far, obstacle])})
    env.step({"adversary": torch.zeros(50, 1).long(), "agent": torch.zeros(50, 1).long()})
    assert (env.vel[0] < -0.5).all()
    assert torch.equal(env.pos[4:], obstacle)


def test_nobody_is_faster_than_its_limit():
    env = make(NAME, 50)
    obs = env.reset(1)
    for _ in range(24):
        obs = env.step(flee(env, obs, torch.Generator())).obs
    speed = env.vel.unflatten(0, (4, 2)).norm(dim=1).amax(1)
    torch.testing.assert_close(speed, torch.tensor([1.0, 1.0, 1.0, 1.3], dtype=torch.float64))


def test_obstacles_begin_a_little_inside_the_square():
    env = make(NAME, 4000)
    env.reset(1)
    reach = env.pos.abs().amax(1)
    torch.testing.assert_close(reach[:8], torch.ones(8, dtype=torch.float64), atol=0.01, rtol=0)
    torch.testing.assert_close(reach[8:], torch.full((4,), 0.9, dtype=torch.float64), atol=0.01, rtol=0)
