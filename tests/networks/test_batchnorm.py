"""BatchNorm: torch's with running statistics in value, batch renormalisation in gradient; who enters, and when."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from marl_stable.config import Block, NetworkConfig
from marl_stable.networks.batchnorm import EPS, MEMORY, BatchNorm, BatchNorms
from marl_stable.networks.body import Network, ResidualBlock
from marl_stable.optim import GuardedAdam
from tests.networks.singles import like_agent

A, N, U = 3, 40, 4
BLOCKS: tuple[Block, ...] = ("plain", "residual")


def randn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def experienced(agents: int | None = None) -> BatchNorm:
    """A layer in double precision whose parameters and statistics are all different."""
    layer = BatchNorm(U, agents).double()
    shape = layer.gain.shape
    with torch.no_grad():
        layer.gain.copy_(randn(*shape, seed=2))
        layer.bias.copy_(randn(*shape, seed=3))
    layer.mean.copy_(randn(*shape, seed=4))
    layer.var.copy_(randn(*shape, seed=5).square() + 0.1)
    layer.known.fill_(True)
    return layer


def renormalised(layer: BatchNorm, x: Tensor, agent: int | None = None) -> Tensor:
    """Ioffe 2017, algorithm 1 without limits of r and d, for rows `(N, U)` that all count."""
    own: list[Tensor] = [layer.mean, layer.var, layer.gain, layer.bias]
    mean, var, gain, bias = own if agent is None else (t[agent, 0] for t in own)
    sigma, batch_mean = (var + EPS).sqrt(), x.mean(0)
    batch_sigma = (x.var(0, correction=0) + EPS).sqrt()
    r, d = (batch_sigma / sigma).detach(), ((batch_mean - mean) / sigma).detach()
    return ((x - batch_mean) / batch_sigma * r + d) * gain + bias


def input_gradient(layer: BatchNorm, x: Tensor, alive: Tensor | None, weight: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    if alive is None:
        out = layer(x)
    else:
        with BatchNorms(layer).learning(alive):
            out = layer(x)
    (gradient,) = torch.autograd.grad((out * weight).sum(), x)
    return gradient


def built(config: NetworkConfig, agents: int | None = None) -> Network:
    return Network(U, 2, config, agents, torch.Generator().manual_seed(0))


def statistics(network: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in network.named_buffers()}


# ---- values


def test_values_are_torchs_with_running_statistics():
    ours, theirs = experienced(), nn.BatchNorm1d(U, eps=EPS).double().eval()
    assert theirs.running_mean is not None
    assert theirs.running_var is not None
    theirs.weight.data, theirs.bias.data = ours.gain.detach(), ours.bias.detach()
    theirs.running_mean.copy_(ours.mean)
    theirs.running_var.copy_(ours.var)
    x = 5 * randn(N, U).double() + 3
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("agents", [None, A])
def test_values_are_the_same_bit_for_bit_while_learning(agents: int | None):
    layer = experienced(agents).float()
    x = 100 * randn(*((A, N, U) if agents else (N, U)))  # far from the statistics: limits of r and d would bite
    alive = (randn(N, A, seed=6) > 0) if agents else (randn(N, seed=6) > 0)
    with BatchNorms(layer).learning(alive):
        learning = layer(x)
    assert torch.equal(layer(x), learning)
    assert learning.grad_fn is not None


def test_a_row_is_worth_the_same_alone_and_among_others():
    network, x = built(NetworkConfig(hidden=(8,), norm="batch")), randn(N, U)
    BatchNorms(network).take_in(x, torch.ones(N), 1)
    torch.testing.assert_close(network(x[:1]), network(x)[:1])


# ---- gradients


@pytest.mark.parametrize("shift", [0.0, 1e3])
def test_gradients_are_those_of_batch_renormalisation(shift: float):
    layer, weight = experienced(), randn(N, U, seed=7).double()
    x = (2 * randn(N, U).double() + shift).requires_grad_()
    leaves = [x, layer.gain, layer.bias]
    with BatchNorms(layer).learning(torch.ones(N)):
        out = layer(x)
    expected = renormalised(layer, x)
    torch.testing.assert_close(out, expected)
    ours = torch.autograd.grad((out * weight).sum(), leaves)
    for one, other in zip(ours, torch.autograd.grad((expected * weight).sum(), leaves), strict=True):
        torch.testing.assert_close(one, other)
    plain = input_gradient(layer, x.detach(), None, weight)
    assert (ours[0] - plain).abs().max() > 1e-3  # the two are not the same thing


def test_agents_apart_have_gradients_of_their_own_batch():
    layer, x, weight = experienced(A), randn(A, N, U).double(), randn(A, N, U, seed=7).double()
    ours = input_gradient(layer, x, torch.ones(N, A), weight)
    for a in range(A):
        own = x[a].clone().requires_grad_()
        (theirs,) = torch.autograd.grad((renormalised(layer, own, a) * weight[a]).sum(), own)
        torch.testing.assert_close(ours[a], theirs)


@pytest.mark.parametrize("agents", [None, A])
def test_rows_that_do_not_count_have_no_part_in_gradients(agents: int | None):
    layer = experienced(agents)
    shape = (A, N, U) if agents else (N, U)
    alive = (randn(N, A, seed=6) > 0) if agents else (randn(N, seed=6) > 0)
    mask = alive.T.unsqueeze(-1) if agents else alive.unsqueeze(-1)
    x, weight = randn(*shape).double(), randn(*shape, seed=7).double() * mask
    ours = input_gradient(layer, x, alive, weight)
    assert torch.equal(input_gradient(layer, torch.where(mask, x, 1e3), alive, weight), ours)
    assert torch.where(mask, 0.0, ours).eq(0).all()
    for a in range(A) if agents else (None,):
        rows = alive if a is None else alive[:, a]
        own = (x if a is None else x[a])[rows].requires_grad_()
        part = (weight if a is None else weight[a])[rows]
        (theirs,) = torch.autograd.grad((renormalised(layer, own, a) * part).sum(), own)
        torch.testing.assert_close((ours if a is None else ours[a])[rows], theirs)


@pytest.mark.parametrize("spread", [1e-6, 1.0, 1e6])
def test_gradients_are_never_longer_than_plain_ones(spread: float):
    layer, x, weight = experienced(), spread * randn(N, U).double() + 10, randn(N, U, seed=7).double()
    ours, plain = input_gradient(layer, x, torch.ones(N), weight), input_gradient(layer, x, None, weight)
    assert (ours.norm(dim=0) <= plain.norm(dim=0)).all()
    torch.testing.assert_close(ours.sum(0), torch.zeros(U).double(), atol=1e-9, rtol=0)  # moving all rows is undone


def test_outside_of_learning_gradients_are_those_of_the_function():
    """An actor that climbs a critic must see what moving all its actions does, which renormalised gradients hide."""
    layer = experienced()
    assert torch.autograd.gradcheck(layer, randn(5, U).double().requires_grad_())


@pytest.mark.parametrize("count", [0, 1])
def test_batches_of_no_row_or_one_give_no_nan(count: int):
    layer, alive = experienced(), (torch.arange(N) < count).float()
    gradient = input_gradient(layer, randn(N, U).double(), alive, alive.unsqueeze(-1).double())
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


# ---- statistics


@pytest.mark.parametrize("agents", [None, A])
def test_the_first_batch_is_taken_in_whole_and_later_ones_by_share(agents: int | None):
    layer, alive = BatchNorm(U, agents), torch.ones(N, A) if agents else torch.ones(N)
    norms = BatchNorms(layer)
    first, second = (3 * randn(*((A, N, U) if agents else (N, U)), seed=seed) + seed for seed in (8, 9))
    norms.take_in(first, alive, 0)
    mean, var = first.mean(-2, keepdim=bool(agents)), first.var(-2, correction=0, keepdim=bool(agents))
    torch.testing.assert_close((layer.mean, layer.var), (mean, var))
    norms.take_in(second, alive, 0)
    torch.testing.assert_close((layer.mean, layer.var), (mean, var))
    norms.take_in(second, alive, 32)
    kept = MEMORY**32
    torch.testing.assert_close(layer.mean, kept * mean + (1 - kept) * second.mean(-2, keepdim=bool(agents)))
    spread = second.var(-2, correction=0, keepdim=bool(agents))
    between = kept * (1 - kept) * (second.mean(-2, keepdim=bool(agents)) - mean).square()
    torch.testing.assert_close(layer.var, kept * var + (1 - kept) * spread + between)  # that of the mixture


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("agents", [None, A])
def test_after_the_first_batch_every_layer_hands_on_mean_zero_and_deviation_one(block: Block, agents: int | None):
    network = built(NetworkConfig(hidden=(16, 16), norm="batch", block=block), agents)
    x = 7 * randn(*((A, 200, U) if agents else (200, U))) + 2
    BatchNorms(network).take_in(x, torch.ones(200, A) if agents else torch.ones(200), 1)
    seen: list[Tensor] = []
    layers = [m for m in network.modules() if isinstance(m, BatchNorm)]
    for layer in layers:
        layer.register_forward_hook(lambda _, __, out: seen.append(out.clone()))
    network(x)
    assert len(seen) == len(layers) == (2 if block == "plain" else 3)
    for out in seen:
        torch.testing.assert_close(out.mean(-2), torch.zeros_like(out.mean(-2)), atol=1e-4, rtol=0)
        torch.testing.assert_close(out.std(-2), torch.ones_like(out.mean(-2)), atol=2e-2, rtol=0)


def test_neither_dead_rows_nor_what_is_not_finite_enters():
    layer, x = BatchNorm(U, None), randn(200, U)
    alive = torch.arange(200) % 2 == 0
    spoilt = torch.where(alive.unsqueeze(1), x, 1e6)
    spoilt[0, 1], spoilt[2, 2] = torch.inf, torch.nan
    BatchNorms(layer).take_in(spoilt, alive, 1)
    kept = x[alive]
    torch.testing.assert_close(layer.mean[0], kept[:, 0].mean())
    torch.testing.assert_close(layer.mean[1], kept[1:, 1].mean())
    torch.testing.assert_close(layer.var[3], kept[:, 3].var(correction=0))
    assert torch.isfinite(layer(x)).all()


def test_one_outlier_does_not_silence_a_unit():
    layer, x = BatchNorm(U, None), randn(1_000, U)
    norms = BatchNorms(layer)
    norms.take_in(x, torch.ones(1_000), 1)
    x[7] = 1e6
    norms.take_in(x, torch.ones(1_000), 1_000)
    assert (layer.var < 1.5).all()


def test_a_true_change_of_scale_is_followed_from_nothing():
    layer, x = BatchNorm(U, None), 1e3 * randn(1_000, U) + 1e4
    norms = BatchNorms(layer)
    norms.take_in(torch.zeros(1_000, U), torch.ones(1_000), 1)
    for _ in range(40):
        norms.take_in(x, torch.ones(1_000), 32)
    torch.testing.assert_close(layer.mean, x.mean(0), rtol=1e-3, atol=0)
    torch.testing.assert_close(layer.var, x.var(0), rtol=0.05, atol=0)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 3e38])
def test_statistics_stay_where_nothing_can_be_taken_in(bad: float):
    layer = BatchNorm(U, None) if bad == 3e38 else experienced().float()  # whose squares are beyond all numbers
    before = statistics(layer)
    x = torch.full((N, U), bad)
    x[::2] *= -1
    BatchNorms(layer).take_in(x, torch.ones(N), 100)
    BatchNorms(layer).take_in(randn(N, U), torch.zeros(N), 100)
    after = statistics(layer)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_agent_that_never_lived_still_begins_with_its_first_batch_whole():
    layer, x = BatchNorm(U, A), randn(A, N, U) + 5
    alive = torch.ones(N, A)
    alive[:, 1] = 0
    norms = BatchNorms(layer)
    norms.take_in(x, alive, 1)
    assert layer.known[:, 0, 0].tolist() == [True, False, True]
    assert layer.mean[1].eq(0).all()
    norms.take_in(x, torch.ones(N, A), 1)
    torch.testing.assert_close(layer.mean.squeeze(1), x.mean(1))


def test_agents_apart_share_no_statistics():
    layer, x = BatchNorm(U, A), randn(A, N, U)
    elsewhere = x.clone()
    elsewhere[1] += 50
    other = copy.deepcopy(layer)
    BatchNorms(layer).take_in(x, torch.ones(N, A), 1)
    BatchNorms(other).take_in(elsewhere, torch.ones(N, A), 1)
    same = layer.mean.eq(other.mean).all(-1).squeeze(-1)
    assert same.tolist() == [True, False, True]
    assert torch.equal(layer(x)[[0, 2]], other(elsewhere)[[0, 2]])


def test_statistics_move_only_where_they_are_told_to():
    network, x = built(NetworkConfig(hidden=(8,), norm="batch")), randn(N, U)
    norms = BatchNorms(network)
    norms.take_in(x, torch.ones(N), 1)
    before = statistics(network)
    network(x + 100)
    with norms.learning(torch.ones(N)):
        network(x + 100).sum().backward()
    assert all(torch.equal(before[name], buffer) for name, buffer in network.named_buffers())


def test_an_error_on_the_way_leaves_no_layer_in_another_mode():
    network = built(NetworkConfig(hidden=(8,), norm="batch"))
    norms = BatchNorms(network)
    with pytest.raises(RuntimeError):
        norms.take_in(randn(N, U + 1), torch.ones(N), 1)
    assert all(layer.alive is None and layer.rate is None for layer in norms.layers)


# ---- targets


def test_targets_begin_like_the_network_and_then_follow_like_its_weights():
    network = built(NetworkConfig(hidden=(8,), norm="batch"))
    target = copy.deepcopy(network)
    norms, x = BatchNorms(network, target), randn(N, U)
    norms.take_in(x, torch.ones(N), 1)
    assert torch.equal(network(x), target(x))
    first = statistics(network)
    norms.take_in(3 * x + 5, torch.ones(N), 50)
    assert all(torch.equal(first[name], buffer) for name, buffer in target.named_buffers())
    norms.follow(0.25)
    for name, buffer in target.named_buffers():
        expected = torch.lerp(first[name].float(), network.get_buffer(name).float(), 0.25)
        torch.testing.assert_close(buffer.float(), expected)


# ---- networks


@pytest.mark.parametrize("block", BLOCKS)
def test_agents_apart_equal_a_loop_over_networks_of_one_agent(block: Block):
    config = NetworkConfig(hidden=(16, 16), norm="batch", block=block, final_init=None)
    batched, x, alive = built(config, A), randn(A, N, U), (randn(N, A, seed=6) > 0).float()
    singles = [like_agent(built(config), batched, a) for a in range(A)]
    BatchNorms(batched).take_in(x, alive, 1)
    with BatchNorms(batched).learning(alive):
        out = batched(x)
    gradients = torch.autograd.grad((out * alive.T.unsqueeze(-1)).square().sum(), list(batched.parameters()))
    for a, single in enumerate(singles):
        BatchNorms(single).take_in(x[a], alive[:, a], 1)
        with BatchNorms(single).learning(alive[:, a]):
            own = single(x[a])
        torch.testing.assert_close(own, out[a])
        theirs = torch.autograd.grad((own * alive[:, a, None]).square().sum(), list(single.parameters()))
        for ours, other in zip(gradients, theirs, strict=True):
            torch.testing.assert_close(ours[a].reshape(other.shape), other, atol=1e-4, rtol=1e-4)


def test_a_residual_block_normalises_its_input_and_not_what_passes_by():
    block = ResidualBlock(U, NetworkConfig(hidden=(U,), norm="batch", block="residual"), None)
    assert isinstance(block.norm, BatchNorm)
    with torch.no_grad():
        block.contract.weight.zero_()
    x = 9 * randn(N, U) + 4
    BatchNorms(block).take_in(x, torch.ones(N), 1)
    assert torch.equal(block(x), x)


def test_statistics_are_saved_and_are_no_parameters():
    network, fresh = (built(NetworkConfig(hidden=(8, 8), norm="batch")) for _ in range(2))
    x = 4 * randn(N, U) - 1
    BatchNorms(network).take_in(x, torch.ones(N), 1)
    optimizer = GuardedAdam(network, 1, weight_decay=0.1)
    assert optimizer.flat.numel() == sum(p.numel() for p in network.parameters())
    before = statistics(network)
    optimizer.move(network(x).square().sum(), 0.1)
    assert all(torch.equal(before[name], buffer) for name, buffer in network.named_buffers())
    fresh.load_state_dict(network.state_dict())
    assert torch.equal(fresh(x), network(x))
    assert len(before) == 2 * 3


def test_a_network_without_batch_norm_has_nothing_to_do():
    network = built(NetworkConfig(hidden=(8,), norm="layer"))
    norms = BatchNorms(network)
    assert not norms
    norms.take_in(torch.zeros(0), torch.zeros(0), 1)  # not even asked
    with norms.learning(torch.zeros(0)):
        assert network(randn(N, U)).shape == (N, 2)
