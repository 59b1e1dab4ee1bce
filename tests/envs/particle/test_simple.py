"""simple beside mpe2's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from marl_stable.envs.particle import ParticleEnv
from marl_stable.types import Box, PerGroup
from tests.envs.particle.twins import Actor, assert_twins, make, random_actions, roughly, towards

NAME = "simple_v3"


def go(env: ParticleEnv, obs: PerGroup, draw: torch.Generator) -> PerGroup:
    continuous = isinstance(env.spec.groups[0].action, Box)
    return roughly({"agent": towards(obs["agent"][..., 2:4], continuous)}, draw)


@pytest.mark.parametrize("act", [random_actions, go])
@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
def test_it_equals_mpe2(continuous: bool, act: Actor):
    kwargs: dict[str, Any] = {"max_cycles": 25, "continuous_actions": continuous}
    assert_twins(make(NAME, **kwargs), NAME, act, **kwargs)


def test_who_goes_to_the_landmark_pays_less_and_less():
    env = make(NAME, 100, max_cycles=40)
    obs = env.reset(1)
    paid = []
    for _ in range(30):
        step = env.step(go(env, obs, torch.Generator()))
        obs = step.obs
        paid.append(-step.reward["agent"].mean())
    assert paid[-1] < 0.1 * paid[0]
