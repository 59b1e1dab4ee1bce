"""Layers that hold all agents equal a loop over layers that hold one, and torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from marl_stable.networks.layers import LayerNorm, Linear
from tests.networks.singles import like_agent

A, N, INPUTS, OUTPUTS = 3, 7, 5, 4


def filled(layer: nn.Module, seed: int = 0) -> nn.Module:
    draw = torch.Generator().manual_seed(seed)
    for p in layer.parameters():
        nn.init.normal_(p, generator=draw)
    return layer


def inputs(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).requires_grad_()


@pytest.mark.parametrize(
    ("batched", "single"),
    [(Linear(INPUTS, OUTPUTS, A), Linear(INPUTS, OUTPUTS, None)), (LayerNorm(INPUTS, A), LayerNorm(INPUTS, None))],
    ids=["linear", "norm"],
)
def test_agents_apart_equal_a_loop_over_layers_of_one_agent(batched: nn.Module, single: nn.Module):
    filled(batched)
    x = inputs(A, N, INPUTS)
    out = batched(x)
    gradients = torch.autograd.grad(out.square().sum(), [x, *batched.parameters()])
    for a in range(A):
        like_agent(single, batched, a)
        own = x[a].detach().requires_grad_()
        torch.testing.assert_close(single(own), out[a])
        singles = torch.autograd.grad(single(own).square().sum(), [own, *single.parameters()])
        for ours, theirs in zip(gradients, singles, strict=True):
            torch.testing.assert_close(ours[a].reshape(theirs.shape), theirs)


def test_linear_is_torchs_with_the_weight_transposed():
    ours, theirs = filled(Linear(INPUTS, OUTPUTS, None)), nn.Linear(INPUTS, OUTPUTS)
    weight, bias = ours.parameters()
    theirs.weight.data, theirs.bias.data = weight.detach().T, bias.detach()
    x = inputs(N, INPUTS)
    torch.testing.assert_close(ours(x), theirs(x))


def test_layer_norm_is_torchs():
    ours, theirs = filled(LayerNorm(INPUTS, None)), nn.LayerNorm(INPUTS)
    gain, bias = ours.parameters()
    theirs.weight.data, theirs.bias.data = gain.detach(), bias.detach()
    x = inputs(N, INPUTS)
    torch.testing.assert_close(ours(x), theirs(x))


def test_a_fresh_norm_gives_each_row_mean_zero_and_deviation_one():
    for norm in (LayerNorm(64, None), LayerNorm(64, A)):
        out = norm(5 * inputs(A, N, 64) + 3 if norm.gain.dim() == 3 else 5 * inputs(N, 64) + 3)
        torch.testing.assert_close(out.mean(-1), torch.zeros(out.shape[:-1]), atol=1e-5, rtol=0)
        torch.testing.assert_close(out.std(-1, correction=0), torch.ones(out.shape[:-1]), atol=1e-4, rtol=0)


def test_one_agents_nan_stays_its_own():
    layer = filled(Linear(INPUTS, OUTPUTS, A))
    x = inputs(A, N, INPUTS).detach().clone()
    x[1] = torch.nan
    out = layer(x)
    gradients = torch.autograd.grad(out.square().sum(), list(layer.parameters()))
    for tensor in (out, *gradients):
        assert tensor[1].isnan().any()
        assert tensor[[0, 2]].isfinite().all()
