"""Which actions do anything: found by plays that differ in one choice."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from marl_stable.envs.particle import make
from marl_stable.envs.probe import GAMES, Aim, Allowed, Match, Probe, Relay, Remember
from marl_stable.investigate.effects import effects
from marl_stable.types import Discrete, MultiDiscrete
from tests.investigate.games import (
    CPU,
    Healthy,
)


class Switch(Match):
    """Choices 0 and 2 do the same."""

    action = Discrete(4)

    def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
        return torch.tensor([0.0, 1, 0, 2])[action], self._constant(0.0)


class Locks(Match):
    """The first of three choices is not looked at."""

    action = MultiDiscrete((2, 3, 2), (0, 0, 0))

    def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
        return (action[..., 1] + 10 * action[..., 2]).float(), self._constant(0.0)


def test_choices_that_do_the_same_as_the_first_are_listed() -> None:
    found = effects(Switch(6, CPU), 1)
    assert found["like_choice_0"] == [{"agent": "agent_0", "choices": [2]}]
    assert found["without_effect"] == found["untried"] == []
    found = effects(Locks(1, CPU), 1)
    assert found["without_effect"] == [{"agent": "agent_0", "dimension": 0}]
    assert found["like_choice_0"] == found["untried"] == []


@pytest.mark.parametrize("copies", [1, 3, 64])
@pytest.mark.parametrize("game", [Match, Aim, Remember, Allowed, Relay, GAMES["Recall"], GAMES["Roles"]])
def test_what_has_an_effect_is_found_with_few_copies_and_many(game: type[Probe], copies: int) -> None:
    found = effects(game(copies, CPU), 1)
    assert found["repeatable"]
    assert found["without_effect"] == found["like_choice_0"] == []
    assert found["untried"] == [] or (game is Allowed and copies < 64)  # where one action alone is allowed


@pytest.mark.parametrize("game", ["Silence", "Endless", "Ending"])
def test_games_in_which_nothing_can_be_done(game: str) -> None:
    assert effects(GAMES[game](8, CPU), 1)["without_effect"] == [{"agent": "agent_0"}]


def test_illegal_actions_are_never_tried_and_bounds_are_kept() -> None:
    class Obeyed(Allowed):
        def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
            assert self.obs[..., 1:].gather(-1, action.unsqueeze(-1)).eq(1).all()
            return super()._play(action)

    class Within(Aim):
        def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
            low, high = torch.tensor(self.action.low), torch.tensor(self.action.high)
            assert ((action >= low) & (action <= high)).all()
            return super()._play(action)

    effects(Obeyed(32, CPU), 1)
    effects(Within(32, CPU), 1)


def test_one_choice_alone_cannot_be_changed() -> None:
    class Forced(Match):
        action = Discrete(1)

    assert effects(Forced(4, CPU), 1)["untried"] == [{"agent": "agent_0"}]


def test_only_so_many_steps_are_played() -> None:
    class Counted(Healthy):
        steps = 0
        length = 100

        def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
            Counted.steps += self.num_envs
            return super()._play(action)

    class Many(Counted):
        action = Discrete(200)

        def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
            return super()._play(action.unsqueeze(-1) * torch.tensor([0.01, 0.02]))

    found = effects(Many(4, CPU), 1)
    assert found["without_effect"] == found["like_choice_0"] == found["untried"] == []
    assert Counted.steps <= 1_000
    Counted.steps = 0
    effects(Many(600, CPU), 1)
    assert Counted.steps == 3 * 8 * 600


def test_what_was_not_tried_for_want_of_steps_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Crowd(Healthy):
        agents = 10

    monkeypatch.setattr("marl_stable.investigate.effects.BUDGET", 160)  # two pairs of plays, and the repetition
    found = effects(Crowd(4, CPU), 1)
    assert len(found["untried"]) == 20 - 2 * 4
    assert found["without_effect"] == []


def test_the_first_number_of_a_continuous_push_is_nothing_in_the_particle_world() -> None:
    found = effects(make("simple_spread_v3", 20, CPU, continuous_actions=True), 1)
    assert found["without_effect"] == [{"agent": f"agent_{i}", "dimension": 0} for i in range(3)]
