"""What each agent of a team contributes, on a game where that is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from marl_stable.envs.probe import Match
from marl_stable.evaluation import Remembering
from marl_stable.investigate import contributions
from marl_stable.types import PerGroup

CPU = torch.device("cpu")


class First(Match):
    """Both are paid for the first one's choice alone."""

    agents, length = 2, 2

    def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
        right = (action[:, :1] == (self.obs[:, :1, 0] > 0)).float()
        return right.expand(-1, 2).contiguous(), self._uniform().sign()


class Alone(Match):
    """One agent is no team."""


class Knowing:
    """An agent that answers rightly, and is told where episodes end."""

    def __init__(self) -> None:
        self.ends = 0

    def player(self) -> Any:
        """One that acts."""
        outer = self

        class Player:
            def __call__(self, obs: PerGroup) -> dict[str, Any]:
                class Answer:
                    def mode(self) -> Tensor:
                        return (obs["agent"].squeeze(-1) > 0).long()

                return {"agent": Answer()}

            def ended(self, done: Tensor) -> None:
                outer.ends += 1

        return Player()

    def to_env(self, raw: PerGroup) -> PerGroup:
        """As it is."""
        return raw


def test_only_those_are_missed_who_matter() -> None:
    agent: Any = Knowing()
    found = contributions.measure(agent, First(10, CPU), seed=1)
    assert list(found) == ["agent_0", "agent_1"]
    assert found["agent_1"] == {"loss": 0.0, "error": 0.0}  # episodes are compared one with one
    loss, error = found["agent_0"].values()
    assert abs(loss - 1.0) < 4 * error < 0.5  # half of two points
    assert found == contributions.measure(agent, First(10, CPU), seed=1)


def test_there_is_nothing_to_measure_where_there_is_no_team_or_no_time(monkeypatch) -> None:
    agent: Any = Knowing()
    assert contributions.measure(agent, Alone(10, CPU), seed=1) == {}
    monkeypatch.setattr(contributions, "BUDGET_STEPS", 2 * 3 * contributions.FEWEST_EPISODES - 1)
    assert contributions.measure(agent, First(10, CPU), seed=1) == {}


@pytest.mark.parametrize("calls", [0, 1, 5])
def test_an_end_that_is_asked_for_is_no_measurement(calls: int) -> None:
    agent: Any = Knowing()
    left = iter([False] * calls)
    assert contributions.measure(agent, First(10, CPU), seed=1, interrupted=lambda: next(left, True)) == {}


def test_who_is_replaced_acts_at_random_and_others_as_before() -> None:
    env, draw = First(500, CPU), torch.Generator().manual_seed(0)
    told: list[Tensor] = []

    class Zeros:
        def __call__(self, obs: PerGroup) -> PerGroup:
            return {"agent": torch.zeros(500, 2, dtype=torch.int64)}

        def ended(self, done: Tensor) -> None:
            told.append(done)

    act = contributions.replaced(env.spec, Zeros(), "agent_1", draw)
    action = act(env.reset(0))["agent"]
    assert action[:, 0].eq(0).all()
    assert 0.4 < action[:, 1].float().mean() < 0.6
    assert isinstance(act, Remembering)
    act.ended(torch.ones(500, dtype=torch.bool))
    assert len(told) == 1
