"""Critics of a group: values come from what each may see, and from all of it."""

from __future__ import annotations

import pytest
import torch

from marl_stable.networks.critics import CentralCritic, JointQ, LocalCritic, LocalQ
from tests.networks.small import SMALL, A, B, O, draw, obs


@pytest.mark.parametrize("share", [True, False])
def test_a_local_value_depends_on_its_own_observation_alone(share: bool):
    x = obs().requires_grad_()
    (gradient,) = torch.autograd.grad(LocalCritic(A, O, SMALL, share, draw())(x)[:, 1].sum(), x)
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


@pytest.mark.parametrize("count", [1, 2])
def test_joint_action_values_come_from_everything_in_networks_of_their_own(count: int):
    critic = JointQ(count, A, 10, SMALL, draw())
    x = torch.randn(B, 10, generator=draw(1), requires_grad=True)
    q = critic(x)
    assert q.shape == (count, B, A)
    for k in range(count):
        torch.testing.assert_close(q[k], critic.networks[k](x))
        for a in range(A):
            (gradient,) = torch.autograd.grad(q[k, :, a].sum(), x, retain_graph=True)
            assert gradient.abs().sum(0).gt(0).all()
    if count == 2:
        assert not torch.allclose(q[0], q[1])


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("share", [True, False])
def test_local_action_values_depend_on_what_their_own_agent_sees_and_does(share: bool, count: int):
    critic = LocalQ(count, A, O + 2, SMALL, share, draw())
    x = torch.randn(B, A, O + 2, generator=draw(1), requires_grad=True)
    q = critic(x)
    assert q.shape == (count, B, A)
    for k in range(count):
        for a in range(A):
            (gradient,) = torch.autograd.grad(q[k, :, a].sum(), x, retain_graph=True)
            assert gradient[:, a].abs().sum(0).gt(0).all()
            assert gradient[:, [i for i in range(A) if i != a]].eq(0).all()
    assert count == 1 or not torch.allclose(q[0], q[1])
