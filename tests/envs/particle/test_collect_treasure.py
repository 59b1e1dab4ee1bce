"""collect_treasure beside mpe2's own: who picks up what, who delivers it, and what lies where afterwards."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch

from marl_stable.envs.particle import ParticleEnv
from marl_stable.envs.particle.collect_treasure import NOTHING, CollectTreasure
from marl_stable.types import Box, PerGroup
from tests.envs.particle.twins import Actor, assert_twins, make, random_actions, roughly, towards

NAME = "collect_treasure_v1"
KEYS = ("num_collectors", "num_deposits", "num_treasures")
SIZES = ((6, 2, 6), (1, 1, 1), (2, 3, 8), (5, 1, 2))


def treasures(sizes: tuple[int, ...], continuous: bool = False, cycles: int = 25) -> dict[str, Any]:
    return dict(zip(KEYS, sizes, strict=True)) | {"max_cycles": cycles, "continuous_actions": continuous}


def collect(env: ParticleEnv, obs: PerGroup, draw: torch.Generator) -> PerGroup:
    """Collectors go to the nearest treasure, or to the deposit of what they hold; deposits wait."""
    assert isinstance(env, CollectTreasure)
    continuous = isinstance(env.spec.groups[0].action, Box)
    place = env.pos.unflatten(0, (-1, 2)).permute(2, 0, 1).float()  # (E, M, 2)
    collectors, deposits = place[:, env.collectors], place[:, env.deposits]
    free = env.holding.T == NOTHING
    nearest = obs["collector"][..., -len(env.kind) * (2 + len(env._kinds)) :][..., :2]
    own = env.holding.T.clamp(min=0).unsqueeze(-1).expand(-1, -1, 2)
    offset = torch.where(free.unsqueeze(-1), nearest, deposits.gather(1, own) - collectors)
    still = {"deposit": random_actions(env, obs, draw)["deposit"] * 0}
    return roughly({"collector": towards(offset, continuous)} | still, draw)


def state_of(env: ParticleEnv) -> CollectTreasure:
    assert isinstance(env, CollectTreasure)
    return env


@pytest.mark.parametrize(
    ("sizes", "continuous", "act"),
    [
        *product(SIZES[:1], (False, True), (random_actions, collect)),
        *zip(SIZES[1:], (True, False, True), (collect,) * 3, strict=True),
    ],
)
def test_it_equals_mpe2(sizes: tuple[int, ...], continuous: bool, act: Actor):
    kwargs = treasures(sizes, continuous)
    assert_twins(make(NAME, **kwargs), NAME, act, **kwargs)


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
def test_long_collecting_equals_mpe2s(continuous: bool):
    kwargs = treasures((3, 2, 3), continuous, cycles=60)
    rewards = assert_twins(make(NAME, 2, **kwargs), NAME, collect, **kwargs)
    assert sum(int((reward["deposit"] > 4).all(1).sum()) for reward in rewards) > 10  # what is found and delivered


def placed(*places: tuple[float, float], **remembered: torch.Tensor) -> tuple[CollectTreasure, torch.Tensor]:
    """Two collectors, two deposits and two treasures at these places, and what is paid to the first after a step."""
    env = state_of(make(NAME, 1, **treasures((2, 2, 2))))
    env.reset(1)
    pos = torch.tensor(places, dtype=torch.float64).flatten().unsqueeze(1)
    env.load_state_dict(env.state_dict() | {"pos": pos} | remembered)
    step = env.step({"collector": torch.zeros(1, 2).long(), "deposit": torch.zeros(1, 2).long()})
    return env, step.reward["collector"][0]


FAR = ((0.9, 0.9), (0.9, -0.9))  # where the deposits wait


def test_a_treasure_goes_to_the_first_that_touches_it_and_one_holds_one_only():
    env, _ = placed((0.0, 0.0), (0.0, 0.05), *FAR, (0.0, 0.0), (-0.02, 0.0), kind=torch.tensor([[1], [0]]))
    assert env.holding.tolist() == [[1], [0]]  # the second treasure is left to the second collector
    assert env.present.tolist() == [[False], [False]]
    env, _ = placed((0.0, 0.0), (0.5, 0.5), *FAR, (0.0, 0.0), (-0.02, 0.0), kind=torch.tensor([[1], [0]]))
    assert env.holding.tolist() == [[1], [NOTHING]]
    assert env.present.tolist() == [[False], [True]]


def test_what_is_picked_up_beside_its_deposit_is_delivered_at_once():
    env, paid = placed(
        (0.0, 0.0), (0.7, 0.0), (0.0, 0.1), (0.9, -0.9), (0.0, 0.0), (0.2, 0.0), kind=torch.zeros(2, 1).long()
    )
    assert env.holding.tolist() == [[NOTHING], [NOTHING]]
    torch.testing.assert_close(paid, torch.tensor([10 - 0.02, 10 - 0.05]))


def test_nothing_is_delivered_to_the_deposit_of_another_kind():
    held = torch.tensor([[1], [NOTHING]])
    env, _ = placed((0.0, 0.0), (0.7, 0.0), (0.0, 0.1), (0.9, -0.9), (0.5, 0.5), (0.2, 0.9), holding=held)
    assert env.holding.tolist() == held.tolist()


def test_what_was_picked_up_is_back_after_a_step_somewhere_and_of_any_kind():
    env = state_of(make(NAME, 2000))
    env.reset(1)
    state = env.state_dict()
    state["present"] = torch.zeros_like(state["present"])
    state["pos"][16:] = -999.0
    obs = env.load_state_dict(state)
    assert obs["deposit"][..., -6 * 4 :].eq(0).all()
    obs = env.step({"collector": torch.zeros(2000, 6).long(), "deposit": torch.zeros(2000, 2).long()}).obs
    assert env.present.all()
    torch.testing.assert_close(env.pos[16:].abs().amax(1), torch.full((12,), 0.95).double(), atol=0.01, rtol=0)
    torch.testing.assert_close(env.kind.double().mean(1), torch.full((6,), 0.5).double(), atol=0.05, rtol=0)
    kinds = obs["deposit"][:, 0, -6 * 4 :].unflatten(1, (6, 4))[..., 2:]
    assert kinds.sum(-1).eq(1).all()


def test_others_and_treasures_are_seen_nearest_first():
    env = state_of(make(NAME, 200))
    obs = env.reset(1)["collector"]
    others = obs[..., 6:62].unflatten(-1, (7, 8))[..., :2].norm(dim=-1)
    assert others.diff(dim=-1).ge(0).all()
    assert obs[..., 62:].unflatten(-1, (6, 4))[..., :2].norm(dim=-1).diff(dim=-1).ge(0).all()
