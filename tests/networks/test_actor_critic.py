"""Actors and critics of a group: who sees what, and where actions end up in the environment's range."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from marl_stable.config import NetworkConfig
from marl_stable.networks.actor_critic import INITIAL_LOG_STD, Actor, CentralCritic, LocalCritic, PerAgent
from marl_stable.networks.body import Network
from marl_stable.networks.heads import Categorical, Gaussian, SquashedGaussian
from marl_stable.types import ActionSpec, Box, Discrete, Group
from tests.networks.singles import like_agent

B, A, O = 6, 3, 4  # noqa: E741 - the letters of the shape legend
SMALL = NetworkConfig(hidden=(16,), final_init=None)


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def actor(action: ActionSpec, share: bool = True, squash: bool = True, agents: int = A) -> Actor:
    group = Group("g", tuple(f"a{i}" for i in range(agents)), O, action, "team")
    return Actor(group, SMALL, share, squash, draw())


def obs(agents: int = A) -> Tensor:
    return torch.randn(B, agents, O, generator=draw(1))


# ---- one network for all, or one each


def test_a_shared_network_is_told_who_is_asking():
    body = PerAgent(A, O, 2, SMALL, True, draw())
    x = obs()
    out = body(x)
    for b in range(B):
        for a in range(A):
            torch.testing.assert_close(body.network(torch.cat([x[b, a], torch.eye(A)[a]]).unsqueeze(0))[0], out[b, a])
    alike = body(obs()[:, :1].expand(-1, A, -1))
    assert not torch.allclose(alike[:, 0], alike[:, 1])


def test_a_single_agent_needs_no_identity():
    body = PerAgent(1, O, 2, SMALL, True, draw())
    assert next(body.parameters()).shape == (O, 16)
    torch.testing.assert_close(body(obs(1))[:, 0], body.network(obs(1)[:, 0]))


def test_private_networks_see_their_own_agent_only():
    body = PerAgent(A, O, 2, SMALL, False, draw())
    x = obs()
    out = body(x)
    for a in range(A):
        single = like_agent(Network(O, 2, SMALL, None, draw(5)), body.network, a)
        torch.testing.assert_close(single(x[:, a]), out[:, a])


@pytest.mark.parametrize("share", [True, False])
def test_an_agents_output_depends_on_its_own_observation_alone(share: bool):
    for module in (PerAgent(A, O, 2, SMALL, share, draw()), LocalCritic(A, O, SMALL, share, draw())):
        x = obs().requires_grad_()
        (gradient,) = torch.autograd.grad(module(x)[:, 1].sum(), x)
        assert gradient[:, 1].abs().sum() > 0
        assert gradient[:, [0, 2]].eq(0).all()


def test_the_central_critic_gives_every_agent_a_value_from_everything():
    critic = CentralCritic(A, 10, SMALL, draw())
    x = torch.randn(B, 10, generator=draw(1), requires_grad=True)
    value = critic(x)
    assert value.shape == (B, A)
    for a in range(A):
        (gradient,) = torch.autograd.grad(value[:, a].sum(), x, retain_graph=True)
        assert gradient.abs().sum(0).gt(0).all()
    assert not torch.allclose(value[:, 0], value[:, 1])


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
    made = actor(Box((0.0, 0.0), (1.0, 1.0)), share)
    assert made.free_log_std.shape == shape
    policy = made(obs())
    assert isinstance(policy, Gaussian)
    torch.testing.assert_close(policy.log_std.detach(), torch.full(shape, INITIAL_LOG_STD))
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


def test_parameters_and_nothing_else_are_saved():
    for action in (Discrete(5), Box((0.0,), (1.0,))):
        made: Any = actor(action)
        assert made.state_dict().keys() == dict(made.named_parameters()).keys()
