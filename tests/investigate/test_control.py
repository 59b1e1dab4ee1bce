"""What actions can move of a reward: in games of which it is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from marl_stable.envs.particle import make
from marl_stable.envs.probe import Match, Relay
from marl_stable.investigate.control import BUDGET, FEWEST, control
from tests.monitor.causes.courts import Alive, Lingering, Storm, Weather

CPU = torch.device("cpu")


@pytest.mark.parametrize("game", [Weather, Storm])
def test_noise_is_nobodys_doing_and_the_way_is(game: Any) -> None:
    found = control(game(16, CPU), 3)
    assert found.keys() == {"agent_0", "agent_1"}
    for terms in found.values():
        assert terms["weather"] == 0
        assert 0.05 < terms["approach"] < 2


def test_terms_that_last_as_long_as_the_episode_are_moved() -> None:
    for terms in (control(Alive(16, CPU), 1), control(Lingering(16, CPU), 1)):
        assert terms["agent_0"]["alive"] > 0.3
        assert terms["agent_0"]["prize"] > 0.3


def test_a_reward_without_terms_is_one_and_what_never_varies_is_left_out() -> None:
    assert control(Match(16, CPU), 1)["agent_0"].keys() == {"reward"}
    assert control(Match(1, CPU), 1) == {"agent_0": {}}
    assert control(Relay(16, CPU), 1)["agent_1"]["reward"] > 0.3
    spread = control(make("simple_spread_v3", 8, CPU), 1)
    assert all(0.01 < terms["reward"] < 2 for terms in spread.values())


def test_plays_are_within_the_budget_and_their_actions_their_own() -> None:
    class Counted(Match):
        played = 0

        def step(self, action: Any) -> Any:
            type(self).played += 1
            return super().step(action)

    control(Counted(8, CPU), 1)
    assert 8 * Counted.played <= BUDGET
    Counted.played = 0
    control(Counted(1024, CPU), 1)
    assert Counted.played == 2 * FEWEST
