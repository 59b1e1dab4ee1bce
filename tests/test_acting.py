"""Who acts: an agent, chance with every kind of action, or one for some groups and another for the rest."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from marl_stable.acting import Told, at_random, by_agent, mixed, random_action
from marl_stable.agents.config import MAPPOConfig
from marl_stable.agents.mappo import MAPPO
from marl_stable.config import NetworkConfig
from marl_stable.evaluation import Remembering
from marl_stable.types import Box, Discrete, EnvSpec, Group, MultiDiscrete, PerGroup

CPU = torch.device("cpu")
DISCRETE = Group("choose", ("choose_0", "choose_1"), 3, Discrete(4, start=7), "red")
MASKED = Group("masked", ("masked_0",), 6, Discrete(5), "red", masked=True)
SEVERAL = Group("several", ("several_0", "several_1"), 2, MultiDiscrete((2, 5), (0, 1)), "blue")
BOX = Group("move", ("move_0", "move_1", "move_2"), 4, Box((-1.0, 0.0), (3.0, 0.5)), "blue")
COPIES = 4_000


def draw(group: Group, seed: int = 0, obs: torch.Tensor | None = None) -> torch.Tensor:
    obs = torch.zeros(COPIES, len(group.agents), group.obs_size) if obs is None else obs
    return random_action(group, obs, torch.Generator().manual_seed(seed))


def shares(actions: torch.Tensor, n: int) -> torch.Tensor:
    return torch.bincount(actions.flatten(), minlength=n) / actions.numel()


def test_every_choice_is_as_likely_and_numbered_from_zero() -> None:
    actions = draw(DISCRETE)
    assert (actions.shape, actions.dtype) == ((COPIES, 2), torch.int64)
    assert torch.allclose(shares(actions, 4), torch.full((4,), 0.25), atol=0.025)
    several = draw(SEVERAL)
    assert (several.shape, several.dtype) == ((COPIES, 2, 2), torch.int64)
    for k, n in enumerate((2, 5)):
        assert torch.allclose(shares(several[..., k], n), torch.full((n,), 1 / n), atol=0.025)
    assert abs(torch.corrcoef(several.flatten(0, 1).T.float())[0, 1]) < 0.05  # choices are independent


def test_a_box_is_filled_evenly_between_its_bounds() -> None:
    actions = draw(BOX)
    assert (actions.shape, actions.dtype) == ((COPIES, 3, 2), torch.float32)
    for d, (low, high) in enumerate(((-1.0, 3.0), (0.0, 0.5))):
        places = (actions[..., d] - low) / (high - low)
        assert places.min() >= 0
        assert places.max() <= 1
        assert torch.allclose(torch.histc(places, 5, 0, 1) / places.numel(), torch.full((5,), 0.2), atol=0.025)


@pytest.mark.parametrize("legal", [[0, 1, 1, 0, 1], [0, 0, 0, 1, 0], [1, 1, 1, 1, 1]])
def test_with_a_mask_only_legal_actions_are_drawn_and_all_of_them_alike(legal: list[int]) -> None:
    obs = torch.cat([torch.full((COPIES, 1, 1), 9.0), torch.tensor(legal).float().expand(COPIES, 1, 5)], dim=-1)
    wanted = torch.tensor(legal) / sum(legal)
    found = shares(draw(MASKED, obs=obs), 5)
    assert torch.allclose(found, wanted, atol=0.035)
    assert (found[wanted == 0] == 0).all()


def test_where_a_mask_allows_nothing_any_action_will_do() -> None:
    assert torch.allclose(shares(draw(MASKED), 5), torch.full((5,), 0.2), atol=0.035)


SPEC = EnvSpec("mixed", tuple(a for g in (DISCRETE, BOX) for a in g.agents), (DISCRETE, BOX))
OBS = {
    g.name: torch.randn(8, len(g.agents), g.obs_size, generator=torch.Generator().manual_seed(5)) for g in SPEC.groups
}


def agent(seed: int) -> MAPPO:
    config = replace(MAPPOConfig(), gamma=0.9, batch_size=1, num_minibatches=1)
    return MAPPO(SPEC, replace(config, network=NetworkConfig((8,), final_init=2.0)), 1, CPU, seed=seed)


def same(one: PerGroup, other: PerGroup) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_an_agent_acts_greedily_unless_it_is_given_something_to_draw_with() -> None:
    it = agent(0)
    greedy = by_agent(it)(OBS)
    assert same(greedy, it.to_env({name: answer.mode() for name, answer in it.policy(OBS).items()}))
    drawing = by_agent(it, torch.Generator().manual_seed(1))
    first, second = drawing(OBS), drawing(OBS)
    assert not same(first, greedy)
    assert not same(first, second)
    assert same(by_agent(it, torch.Generator().manual_seed(1))(OBS), first)


def test_each_acts_for_its_own_groups_in_the_order_of_the_environment() -> None:
    one, other = by_agent(agent(0)), by_agent(agent(1))
    assert not same(one(OBS), other(OBS))
    found = mixed(SPEC, one, ["move"], other)(OBS)
    assert same(found, {"choose": other(OBS)["choose"], "move": one(OBS)["move"]})
    chance = at_random(SPEC, torch.Generator().manual_seed(3))
    assert [tuple(x.shape) for x in mixed(SPEC, one, ["choose"], chance)(OBS).values()] == [(8, 2), (8, 3, 2)]


def test_only_those_who_remember_are_told_where_episodes_end() -> None:
    told: list[torch.Tensor] = []
    chance = at_random(SPEC, torch.Generator().manual_seed(3))
    assert not isinstance(chance, Remembering)
    both = mixed(
        SPEC, Told(by_agent(agent(0)), told.append), ["move"], mixed(SPEC, chance, [], Told(chance, told.append))
    )
    assert isinstance(both, Remembering)
    done = torch.arange(8) > 3
    both.ended(done)
    assert [torch.equal(x, done) for x in told] == [True, True]
