"""Whole networks: the layers that the configuration asks for, agents apart or together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from marl_stable.config import Activation, Block, NetworkConfig, Norm
from marl_stable.networks.body import ACTIVATIONS, Network, ResidualBlock
from marl_stable.networks.layers import LayerNorm, Linear
from tests.networks.singles import like_agent

A, N, INPUTS, OUTPUTS = 3, 6, 5, 2
NORMS: tuple[Norm, ...] = ("none", "layer")
BLOCKS: tuple[Block, ...] = ("plain", "residual")
CONFIGS = [
    NetworkConfig(hidden=(16, 8), norm=norm, block=block, activation="silu", final_init=None)
    for norm, block in product(NORMS, BLOCKS)
]


def built(config: NetworkConfig, agents: int | None = None, seed: int = 0) -> Network:
    return Network(INPUTS, OUTPUTS, config, agents, torch.Generator().manual_seed(seed))


def linears_of(network: Network) -> list[Linear]:
    return [m for m in network.modules() if isinstance(m, Linear)]


def inputs(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.norm} {c.block}")
def test_agents_apart_equal_a_loop_over_networks_of_one_agent(config: NetworkConfig):
    batched, x = built(config, A), inputs(A, N, INPUTS)
    out = batched(x)
    assert out.shape == (A, N, OUTPUTS)
    for a in range(A):
        single = like_agent(built(config), batched, a)
        torch.testing.assert_close(single(x[a]), out[a])


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.norm} {c.block}")
def test_the_gradient_of_one_agent_touches_no_other(config: NetworkConfig):
    batched = built(config, A)
    gradients = torch.autograd.grad(batched(inputs(A, N, INPUTS))[1].square().sum(), list(batched.parameters()))
    for gradient in gradients:
        assert gradient[1].abs().sum() > 0
        assert gradient[[0, 2]].eq(0).all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("norm", NORMS)
def test_a_plain_network_is_linear_norm_activation_again_and_again(activation: Activation, norm: Norm):
    config = NetworkConfig(hidden=(16, 8), norm=norm, activation=activation)
    network, x = built(config), inputs(N, INPUTS)
    shapes: dict[Activation, Callable[[Tensor], Tensor]] = {
        "tanh": torch.tanh,
        "relu": functional.relu,
        "leaky_relu": functional.leaky_relu,
        "elu": functional.elu,
        "gelu": functional.gelu,
        "silu": functional.silu,
    }
    linears = linears_of(network)
    assert [tuple(m.weight.shape) for m in linears] == [(INPUTS, 16), (16, 8), (8, OUTPUTS)]
    h = x
    for linear in linears[:-1]:
        h = h @ linear.weight + linear.bias
        h = functional.layer_norm(h, h.shape[-1:]) if norm == "layer" else h
        h = shapes[activation](h)
    torch.testing.assert_close(network(x), h @ linears[-1].weight + linears[-1].bias)


@pytest.mark.parametrize("norm", NORMS)
def test_a_residual_block_adds_two_layers_of_the_normed_input_to_the_input(norm: Norm):
    config = NetworkConfig(hidden=(8,), norm=norm, block="residual")
    block = ResidualBlock(8, config, None)
    for p in block.parameters():
        nn.init.normal_(p, generator=torch.Generator().manual_seed(3))
    x = inputs(N, 8)
    h = x
    if isinstance(block.norm, LayerNorm):
        h = functional.layer_norm(x, (8,), block.norm.gain, block.norm.bias)
    h = torch.tanh(h @ block.expand.weight + block.expand.bias) @ block.contract.weight + block.contract.bias
    torch.testing.assert_close(block(x), x + h)
    assert block.expand.weight.shape == (8, 16)


def test_a_residual_network_has_one_block_per_entry_and_normalises_once_more_at_its_end():
    network = built(NetworkConfig(hidden=(8, 8, 8), block="residual"))
    assert sum(isinstance(m, ResidualBlock) for m in network.modules()) == 3
    assert isinstance(network.hidden[-1], LayerNorm)
    nothing = [p for name, p in network.named_parameters() if "contract" in name]
    with torch.no_grad():
        for p in nothing:
            p.zero_()
    x = inputs(N, INPUTS)
    first = network.hidden[0](x)  # blocks that add nothing leave the input as it is
    expected = network.final(functional.layer_norm(first, (8,)))
    torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("agents", [None, A])
def test_the_last_layer_starts_small_or_like_any_other(block: Block, agents: int | None):
    config = NetworkConfig(hidden=(64, 64), block=block)
    small, large = built(config, agents), built(replace(config, final_init=None), agents)
    for p in small.final.parameters():
        assert 0 < float(p.detach().abs().max()) <= 3e-3
    assert float(large.final.weight.detach().norm()) > 1
    assert large.final.bias.eq(0).all()
    x = inputs(N, INPUTS) if agents is None else inputs(A, N, INPUTS)
    assert small(x).abs().max() < 0.2 < large(x).abs().max()


def test_hidden_weights_are_drawn_as_configured():
    network = built(NetworkConfig(hidden=(32, 32), init="orthogonal", activation="relu"))
    weight = linears_of(network)[1].weight.detach()
    assert weight.shape == (32, 32)
    torch.testing.assert_close(weight @ weight.T, 2 * torch.eye(32), atol=1e-5, rtol=0)
    he = built(NetworkConfig(hidden=(256, 256), init="he", activation="relu"))
    assert float(linears_of(he)[1].weight.detach().var()) == pytest.approx(2 / 256, rel=0.05)


def test_the_same_generator_builds_the_same_network():
    x = inputs(N, INPUTS)
    config = NetworkConfig(final_init=None)
    assert torch.equal(built(config)(x), built(config)(x))
    assert not torch.equal(built(config)(x), built(config, seed=1)(x))
