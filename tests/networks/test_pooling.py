"""Networks that pool over agents: each is judged by what it sees itself and by means over everybody."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from marl_stable.config import Block, NetworkConfig, Norm
from marl_stable.networks.batchnorm import BatchNorm, BatchNorms
from marl_stable.networks.body import multiply_in_bf16
from marl_stable.networks.critics import CentralCritic, PooledCritic, PooledQ
from marl_stable.networks.layers import Linear
from marl_stable.networks.pooling import Encoders, Joining, Members, PooledNetwork
from tests.networks.small import draw

B = 6
GROUPS = (Members("many", 4, 3), Members("few", 2, 5), Members("one", 1, 2))
WIDTH = sum(g.agents * g.obs_size for g in GROUPS)
ACTING = (Members("many", 4, 3, 2), Members("few", 2, 5, 1), Members("one", 1, 2, 2))
NORMS: tuple[Norm, ...] = ("none", "layer", "batch")
BLOCKS: tuple[Block, ...] = ("plain", "residual")
CONFIGS = [
    NetworkConfig(hidden=hidden, norm=norm, block=block, activation="silu", final_init=None)
    for hidden, norm, block in product([(8,), (8, 6)], NORMS, BLOCKS)
]


def network(config: NetworkConfig, own: int = 0, groups: tuple[Members, ...] = GROUPS, seed: int = 0) -> PooledNetwork:
    """One whose every parameter and statistic is its own number."""
    made = PooledNetwork(groups, own, config, draw(seed))
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=draw(seed + 1)))
        for norm in (m for m in made.modules() if isinstance(m, BatchNorm)):
            norm.mean.normal_(generator=draw(2))
            norm.var.uniform_(0.5, 2.0, generator=draw(3))
    return made


def inputs(groups: tuple[Members, ...] = GROUPS, seed: int = 1) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """By group: observations `(B, A, O)`, actions `(B, A, U)`, and who counts `(B, A)`: some do not, once nobody."""
    generator = draw(seed)
    obs = [torch.randn(B, g.agents, g.obs_size, generator=generator) for g in groups]
    action = [torch.randn(B, g.agents, g.action_size, generator=generator) for g in groups]
    counts = [(torch.rand(B, g.agents, generator=generator) < 0.6).float() for g in groups]
    counts[0][0], counts[1][0] = 1.0, 0.0
    return obs, action, counts


def joint(obs: list[Tensor], action: list[Tensor], counts: list[Tensor]) -> Tensor:
    """`(B, J)`."""
    return torch.cat([x.flatten(1) for x in (*obs, *action, *counts)], dim=1)


def slowly(net: PooledNetwork, obs: list[Tensor], action: list[Tensor], counts: list[Tensor], own: int) -> Tensor:
    """`(B, A)` row by row and agent by agent; of agents that do not count nothing is read, so what they get is NaN."""
    encoders, joining, *rest = net.hidden
    assert isinstance(encoders, Encoders)
    assert isinstance(joining, Joining)
    found = torch.full(counts[own].shape, torch.nan)
    for b in range(B):
        embedded, means = [], []
        for g, encoder in enumerate(encoders.encoders):
            here = [a for a in range(counts[g].shape[1]) if counts[g][b, a]]
            embedded.append({a: encoder(torch.cat([obs[g][b, a], action[g][b, a]]).unsqueeze(0)) for a in here})
            total = sum(embedded[g].values(), torch.zeros(1, joining.parts[0]))
            means.append(total / max(1, len(here)))
        for a, e in embedded[own].items():
            y = torch.cat([e, *means], dim=1) @ joining.weight + joining.bias
            for layer in rest:
                y = layer(y)
            found[b, a] = net.final(y)[0, a]
    return found


@pytest.mark.parametrize("own", range(3))
@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.hidden} {c.norm} {c.block}")
def test_values_are_those_of_a_plain_loop_over_agents(config: NetworkConfig, own: int):
    net, seen = network(config, own), inputs()
    expected = slowly(net, *seen, own=own)
    value, here = net(joint(*seen)), seen[2][own] > 0
    assert value.shape == expected.shape
    assert here.any()
    torch.testing.assert_close(value[here], expected[here])


@pytest.mark.parametrize("own", range(3))
@pytest.mark.parametrize("config", CONFIGS[::5], ids=lambda c: f"{c.hidden} {c.norm} {c.block}")
def test_an_agents_own_action_is_replaced_for_it_alone(config: NetworkConfig, own: int):
    net, (obs, action, counts) = network(config, own, ACTING), inputs(ACTING)
    other = torch.randn(action[own].shape, generator=draw(8)).requires_grad_()
    found = net.of_own(joint(obs, action, counts), other)
    here = counts[own] > 0
    for a in range(ACTING[own].agents):
        replaced = [x.clone() for x in action]
        replaced[own][:, a] = other[:, a].detach()
        expected = net(joint(obs, replaced, counts))[:, a]
        torch.testing.assert_close(found[here[:, a], a], expected[here[:, a]])
        current = [x.clone() for x in action]
        current[own] = torch.where(torch.arange(ACTING[own].agents).unsqueeze(1) == a, other, action[own])
        (slope,) = torch.autograd.grad((net(joint(obs, current, counts))[:, a] * here[:, a]).sum(), other)
        (ours,) = torch.autograd.grad((found[:, a] * here[:, a]).sum(), other, retain_graph=True)
        torch.testing.assert_close(ours, slope)
        assert ours[:, a].abs().sum() > 0


def test_the_order_of_others_means_nothing_and_ones_own_place_does():
    net, (obs, action, counts) = network(CONFIGS[3]), inputs()
    counts = [torch.ones_like(x) for x in counts]
    before = net(joint(obs, action, counts))
    order = [0, 3, 1, 2]
    after = net(joint([obs[0][:, order], obs[1].flip(1), obs[2]], action, counts))
    torch.testing.assert_close(after[:, 0], before[:, 0])
    assert not torch.allclose(after[:, 1:], before[:, 1:])
    swapped = net(joint([obs[0][:, [1, 0, 2, 3]], *obs[1:]], action, counts))
    assert not torch.allclose(swapped[:, 0], before[:, 0])
    side_by_side = CentralCritic(4, WIDTH, CONFIGS[3], draw())
    plain = [torch.cat([x.flatten(1) for x in (many, *obs[1:])], dim=1) for many in (obs[0], obs[0][:, order])]
    assert not torch.allclose(side_by_side(plain[0])[:, 0], side_by_side(plain[1])[:, 0])


@pytest.mark.parametrize("own", range(3))
@pytest.mark.parametrize("garbage", [1e6, torch.nan, torch.inf])
def test_what_agents_that_do_not_count_leave_behind_changes_nothing(garbage: float, own: int):
    net, (obs, action, counts) = network(CONFIGS[1], own, ACTING), inputs(ACTING)
    found = []
    for left in (0.0, garbage):
        saw, did = (
            [torch.where(c.unsqueeze(-1) > 0, x, left) for x, c in zip(k, counts, strict=True)] for k in (obs, action)
        )
        value = net(joint(saw, did, counts))
        loss = (value * counts[own]).square().sum()
        found.append((value, *torch.autograd.grad(loss, list(net.parameters()))))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_there_are_as_many_parameters_for_many_agents_as_for_few_but_for_last_columns():
    sizes = {}
    for agents in (3, 100):
        made = PooledNetwork((Members("all", agents, 5),), 0, NetworkConfig(hidden=(8, 6)), draw())
        sizes[agents] = sum(p.numel() for p in made.parameters())
    assert sizes[100] - sizes[3] == 97 * (6 + 1)


@pytest.mark.parametrize("own", [0, 1])
@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_memory_is_each_agents_own_and_forgotten_where_episodes_begin(kind: Any, own: int):
    config, steps = NetworkConfig(hidden=(8,), recurrent=kind, final_init=None), 5
    net, critic = network(config, own), PooledCritic(GROUPS, own, config, draw())
    seen = torch.stack([joint(*inputs(seed=t)) for t in range(steps)])  # (L, E, J)
    begins = torch.rand(steps, B, generator=draw(4)) < 0.3
    memory = torch.randn(critic.no_memory(B).shape, generator=draw(5))
    value, after = net.sequence(seen, memory, begins)
    assert value.shape == (steps, B, GROUPS[own].agents)
    for t in range(steps):
        memory = memory.masked_fill(begins[t].reshape(-1, 1, 1), 0.0)
        one, memories = net.sequence(seen[t : t + 1], memory, torch.zeros(1, B, dtype=torch.bool))
        memory = memories[0]
        torch.testing.assert_close(value[t], one[0])
        torch.testing.assert_close(after[t], memory)
    first = net.sequence(seen[:1], net.no_memory(B), begins[:1] & False)[0][0]
    torch.testing.assert_close(net(seen[0]), first)


# ---- what networks are part of


@pytest.mark.parametrize("count", [1, 2])
def test_twins_are_networks_of_their_own(count: int):
    q = PooledQ(count, ACTING, 1, CONFIGS[3], draw())
    seen = joint(*inputs(ACTING))
    values = q(seen)
    assert values.shape == (count, B, 2)
    for k in range(count):
        torch.testing.assert_close(values[k], q.networks[k](seen))
    assert count == 1 or not torch.allclose(values[0], values[1])


@pytest.mark.parametrize("config", [*CONFIGS, NetworkConfig(hidden=(8, 6), recurrent="gru")], ids=str)
def test_layers_are_seen_from_the_groups_encoder_on(config: NetworkConfig):
    critic, (obs, action, counts) = PooledCritic(GROUPS, 1, config, draw()), inputs()
    counts = [torch.ones_like(x) for x in counts]
    net = critic.network
    features = critic.features(joint(obs, action, counts))
    names = net.unit_layers()
    assert names[0] == "encoder"
    assert len(features) == len(names) == len(set(names))
    assert {h.shape[:2] for h in features} == {(B, 2)}
    encoders = net.hidden[0]
    assert isinstance(encoders, Encoders)
    torch.testing.assert_close(features[0].flatten(0, 1), encoders.encoders[1](obs[1].flatten(0, 1)))
    value = net.last(features[-1].flatten(0, 1))
    torch.testing.assert_close(value, critic(joint(obs, action, counts)))
    weights = net.weight_matrices()
    linears = [m for m in net.modules() if isinstance(m, Linear)]
    assert {id(w) for w in weights.values()} == {id(m.weight) for m in linears}
    assert list(weights)[:4] == ["encoder.many", "encoder.few", "encoder.one", "hidden.0"]
    assert list(weights)[-1] == "final"


def test_gradients_and_statistics_of_batch_norm_are_those_of_who_counts():
    """Of every group by the agents there, and of what judges by the agents learned from."""
    config = NetworkConfig(hidden=(8, 6), norm="batch", final_init=None)
    net, (obs, action, counts) = PooledNetwork(GROUPS, 0, config, draw()), inputs()
    norms = BatchNorms(net)
    learned = counts[0].clone()
    learned[:, 1] = 0.0
    norms.take_in(joint(obs, action, counts), learned, 100)
    encoders = net.hidden[0]
    assert isinstance(encoders, Encoders)
    for g in range(3):
        linear, norm = encoders.get_submodule(f"encoders.{g}.0"), encoders.get_submodule(f"encoders.{g}.1")
        assert isinstance(norm, BatchNorm)
        there = linear(obs[g][counts[g] > 0])
        torch.testing.assert_close(norm.mean, there.mean(0))
        torch.testing.assert_close(norm.var, there.var(0, correction=0))
    joined = net.hidden[1](encoders(joint(obs, action, counts)))
    torch.testing.assert_close(net.hidden[2].mean, joined[learned.flatten() > 0].mean(0))
    assert all(layer.alive is None for layer in norms.layers)
    with norms.learning(learned):
        value = net(joint(obs, action, counts))
        assert {id(layer.alive) for layer in norms.layers} == {id(learned)}
    torch.testing.assert_close(value, net(joint(obs, action, counts)))
    loss = (value * learned).square().sum()
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, list(net.parameters())))


def test_hidden_layers_multiply_in_bfloat16_where_asked():
    net, seen = network(CONFIGS[1]), joint(*inputs())
    exact = net(seen)
    multiply_in_bf16(net)
    rounded = net(seen)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.1 * exact.abs().max()
    assert all(m.bf16 for m in net.hidden.modules() if isinstance(m, Linear))
    assert not net.final.bf16
