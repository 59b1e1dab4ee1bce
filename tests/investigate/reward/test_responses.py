"""What single actions change, against games in which that is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from marl_stable.config import EnvConfig
from marl_stable.investigate.reward import arena as arenas
from marl_stable.investigate.reward import responses
from marl_stable.types import MultiDiscrete
from tests.investigate.reward import games
from tests.investigate.reward.games import Line, arena

PLANTED = Path(__file__).parents[1] / "doctor" / "planted" / "sound.py"


def told(game: type[Line], **sizes: int) -> dict[str, dict[str, Any]]:
    return {entry["term"]: entry for entry in responses.responses(arena(game, **sizes))}


def test_what_is_held_is_paid_for_as_long_as_it_is_held() -> None:
    entry = told(games.Constant)["right"]  # paid for the push itself
    assert entry["at"] == [-1, -0.5, 0, 0.5, 1]
    assert (entry["steps"], entry["range"], entry["trials"]) == (4, True, 12 * 48)
    for push, mean, error in zip(entry["at"], entry["mean"], entry["error"], strict=True):
        assert mean == pytest.approx(4 * push, abs=4 * error)
        assert 0 < error < 0.2


def test_a_cost_that_is_squared_is_least_in_the_middle() -> None:
    effort = told(Line)["effort"]
    usual = 4 * 0.2 / 3  # of uniform pushes
    assert effort["mean"][2] == pytest.approx(usual, abs=0.05)
    assert effort["mean"][0] == pytest.approx(usual - 0.8, abs=0.05)
    assert effort["mean"][4] == pytest.approx(usual - 0.8, abs=0.05)


def test_what_helps_here_and_harms_there_has_a_wide_band() -> None:
    near = told(Line)["near"]
    assert near["low"][4] < -0.5
    assert near["high"][4] > 0.5


def test_a_term_that_actions_do_not_move_stays_exactly_as_it_was() -> None:
    weather = told(games.Noise)["weather"]
    assert weather["mean"] == weather["low"] == weather["high"] == [0.0] * 5


def test_after_an_end_nothing_is_paid() -> None:
    alive = told(games.Alive)["alive"]  # 2 a step
    limit = 2 * 2 * alive["steps"]
    assert all(-limit <= value <= limit for value in [*alive["low"], *alive["high"]])
    assert min(alive["low"]) < 0  # pushing on leaves the middle, and ends what is paid


@pytest.mark.parametrize("name", ["Masked", "Turns"])
def test_what_masks_forbid_is_never_tried(name: str) -> None:
    made = arenas.opened(EnvConfig(id=f"{PLANTED}:{name}"))  # it refuses illegal actions
    try:
        found = responses.responses(made)
    finally:
        made.env.close()
    assert {tuple(entry["at"]) for entry in found} == {(0.0, 1.0, 2.0)}
    assert not any(entry["range"] for entry in found)


def test_of_many_choices_some_are_tried_evenly_and_always_the_same() -> None:
    many = arena(Line).spec.groups[0]._replace(action=MultiDiscrete((50, 3), (0, 0)))
    assert responses.dimensions(many) == 2
    assert len(responses.choices(many, 0)) == responses.MOST_CHOICES
    assert responses.choices(many, 0)[[0, -1]].tolist() == [0, 49]
    assert responses.choices(many, 1).tolist() == [0, 1, 2]
    assert told(Line) == told(Line)


def test_where_time_is_short_less_is_tried_and_that_is_said() -> None:
    late = arena(games.Constant)
    late.until = 0.0
    (entry,) = responses.responses(late)
    assert entry["trials"] == 48
    assert late.left_out == ["most trials of single actions"]
