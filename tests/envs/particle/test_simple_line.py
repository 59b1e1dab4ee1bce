"""simple_line beside mpe2's own: the line, wherever it lies, and who goes where."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch

from marl_stable.envs.particle import ParticleEnv
from marl_stable.types import Box, PerGroup
from tests.envs.particle.twins import Actor, assert_twins, make, random_actions, roughly, towards

NAME = "simple_line_v1"


def gather(env: ParticleEnv, obs: PerGroup, draw: torch.Generator) -> PerGroup:
    """Everyone goes to the first landmark, and bumps into the others."""
    continuous = isinstance(env.spec.groups[0].action, Box)
    return roughly({"agent": towards(obs["agent"][..., 4:6], continuous)}, draw)


@pytest.mark.parametrize(
    ("n", "continuous", "act"),
    [
        *product((4,), (False, True), (random_actions, gather)),
        *((1, True, gather), (2, False, gather), (6, True, gather)),
    ],
)
def test_it_equals_mpe2(n: int, continuous: bool, act: Actor):
    kwargs: dict[str, Any] = {"N": n, "max_cycles": 25, "continuous_actions": continuous}
    assert_twins(make(NAME, **kwargs), NAME, act, **kwargs)


def test_on_the_line_nothing_is_paid_whoever_stands_where():
    env = make(NAME, 5, N=3)
    env.reset(1)
    first, other = env.pos[6:8], env.pos[8:]
    state = env.state_dict() | {"pos": torch.cat([other, first, (first + other) / 2, first, other])}
    env.load_state_dict(state)
    step = env.step({"agent": torch.zeros(5, 3).long()})
    torch.testing.assert_close(step.reward["agent"], torch.zeros(5, 3), atol=1e-6, rtol=0)


def test_every_line_is_as_long_and_inside_the_square():
    env = make(NAME, 4000)
    env.reset(1)
    first, other = env.pos[8:10], env.pos[10:]
    torch.testing.assert_close((other - first).norm(dim=0), torch.full((4000,), 1.25).double())
    torch.testing.assert_close(first.abs().amax(1), torch.full((2,), 0.25).double(), atol=0.01, rtol=0)
    assert float(other.abs().max()) < 1
    across, up = other - first
    quadrants = torch.stack([(across > 0) & (up > 0), (across > 0) & (up < 0), (across < 0) & (up > 0)])
    torch.testing.assert_close(quadrants.double().mean(1), torch.full((3,), 0.25).double(), atol=0.03, rtol=0)
