"""Actors of a group: which head answers, and where actions end up in the environment's range."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from marl_stable.networks.actors import Actor, DeterministicActor, encoded_size
from marl_stable.networks.heads import Categorical, Deterministic, Gaussian, MultiCategorical, SquashedGaussian
from marl_stable.types import ActionSpec, Box, Discrete, Group, MultiDiscrete
from tests.networks.small import SMALL, A, B, O, draw, obs


def actor(
    action: ActionSpec, share: bool = True, squash: bool = True, agents: int = A, log_std_init: float = 0.0
) -> Actor:
    group = Group("g", tuple(f"a{i}" for i in range(agents)), O, action, "team")
    return Actor(group, SMALL, share, squash, draw(), log_std_init)


# ---- heads


@pytest.mark.parametrize("share", [True, False])
def test_the_head_is_the_one_that_the_action_space_asks_for(share: bool):
    assert isinstance(actor(Discrete(5), share)(obs()), Categorical)
    assert isinstance(actor(Box((0.0,), (1.0,)), share)(obs()), SquashedGaussian)
    plain = actor(Box((0.0,), (1.0,)), share, squash=False)(obs())
    assert isinstance(plain, Gaussian)
    assert not isinstance(plain, SquashedGaussian)


@pytest.mark.parametrize(("share", "shape"), [(True, (2,)), (False, (A, 2))])
def test_deviations_start_alike_and_are_each_agents_own_where_nothing_is_shared(share: bool, shape: tuple[int, ...]):
    made = actor(Box((0.0, 0.0), (1.0, 1.0)), share, log_std_init=-1.5)
    assert made.free_log_std.shape == shape
    policy = made(obs())
    assert isinstance(policy, Gaussian)
    torch.testing.assert_close(policy.log_std.detach(), torch.full((B, A, 2), -1.5))
    (gradient,) = torch.autograd.grad(policy.log_prob(torch.zeros(B, A, 2))[:, 0].sum(), made.free_log_std)
    assert gradient.ne(0).any()
    if not share:
        assert gradient[1:].eq(0).all()


# ---- tanh and the scaling layer

BOUNDS = [
    ((-1.0,), (1.0,)),
    ((0.0,), (1.0,)),
    ((-3.0, 0.0), (1.0, 0.01)),
    ((-0.01,), (0.01,)),
    ((99.9,), (100.0,)),
    ((-1e6, 1e-6), (1e6, 2e-6)),
    ((0.1, -0.3, -2.7), (0.3, 0.1, 0.4)),
]


@pytest.mark.parametrize(("low", "high"), BOUNDS)
def test_the_tanh_reaches_exactly_from_bound_to_bound(low: tuple[float, ...], high: tuple[float, ...]):
    made = actor(Box(low, high))
    size = len(low)

    def at(u: float) -> Tensor:
        return made.to_env(torch.full((1, 1, size), u))[0, 0]

    assert torch.equal(at(20.0), torch.tensor(high))
    assert torch.equal(at(-20.0), torch.tensor(low))
    lower, upper = torch.tensor(low).double(), torch.tensor(high).double()
    rounding = 1e-6 * (upper - lower) + 1e-7 * torch.maximum(lower.abs(), upper.abs())
    for u, place in ((0.0, 0.5), (math.atanh(0.5), 0.75), (math.atanh(-0.8), 0.1)):
        assert (at(u).double() - (lower + place * (upper - lower))).abs().le(rounding).all()


def test_actions_never_leave_a_space_of_any_bounds():
    rng = np.random.default_rng(0)
    low = (rng.uniform(-1, 1, 5000) * 10 ** rng.uniform(-3, 3, 5000)).astype(np.float32)
    high = (low + 10 ** rng.uniform(-3, 3, 5000)).astype(np.float32)
    space = spaces.Box(low, high)
    for squash in (True, False):
        made = actor(Box(tuple(low.tolist()), tuple(high.tolist())), squash=squash, agents=1)
        for scale in (1.0, 5.0, 1e4):
            raw = scale * torch.randn(20, 1, 5000, generator=draw())
            for row in made.to_env(raw)[:, 0]:
                assert space.contains(row.numpy())


def test_the_plain_head_is_clipped_at_the_bounds():
    made = actor(Box((-3.0, 0.0), (1.0, 0.01)), squash=False)
    raw = torch.tensor([[[-9.0, 0.005]], [[0.5, 9.0]]])
    assert torch.equal(made.to_env(raw), torch.tensor([[[-3.0, 0.005]], [[0.5, 0.01]]]))


@pytest.mark.parametrize("squash", [True, False])
def test_canonical_actions_have_the_bounds_at_minus_one_and_one(squash: bool):
    low, high = torch.tensor([-3.0, 0.0]), torch.tensor([1.0, 0.5])
    made = actor(Box(tuple(low.tolist()), tuple(high.tolist())), squash=squash)
    raw = 2 * torch.randn(B, A, 2, generator=draw(2))
    place = (made.to_env(raw) - low) / (high - low)
    torch.testing.assert_close(made.canonical(raw), 2 * place - 1, atol=1e-5, rtol=0)


def test_discrete_actions_pass_as_they_are():
    made, raw = actor(Discrete(5, start=3)), torch.arange(B * A).reshape(B, A) % 5
    assert made.to_env(raw) is raw
    assert made.canonical(raw) is raw


# ---- what critics see


def deterministic(action: ActionSpec, share: bool = True, masked: bool = False) -> DeterministicActor:
    group = Group("g", tuple(f"a{i}" for i in range(A)), O, action, "team", masked)
    return DeterministicActor(group, SMALL, share, draw())


@pytest.mark.parametrize("share", [True, False])
def test_a_deterministic_actors_answer_is_the_one_that_the_action_space_asks_for(share: bool):
    assert isinstance(deterministic(Discrete(4), share)(obs()), Categorical)
    assert isinstance(deterministic(MultiDiscrete((2, 3), (0, 0)), share)(obs()), MultiCategorical)
    policy = deterministic(Box((0.0,), (1.0,)), share)(obs(), 0.25)
    assert isinstance(policy, Deterministic)
    assert (policy.pre.shape, policy.noise) == ((B, A, 1), 0.25)


@pytest.mark.parametrize(("low", "high"), BOUNDS)
def test_deterministic_actions_reach_exactly_from_bound_to_bound(low: tuple[float, ...], high: tuple[float, ...]):
    made = deterministic(Box(low, high))
    raw = torch.tensor([-1.0, 0.0, 1.0]).reshape(3, 1, 1).expand(3, A, len(low))
    found = made.to_env(raw)
    assert torch.equal(found[0, 0], torch.tensor(low))
    assert torch.equal(found[2, 0], torch.tensor(high))
    torch.testing.assert_close(found[1, 0], (torch.tensor(low) + torch.tensor(high)) / 2)
    assert made.canonical(raw) is raw
    assert torch.equal(made.encoded(raw), raw)


def test_choices_are_encoded_side_by_side_as_ones_among_zeros():
    single, several = deterministic(Discrete(4, start=7)), deterministic(MultiDiscrete((2, 3), (0, 5)))
    assert single.encoded(torch.tensor([[3, 0, 1]])).tolist() == [[[0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0]]]
    raw = torch.tensor([[[1, 2], [0, 0], [1, 1]]])
    assert several.encoded(raw).tolist() == [[[0, 1, 0, 0, 1], [1, 0, 1, 0, 0], [0, 1, 0, 1, 0]]]
    assert several.encoded(raw).dtype == torch.float32
    assert several.to_env(raw) is raw
    assert several.canonical(raw) is raw
    assert [encoded_size(x) for x in (Discrete(4), MultiDiscrete((2, 3), (0, 0)), Box((0.0,) * 3, (1.0,) * 3))] == [
        4,
        5,
        3,
    ]


def test_a_squashed_actors_actions_are_encoded_canonically():
    made, raw = actor(Box((0.0, 5.0), (1.0, 9.0))), 2 * torch.randn(B, A, 2, generator=draw(2))
    assert torch.equal(made.encoded(raw), raw.tanh())


@pytest.mark.parametrize("kind", [Actor, DeterministicActor])
def test_masked_groups_read_legal_actions_from_their_last_features(kind: type[Actor | DeterministicActor]):
    group = Group("g", tuple(f"a{i}" for i in range(A)), 2 + 3, Discrete(3), "team", masked=True)
    made = kind(group, SMALL, True, True, draw()) if kind is Actor else DeterministicActor(group, SMALL, True, draw())
    x = torch.randn(B, A, 5, generator=draw(1))
    x[..., 2:] = (x[..., 2:] > 0).float()
    x[..., 2] = 1 - x[..., 3:].amax(-1)  # at least one is legal
    policy = made(x)
    assert isinstance(policy, Categorical)
    assert torch.equal(policy.log_probs.exp() > 0, x[..., 2:] > 0.5)
    free = Group("g", group.agents, 5, Discrete(3), "team")
    unmasked = kind(free, SMALL, True, True, draw()) if kind is Actor else DeterministicActor(free, SMALL, True, draw())
    assert unmasked(x).log_probs.exp().gt(0).all()


def test_parameters_and_nothing_else_are_saved():
    kinds = [make(action) for make in (actor, deterministic) for action in (Discrete(5), Box((0.0,), (1.0,)))]
    for made in kinds:
        assert made.state_dict().keys() == dict(made.named_parameters()).keys()
