"""One network for all agents of a group, or one each: who is asking, and who sees what."""

from __future__ import annotations

import pytest
import torch

from marl_stable.networks.body import Network
from marl_stable.networks.per_agent import PerAgent
from tests.networks.singles import like_agent
from tests.networks.small import SMALL, A, B, O, draw, obs


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
    x = obs().requires_grad_()
    (gradient,) = torch.autograd.grad(PerAgent(A, O, 2, SMALL, share, draw())(x)[:, 1].sum(), x)
    assert gradient[:, 1].abs().sum() > 0
    assert gradient[:, [0, 2]].eq(0).all()
