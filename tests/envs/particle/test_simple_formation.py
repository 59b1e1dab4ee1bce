"""simple_formation beside mpe2's own: the circle, the agent it begins at, and who goes where."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest
import torch

from marl_stable.envs.particle import ParticleEnv
from marl_stable.types import Box, PerGroup
from tests.envs.particle.twins import Actor, assert_twins, make, random_actions, roughly, towards

NAME = "simple_formation_v1"


def gather(env: ParticleEnv, obs: PerGroup, draw: torch.Generator) -> PerGroup:
    """Everyone goes to the landmark, and bumps into the others."""
    continuous = isinstance(env.spec.groups[0].action, Box)
    return roughly({"agent": towards(obs["agent"][..., 4:6], continuous)}, draw)


def leave(env: ParticleEnv, obs: PerGroup, draw: torch.Generator) -> PerGroup:
    """Everyone goes where a distance counts no more."""
    continuous = isinstance(env.spec.groups[0].action, Box)
    return roughly({"agent": towards(obs["agent"][..., 2:4], continuous)}, draw)


@pytest.mark.parametrize(
    ("n", "continuous", "act"),
    [
        *product((4,), (False, True), (random_actions, gather, leave)),
        *((1, True, gather), (3, False, leave), (6, True, gather)),
    ],
)
def test_it_equals_mpe2(n: int, continuous: bool, act: Actor):
    kwargs: dict[str, Any] = {"N": n, "max_cycles": 25, "continuous_actions": continuous}
    rewards = assert_twins(make(NAME, **kwargs), NAME, act, **kwargs)
    assert act is not leave or float(rewards[-1]["agent"].max()) == -2


def test_on_the_circle_nothing_is_paid_whoever_stands_where():
    env = make(NAME, 3, N=4)
    env.reset(1)
    begin = torch.tensor([0.1, 0.7, 1.4], dtype=torch.float64)  # one angle per copy
    angles = begin + torch.tensor([2.0, 0.0, 3.0, 1.0], dtype=torch.float64).unsqueeze(1) * math.pi / 2
    places = torch.stack([angles.cos(), angles.sin()], 1).mul(0.5).flatten(0, 1) + env.pos[8:].repeat(4, 1)
    env.load_state_dict(env.state_dict() | {"pos": torch.cat([places, env.pos[8:]])})
    step = env.step({"agent": torch.zeros(3, 4).long()})
    torch.testing.assert_close(step.reward["agent"], torch.zeros(3, 4), atol=1e-6, rtol=0)


def test_the_landmark_lies_near_the_middle():
    env = make(NAME, 4000)
    env.reset(1)
    torch.testing.assert_close(env.pos[8:].abs().amax(1), torch.full((2,), 0.5).double(), atol=0.01, rtol=0)
