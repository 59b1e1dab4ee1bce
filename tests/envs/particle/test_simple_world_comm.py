"""simple_world_comm beside mpe2's own: forests, food, the leader's word, and a chase."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch

from marl_stable.envs.particle import ParticleEnv
from marl_stable.envs.particle.simple_world_comm import SimpleWorldComm
from marl_stable.types import Box, PerGroup
from tests.envs.particle.twins import Actor, assert_twins, make, random_actions, roughly, towards

NAME = "simple_world_comm_v3"
KEYS = ("num_good", "num_adversaries", "num_obstacles", "num_food", "num_forests")
SIZES = ((2, 4, 1, 2, 2), (1, 1, 0, 1, 0), (3, 2, 2, 3, 1), (2, 3, 0, 1, 4))


def world(sizes: tuple[int, ...], continuous: bool = False, cycles: int = 25) -> dict[str, Any]:
    return dict(zip(KEYS, sizes, strict=True)) | {"max_cycles": cycles, "continuous_actions": continuous}


def going(env: ParticleEnv, obs: PerGroup, draw: torch.Generator, to: dict[str, torch.Tensor]) -> PerGroup:
    """Moves along the offsets `to`; what the leader says is left to chance."""
    continuous = isinstance(env.spec.groups[0].action, Box)
    moves = roughly({name: towards(offset, continuous) for name, offset in to.items()}, draw)
    said = random_actions(env, obs, draw)["leadadversary"]
    lead = moves["leadadversary"]
    moves["leadadversary"] = torch.cat([lead, said[..., 5:]], -1) if continuous else lead + 5 * (said // 5)
    return moves


def chase(env: ParticleEnv, obs: PerGroup, draw: torch.Generator) -> PerGroup:
    """Adversaries go to the first good agent where they see it; good agents go to the first food."""
    assert isinstance(env, SimpleWorldComm)
    landmarks = env.entities - len(env.movers)
    food = 4 + 2 * (landmarks - env.food - env._forests.count)
    prey = 4 + 2 * (landmarks + env.adversaries - 1)
    first = {name: food if name == "agent" else prey for name in obs}
    return going(env, obs, draw, {name: seen[..., first[name] : first[name] + 2] for name, seen in obs.items()})


def hide(env: ParticleEnv, obs: PerGroup, draw: torch.Generator) -> PerGroup:
    """Everyone goes to the last forest."""
    last = 4 + 2 * (env.entities - len(env.movers)) - 2
    return going(env, obs, draw, {name: seen[..., last : last + 2] for name, seen in obs.items()})


def flee(env: ParticleEnv, obs: PerGroup, draw: torch.Generator) -> PerGroup:
    """Everyone leaves the square for good."""
    return going(env, obs, draw, {name: seen[..., 2:4] for name, seen in obs.items()})


def placed(env: ParticleEnv, *places: tuple[float, float]) -> PerGroup:
    """What is seen where entities are at these places, one after the other, in every copy."""
    pos = torch.tensor(places, dtype=torch.float64).flatten().unsqueeze(1).repeat(1, env.num_envs)
    return env.load_state_dict(env.state_dict() | {"pos": pos})


@pytest.mark.parametrize(
    ("sizes", "continuous", "act"),
    [
        *product(SIZES[:1], (False, True), (random_actions, chase, hide)),
        *zip(SIZES[1:], (True, False, True), (chase, hide, hide), strict=True),
    ],
)
def test_it_equals_mpe2(sizes: tuple[int, ...], continuous: bool, act: Actor):
    kwargs = world(sizes, continuous)
    assert_twins(make(NAME, **kwargs), NAME, act, **kwargs)


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
def test_what_is_paid_for_catches_food_and_leaving_equals_mpe2s(continuous: bool):
    kwargs = world(SIZES[0], continuous, cycles=40)
    chased = assert_twins(make(NAME, 4, **kwargs), NAME, chase, velocity=2.0, **kwargs)
    assert sum(int((reward["adversary"] > 4).all(1).sum()) for reward in chased) > 10
    assert sum(int((reward["agent"] > 1.5).sum()) for reward in chased) > 5
    fled = assert_twins(make(NAME, 1, **kwargs), NAME, flee, **kwargs)
    assert min(float(reward["agent"].min()) for reward in fled) < -20


def test_forests_hide_those_inside_from_those_outside_but_not_from_the_leader():
    env = make(NAME, 2, **world((2, 2, 0, 1, 2)))
    env.reset(1)
    food, forests = (0.9, 0.9), ((-0.5, -0.5), (0.5, -0.5))
    # the leader and another adversary in the open, the good agents in one forest
    obs = placed(env, (0.0, 0.0), (0.0, 0.5), (-0.5, -0.6), (-0.4, -0.5), food, *forests)
    others, forest = slice(10, 16), slice(20, 22)
    torch.testing.assert_close(obs["leadadversary"][0, 0, others], torch.tensor([0.0, 0.5, -0.5, -0.6, -0.4, -0.5]))
    torch.testing.assert_close(obs["adversary"][0, 0, others], torch.tensor([0.0, -0.5, 0.0, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(obs["agent"][0, 0, others], torch.tensor([0.0, 0.0, 0.0, 0.0, 0.1, 0.1]))
    assert obs["adversary"][0, 0, forest].tolist() == [-1, -1]
    assert obs["agent"][0, :, 16:18].tolist() == [[1, -1], [1, -1]]
    # now the good agents in different forests
    obs = placed(env, (0.0, 0.0), (0.0, 0.5), (-0.5, -0.6), (0.5, -0.6), food, *forests)
    assert obs["agent"][0, :, others].eq(0).all()
    assert obs["agent"][0, :, 16:18].tolist() == [[1, -1], [-1, 1]]


def test_adversaries_hear_the_leader_and_good_agents_do_not():
    env = make(NAME, 20)
    first = env.reset(1)
    assert first["adversary"][..., -4:].eq(0).all()
    word = torch.arange(20) % 4
    still = {"adversary": torch.zeros(20, 3).long(), "agent": torch.zeros(20, 2).long()}
    obs = env.step(still | {"leadadversary": 5 * word.unsqueeze(1)}).obs
    heard = torch.nn.functional.one_hot(word, 4).float()
    for name in ("leadadversary", "adversary"):
        assert torch.equal(obs[name][..., -4:], heard.unsqueeze(1).expand(-1, obs[name].shape[1], -1))
    assert torch.equal(obs["agent"][..., 4:14], first["agent"][..., 4:14])


def test_landmarks_begin_a_little_inside_the_square():
    env = make(NAME, 4000)
    env.reset(1)
    reach = env.pos.abs().amax(1)
    torch.testing.assert_close(reach[:12], torch.ones(12, dtype=torch.float64), atol=0.01, rtol=0)
    torch.testing.assert_close(reach[12:], torch.full((10,), 0.9, dtype=torch.float64), atol=0.01, rtol=0)
