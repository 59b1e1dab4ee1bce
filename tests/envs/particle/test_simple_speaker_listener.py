"""simple_speaker_listener beside mpe2's own."""

from __future__ import annotations

from typing import Any

import pytest

from marl_stable.envs.particle.simple_speaker_listener import SimpleSpeakerListener
from tests.envs.particle.twins import assert_twins, make

NAME = "simple_speaker_listener_v4"


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
def test_it_equals_mpe2(continuous: bool):
    kwargs: dict[str, Any] = {"max_cycles": 25, "continuous_actions": continuous}
    env = make(NAME, num_envs=12, **kwargs)
    env.reset(seed=11)
    assert isinstance(env, SimpleSpeakerListener)
    assert set(env.goal.tolist()) == {0, 1, 2}
    assert_twins(env, NAME, **kwargs)
