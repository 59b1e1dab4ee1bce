"""How weights begin: by the formulas of the papers, each agent with its own draw."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from marl_stable.config import Activation, Init
from marl_stable.networks.init import GAIN, init_final, init_hidden

ACTIVATIONS = tuple(GAIN)


def drawn(shape: tuple[int, ...], kind: Init, activation: Activation = "tanh", seed: int = 0) -> Tensor:
    weight = torch.zeros(shape)
    init_hidden(weight, kind, activation, torch.Generator().manual_seed(seed))
    return weight


@pytest.mark.parametrize("shape", [(64, 64), (20, 64), (64, 20)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_orthogonal_weights_are_orthogonal_with_the_activations_gain(shape: tuple[int, int], activation: Activation):
    weight = drawn(shape, "orthogonal", activation) / GAIN[activation]
    short = weight if shape[0] <= shape[1] else weight.T
    torch.testing.assert_close(short @ short.T, torch.eye(min(shape)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gains_are_torchs_where_torch_has_them(activation: Activation):
    known = {"tanh": nn.init.calculate_gain("tanh"), "relu": nn.init.calculate_gain("relu")}
    assert GAIN[activation] == pytest.approx(known.get(activation, math.sqrt(2)))


def test_xavier_is_uniform_with_the_variance_of_glorot():
    weight = drawn((300, 100), "xavier")
    bound = GAIN["tanh"] * math.sqrt(6 / 400)
    assert bound * 0.99 < float(weight.abs().max()) <= bound
    assert float(weight.var()) == pytest.approx(bound**2 / 3, rel=0.03)


def test_he_is_normal_with_variance_two_over_the_number_of_inputs():
    weight = drawn((300, 100), "he")
    assert float(weight.var()) == pytest.approx(2 / 300, rel=0.03)
    assert float(weight.abs().max()) > 3 * math.sqrt(2 / 300)


@pytest.mark.parametrize("kind", ["orthogonal", "xavier", "he"])
def test_every_agent_has_a_draw_of_its_own_and_a_seed_repeats_it(kind: Init):
    weight = drawn((3, 10, 10), kind)
    assert torch.equal(weight, drawn((3, 10, 10), kind))
    assert not torch.equal(weight, drawn((3, 10, 10), kind, seed=1))
    assert torch.equal(weight[0], drawn((10, 10), kind))
    assert not torch.equal(weight[0], weight[1])


def test_the_last_layer_is_uniform_within_its_half_width():
    weight = torch.zeros(3, 50, 50)
    init_final(weight, 3e-3, torch.Generator().manual_seed(0))
    assert 2.9e-3 < float(weight.abs().max()) <= 3e-3
    assert float(weight.mean()) == pytest.approx(0, abs=1e-4)
    assert not torch.equal(weight[0], weight[1])
