"""Whether a critic's slopes are told from noise: critics that are right, wrong and at random, on a game of aim."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from marl_stable.agents.ddpg_learner import Drawn, Joint
from marl_stable.agents.maddpg import MADDPG
from marl_stable.agents.mappo import MAPPO
from marl_stable.envs.probe import Aim
from marl_stable.investigate.reward import critic
from marl_stable.investigate.reward.arena import Arena
from marl_stable.types import PerGroup
from tests.agents.loops import make_agent, make_ddpg

CPU = torch.device("cpu")


def middle(obs: PerGroup, _: int) -> PerGroup:
    """The centre of the action space, always."""
    return {"agent": torch.tensor([-1.0, 0.005]).expand(*obs["agent"].shape[:2], 2)}


@pytest.fixture
def arena() -> Arena:
    return Arena(Aim(32, CPU), 5, 4, 1, 8)


@pytest.mark.parametrize("algo", ["maddpg", "iddpg"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_critic_that_is_right_agrees_with_the_environment(
    arena: Arena, algo: str, sign: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = make_ddpg(arena.env, algo)
    assert isinstance(agent, MADDPG)
    learner = agent.learners["agent"]

    def value(action: torch.Tensor, drawn: Drawn, now: Joint) -> torch.Tensor:
        worth: torch.Tensor = -sign * (action - 0.8 * drawn.obs).square().sum(-1)
        return worth

    monkeypatch.setattr(learner, "value_of_own", value)
    monkeypatch.setattr(learner, "normalized", lambda obs: obs)
    found = critic.agreement(arena, agent, middle)
    assert found is not None
    assert found.correlation * sign > 0.9


def test_a_fresh_critic_is_asked_in_raw_rewards_and_whole_joint_actions(arena: Arena) -> None:
    found = critic.agreement(arena, make_ddpg(arena.env, "maddpg"), middle)
    assert found is not None
    assert -1 <= found.correlation <= 1
    assert found.cases > critic.FEWEST


def test_ppo_has_no_critic_of_actions(arena: Arena) -> None:
    agent = make_agent(arena.env, "mappo")
    assert isinstance(agent, MAPPO)
    assert critic.agreement(arena, agent, middle) is None


def test_what_nobody_noticed_tells_nothing() -> None:
    said, real = np.random.default_rng(0).normal(size=(2, 100))
    assert critic.compared(said, np.zeros(100)) is None
    assert critic.compared(said[:10], real[:10]) is None
    found = critic.compared(real * 3, real)
    assert found is not None
    assert found.correlation == pytest.approx(1)
    assert found.signs == 1
