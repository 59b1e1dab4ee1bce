"""Single-agent environments: one agent, one group, ends told apart, and what is refused."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from marl_stable.config import EnvConfig
from marl_stable.envs import catalog
from marl_stable.envs.gymnasium import SingleAgent, make
from marl_stable.envs.vector import episode_seed
from marl_stable.types import Box, Discrete, Group, UsageError

CPU = torch.device("cpu")


def test_a_gymnasium_environment_is_a_group_of_one_agent():
    spec = catalog.make(EnvConfig(id="gymnasium/CartPole-v1"), CPU, 2).spec
    assert spec.groups == (Group("agent", ("agent_0",), 4, Discrete(2), "team"),)
    spec = catalog.make(EnvConfig(id="gymnasium/Pendulum-v1"), CPU, 2).spec
    assert spec.groups == (Group("agent", ("agent_0",), 3, Box((-2.0,), (2.0,)), "team"),)


def test_it_steps_as_it_does_by_hand_and_a_fall_is_a_termination():
    env = catalog.make(EnvConfig(id="gymnasium/CartPole-v1"), CPU, 1)
    obs = env.reset(1)
    hand = gymnasium.make("CartPole-v1")
    first, _ = hand.reset(seed=episode_seed(1, 0, 0))
    np.testing.assert_array_equal(obs["agent"][0, 0].numpy(), first)
    for _ in range(100):
        step = env.step({"agent": torch.ones(1, 1).long()})
        observation, reward, terminated, truncated, _ = hand.step(1)
        np.testing.assert_array_equal(step.next_obs["agent"][0, 0].numpy(), observation)
        assert (step.reward["agent"].item(), step.terminated["agent"].item()) == (reward, terminated)
        assert (step.truncated["agent"].item(), step.done.item()) == (truncated, terminated)
        if terminated:
            break
    assert terminated
    assert step.obs["agent"].abs().max() < 0.05  # CartPole begins within this


def test_a_time_limit_is_a_truncation():
    env = catalog.make(EnvConfig(id="gymnasium/Pendulum-v1", kwargs={"max_episode_steps": 3}), CPU, 1)
    env.reset(1)
    steps = [env.step({"agent": torch.full((1, 1, 1), 2.0)}) for _ in range(3)]
    assert [step.truncated["agent"].item() for step in steps] == [False, False, True]
    assert not any(step.terminated["agent"].item() for step in steps)


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match=r"Did you mean .*gymnasium/CartPole-v1"):
        make("CartPol-v1", {})


def test_wrong_arguments_are_named():
    with pytest.raises(UsageError, match=r"gymnasium/Pendulum-v1 cannot be made with env\.kwargs .*gravity"):
        make("Pendulum-v1", {"gravity": 9.8})


@pytest.mark.parametrize(
    "error",
    [
        gymnasium.error.DependencyNotInstalled('run `pip install "gymnasium[box2d]"`'),
        ModuleNotFoundError("No module named 'Box2D'", name="Box2D"),
    ],
)
def test_a_missing_package_is_answered_with_what_to_install(error: Exception, monkeypatch: pytest.MonkeyPatch):
    def entry(**_: Any) -> Any:
        raise error

    monkeypatch.setitem(gymnasium.registry, "Needy-v0", gymnasium.envs.registration.EnvSpec("Needy-v0", entry))
    with pytest.raises(UsageError, match=r"gymnasium/Needy-v0 needs .*pip install"):
        make("Needy-v0", {})


def test_one_copy_can_be_drawn():
    env = catalog.make_single("gymnasium/CartPole-v1", {}, render_mode="rgb_array")
    assert isinstance(env, SingleAgent)
    env.reset(seed=1)
    assert env.render().shape == (400, 600, 3)
    assert env.render_mode == "rgb_array"
    env.close()
