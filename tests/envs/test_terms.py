"""Reward terms out of environments of every kind: their names, their numbers, and what must not depend on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from marl_stable.config import EnvConfig
from marl_stable.envs import catalog
from marl_stable.envs.aec import TurnCopy
from marl_stable.envs.base import BatchedEnv, lost
from marl_stable.envs.crew import LocalCrew
from marl_stable.envs.pettingzoo import ParallelCopy
from marl_stable.envs.terms import STEPS, find_terms
from marl_stable.envs.vector import VectorEnv
from marl_stable.types import spec_from_dict, spec_to_dict
from tests.envs.fakes import Turn, Turns, Walk
from tests.envs.itemised import BONUS_FROM, Itemised
from tests.envs.test_vector import assert_equal, play, saved

CPU = torch.device("cpu")
NAMES = ("own", "walk", "bonus")


def itemised(workers: int = 0, copies: int = 3, **config: Any) -> BatchedEnv:
    return catalog.make(EnvConfig(id="tests.envs.itemised:Itemised", workers=workers, **config), CPU, copies)


def local(make: Any, copies: int = 1, kind: Any = ParallelCopy) -> VectorEnv:
    return VectorEnv(LocalCrew(lambda: kind(make(), "walk"), "walk", copies), CPU)


def test_names_are_those_of_a_few_steps_in_order_of_appearance() -> None:
    env = itemised()
    (group,) = env.spec.groups
    assert group.terms == NAMES  # the bonus shows in the third step only
    assert 1 < BONUS_FROM < STEPS
    assert spec_from_dict(spec_to_dict(env.spec)) == env.spec


def test_terms_are_the_reward_step_by_step() -> None:
    env = itemised()
    env.reset(3)
    seen = play(env, 20)
    assert all(step.terms["agent"].shape == (3, 2, 3) for step in seen)
    for step in seen:
        assert torch.allclose(step.terms["agent"].sum(-1), step.reward["agent"], atol=1e-5)
    totals = torch.stack([step.terms["agent"] for step in seen]).abs().sum((0, 1, 2))
    assert (totals > 0).all()


def test_workers_copies_are_those_of_this_process_and_so_is_going_on() -> None:
    here, there = itemised(), itemised(workers=2)
    try:
        assert there.spec == here.spec
        assert_equal(here.reset(7), there.reset(7))
        assert_equal(play(here, 13), play(there, 13))
        state = saved(there)
        rest = play(here, 9, seed=2)
        assert_equal(rest, play(there, 9, seed=2))
        again = itemised(workers=1)
        again.load_state_dict(state)
        assert_equal(rest, play(again, 9, seed=2))
        again.close()
    finally:
        there.close()


def test_a_copy_that_is_given_up_has_no_terms() -> None:
    env = catalog.make(EnvConfig(id="tests.envs.itemised:Breaking", workers=1), CPU, 2)
    try:
        env.reset(1)
        broken = next(
            step for step in (env.step({"agent": torch.ones(2, 2).long()}) for _ in range(9)) if lost(step)[0]
        )
        assert (broken.terms["agent"][lost(broken)] == 0).all()
        after = env.step({"agent": torch.ones(2, 2).long()})  # in an environment made anew
        assert (after.terms["agent"][..., 0] == 1).all()
    finally:
        env.close()


def test_without_terms_one_harmless_step_is_all_that_it_costs() -> None:
    made: list[Walk] = []

    def make() -> Walk:
        made.append(Walk(action=spaces.Box(-1, 3, (2,))))
        return made[-1]

    env = local(make, 2)
    assert env.spec.groups[0].terms == ()
    assert [[{agent: x.tolist() for agent, x in move.items()} for move in walk.received] for walk in made] == [
        [{"agent_0": [1.0, 1.0], "agent_1": [1.0, 1.0]}],
        [],
    ]
    env.reset(0)
    assert play(env, 1)[0].terms == {}


def test_the_search_leaves_no_trace_in_what_follows() -> None:
    plain, searched = local(lambda: Itemised(report=False)), local(Itemised)
    assert_equal(plain.reset(4), searched.reset(4))
    for one, other in zip(play(plain, 12), play(searched, 12), strict=True):
        assert_equal(one._replace(terms={}), other._replace(terms={}))


@pytest.mark.parametrize("odd", [None, 3.0, {"own": "many"}, {"own": np.zeros(2)}, {"late": 1.0}, {}])
def test_what_is_no_term_stops_nothing(odd: Any) -> None:
    env = local(lambda: Itemised(odd_from=30, odd=odd))
    assert env.spec.groups[0].terms == NAMES
    env.reset(0)
    steps = play(env, 31)
    assert (steps[28].terms["agent"] != 0).any()
    assert (steps[30].terms["agent"] == 0).all()
    assert (steps[30].reward["agent"] != 0).any()


def test_an_environment_that_fails_while_it_is_searched_says_so_later() -> None:
    class Shy(Itemised):
        def step(self, actions: Any) -> Any:
            raise ValueError("not yet")

    assert local(Shy).spec.groups[0].terms == ()


def test_gymnasiums_info_is_the_agents() -> None:
    env = catalog.make(EnvConfig(id="tests.envs.itemised:Alone"), CPU, 2)
    assert env.spec.groups[0].terms == ("push", "cost")
    env.reset(0)
    for step in play(env, 5):
        assert torch.allclose(step.terms["agent"].sum(-1), step.reward["agent"])


class ItemisedTurns(Turns):
    """Reports what each agent gained in the turn, or (`since`) since its own last turn, and only to whom it `tells`."""

    def __init__(self, script: Any, since: bool = False, tells: str = "all", **kwargs: Any) -> None:
        super().__init__(script, **kwargs)
        self.since, self.tells = since, tells

    def _inform(self) -> None:
        super()._inform()
        told = self._cumulative_rewards if self.since else self.rewards
        for agent in self.agents:
            if self.turn and (self.tells == "all" or told[agent] != 0):
                self.infos[agent] = {"reward_terms": {"half": told[agent] / 2, "rest": told[agent] / 2}}


SCRIPT = [
    Turn({"agent_0": 2.0, "agent_1": 4.0}),
    Turn({"agent_1": -1.0, "agent_2": 6.0}),
    Turn({}),
    Turn({"agent_0": 8.0, "agent_2": 0.5}),
    Turn({"agent_2": 3.0}, terminated="agent_0 agent_1 agent_2"),
]


@pytest.mark.parametrize("since", [False, True], ids=["of the turn", "since the last turn"])
@pytest.mark.parametrize("tells", ["all", "only what is new"])
def test_terms_of_agents_in_turns_add_up_turn_by_turn(since: bool, tells: str) -> None:
    env = local(lambda: ItemisedTurns(SCRIPT, since=since, tells=tells), kind=TurnCopy)
    assert env.spec.groups[0].terms == ("half", "rest")
    env.reset(0)
    gained = 0.0
    for step in play(env, 10):
        assert torch.equal(step.terms["agent"], (step.reward["agent"] / 2).unsqueeze(-1).expand(-1, -1, 2))
        gained += float(step.reward["agent"].sum())
    assert gained == 45.0


def test_masked_groups_are_searched_with_legal_actions() -> None:
    script = [Turn(mask=[0, 0, 1]), Turn(mask=[0, 1, 0])]
    env = ItemisedTurns(script, masks="observation")
    find_terms(TurnCopy(env, "turns"))
    assert {action for _, action in env.received[1:]} <= {1, 2}
    assert len(env.received) == STEPS


def test_ends_read_otherwise_and_teams_of_the_users_keep_terms() -> None:
    plain = itemised()
    both = itemised(time_limit_as="truncation", teams={"b": ["agent_1"], "a": ["agent_0"]})
    plain.reset(2), both.reset(2)
    assert [(group.name, group.terms) for group in both.spec.groups] == [("agent_0", NAMES), ("agent_1", NAMES)]
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        action = torch.randint(3, (3, 2), generator=generator)
        one, other = plain.step({"agent": action}), both.step({"agent_0": action[:, :1], "agent_1": action[:, 1:]})
        joined = torch.cat([other.terms["agent_0"], other.terms["agent_1"]], dim=1)
        assert torch.equal(one.terms["agent"], joined)


def test_groups_of_different_terms_that_become_one_have_those_of_both() -> None:
    env = catalog.make(EnvConfig(id="tests.envs.itemised:Apart", teams={"all": ["lead_0", "wing_0"]}), CPU, 2)
    (group,) = env.spec.groups
    assert group.terms == ("own", "walk", "bonus", "drag")
    env.reset(0)
    for step in play(env, 5):
        (terms,) = step.terms.values()
        (reward,) = step.reward.values()
        assert torch.allclose(terms.sum(-1), reward, atol=1e-5)
        assert (terms[:, 0, 3] == 0).all()
        assert (terms[:, 1, 3] == -1).all()


def test_shipped_environments_are_not_played_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ParallelCopy, "step", None)
    assert catalog.make(EnvConfig(id="mpe2/simple_v3"), CPU, 1).spec.groups[0].terms == ()


def turns() -> ItemisedTurns:
    """A factory."""
    return ItemisedTurns(SCRIPT)
