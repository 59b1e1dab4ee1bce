"""The optimiser step: torch's Adam row by row, and what it does with gradients that torch's would swallow."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from marl_stable.config import NetworkConfig
from marl_stable.networks.body import Network
from marl_stable.optim import AdaptiveClip, GuardedAdam, StepStats
from tests.networks.singles import like_agent

A, N, INPUTS, OUTPUTS = 3, 16, 4, 2
CPU = torch.device("cpu")
SMALL = NetworkConfig(hidden=(8, 8), final_init=None)


def network(agents: int | None, seed: int = 0) -> Network:
    return Network(INPUTS, OUTPUTS, SMALL, agents, torch.Generator().manual_seed(seed))


def data(t: int) -> tuple[Tensor, Tensor]:
    """Inputs `(A, N, I)` and targets `(A, N, U)` of step `t`; agents differ in the size of their gradients."""
    draw = torch.Generator().manual_seed(1000 + t)
    size = torch.tensor([0.1, 3.0, 10.0]).reshape(A, 1, 1)
    return torch.randn(A, N, INPUTS, generator=draw), size * torch.randn(A, N, OUTPUTS, generator=draw)


def loss_of(net: nn.Module, t: int, spoilt: dict[int, float] | None = None) -> Tensor:
    """The sum of the agents' own losses; the targets of `spoilt` agents are that value instead."""
    x, y = data(t)
    for agent, value in (spoilt or {}).items():
        y[agent] = value
    loss: Tensor = (net(x) - y).square().mean((1, 2)).sum()
    return loss


def everything(net: nn.Module, optimizer: GuardedAdam) -> list[Tensor]:
    """All that belongs to a row, as `(R, ...)` tensors: parameters, moments, and how many steps were taken."""
    parameters = [p.detach().reshape(optimizer.rows, -1).clone() for p in net.parameters()]
    return parameters + [part for part in optimizer.state_dict().values() if isinstance(part, Tensor)]


def row(state: list[Tensor], agent: int) -> Tensor:
    return torch.cat([part[agent].flatten() for part in state])


# ---- equal to torch's


def torch_twin(
    net: nn.Module, lr: float, betas: tuple[float, float], eps: float, decay: float
) -> torch.optim.Optimizer:
    """AdamW with decay on weight matrices only; without decay, AdamW is Adam."""
    matrices = [p for name, p in net.named_parameters() if name.endswith("weight")]
    others = [p for name, p in net.named_parameters() if not name.endswith("weight")]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize(("betas", "eps"), [((0.9, 0.999), 1e-8), ((0.5, 0.9), 1e-5), ((0.0, 0.99), 1e-8)])
def test_rows_move_as_agents_of_their_own_would_with_torchs_adam(betas: tuple[float, float], eps: float, decay: float):
    net = network(A).double()
    singles = [like_agent(network(None, seed=9).double(), net, a) for a in range(A)]
    twins = [torch_twin(single, 3e-3, betas, eps, decay) for single in singles]
    optimizer = GuardedAdam(net, A, betas, eps, weight_decay=decay)
    for t in range(50):
        x, y = (part.double() for part in data(t))
        optimizer.step((net(x) - y).square().mean((1, 2)).sum(), 3e-3)
        for a in range(A):
            twins[a].zero_grad()
            (singles[a](x[a]) - y[a]).square().mean().backward()
            twins[a].step()
    for a in range(A):
        for ours, theirs in zip(net.parameters(), singles[a].parameters(), strict=True):
            torch.testing.assert_close(ours[a].reshape(theirs.shape), theirs, atol=1e-9, rtol=0)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_shared_network_moves_as_with_torchs_adam(decay: float):
    net, single = network(None).double(), network(None).double()
    twin = torch_twin(single, 3e-3, (0.9, 0.999), 1e-8, decay)
    optimizer = GuardedAdam(net, 1, weight_decay=decay)
    for t in range(50):
        x, y = (part.flatten(0, 1).double() for part in data(t))
        optimizer.step((net(x) - y).square().mean(), 3e-3)
        twin.zero_grad()
        (single(x) - y).square().mean().backward()
        twin.step()
    for ours, theirs in zip(net.parameters(), single.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=0)


def test_plain_adam_of_torch_is_met_in_float32_as_well():
    net, single = network(None), network(None)
    twin = torch.optim.Adam(single.parameters(), lr=1e-2)
    optimizer = GuardedAdam(net, 1)
    x, y = (part.flatten(0, 1) for part in data(0))
    for _ in range(50):
        optimizer.step((net(x) - y).square().mean(), 1e-2)
        twin.zero_grad()
        (single(x) - y).square().mean().backward()
        twin.step()
    for ours, theirs in zip(net.parameters(), single.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0)


def test_l1_pulls_weight_matrices_alone_towards_zero_by_a_fixed_length():
    plain, pulled = network(A), network(A)
    start = {name: p.detach().clone() for name, p in plain.named_parameters()}
    GuardedAdam(plain, A).step(loss_of(plain, 0), 1e-2)
    GuardedAdam(pulled, A, l1=0.5).step(loss_of(pulled, 0), 1e-2)
    for (name, without), with_l1 in zip(plain.named_parameters(), pulled.parameters(), strict=True):
        pull = 1e-2 * 0.5 * start[name].sign() if name.endswith("weight") else torch.zeros_like(without)
        torch.testing.assert_close(without - with_l1, pull, atol=1e-7, rtol=0)


def test_a_parameter_outside_the_loss_stays():
    net = network(None)
    net.extra = nn.Parameter(torch.ones(3))
    optimizer = GuardedAdam(net, 1)
    x, y = data(0)
    optimizer.step((net(x[0]) - y[0]).square().mean(), 1e-2)
    assert net.extra.tolist() == [1, 1, 1]
    assert not torch.equal(next(net.parameters()), next(network(None).parameters()))


def test_the_network_itself_moves_and_can_still_be_saved_and_loaded():
    net = network(A)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    optimizer = GuardedAdam(net, A)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    optimizer.step(loss_of(net, 0), 1e-2)
    assert not any(torch.equal(value, before[key]) for key, value in net.state_dict().items() if "bias" in key)
    net.load_state_dict(before)
    assert torch.equal(optimizer.flat, torch.cat([p.detach().reshape(A, -1) for p in net.parameters()], 1))


# ---- refusing


@pytest.mark.parametrize("limit", [None, 0.5, "adaptive"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e38])
def test_a_bad_gradient_of_one_agent_moves_neither_it_nor_the_others_course(value: float, limit: float | str | None):
    hit, plain = network(A), network(A)
    options: dict[str, Any] = {"max_grad_norm": limit, "weight_decay": 0.1, "l1": 0.01}
    for_hit, for_plain = GuardedAdam(hit, A, **options), GuardedAdam(plain, A, **options)
    bad = (7, 8, 15)
    for t in range(20):
        before = everything(hit, for_hit)
        stats = for_hit.step(loss_of(hit, t, {1: value} if t in bad else None), 1e-2)
        for_plain.step(loss_of(plain, t), 1e-2)
        if t in bad:
            assert stats.non_finite.tolist() == [0, 1, 0]
            assert torch.equal(row(everything(hit, for_hit), 1), row(before, 1))
        else:
            assert stats.non_finite.tolist() == [0, 0, 0]
            assert not torch.equal(row(everything(hit, for_hit), 1), row(before, 1))
    after, undisturbed = everything(hit, for_hit), everything(plain, for_plain)
    for agent in (0, 2):
        assert torch.equal(row(after, agent), row(undisturbed, agent))
    skipped = network(A)
    for_skipped = GuardedAdam(skipped, A, **options)
    for t in range(20):
        if t not in bad:
            for_skipped.step(loss_of(skipped, t), 1e-2)
    assert torch.equal(row(after, 1), row(everything(skipped, for_skipped), 1))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_with_a_shared_network_the_whole_step_is_refused(value: float):
    net = network(None)
    optimizer = GuardedAdam(net, 1, max_grad_norm="adaptive", weight_decay=0.1)
    optimizer.step(loss_of_shared(net, 0), 1e-2)
    before = everything(net, optimizer)
    stats = optimizer.step(loss_of_shared(net, 1, {1: value}), 1e-2)
    assert stats.non_finite.tolist() == [1]
    assert torch.equal(row(everything(net, optimizer), 0), row(before, 0))
    assert optimizer.step(loss_of_shared(net, 2), 1e-2).non_finite.tolist() == [0]
    assert not torch.equal(row(everything(net, optimizer), 0), row(before, 0))


def loss_of_shared(net: nn.Module, t: int, spoilt: dict[int, float] | None = None) -> Tensor:
    return loss_of(lambda x: net(x.flatten(0, 1)).unflatten(0, (A, N)), t, spoilt)  # type: ignore[arg-type]


def test_where_nothing_is_refused_a_bad_gradient_ruins_its_own_row_only():
    net = network(A)
    optimizer = GuardedAdam(net, A, refuse=False)
    stats = optimizer.step(loss_of(net, 0, {1: math.nan}), 1e-2)
    assert stats.non_finite.tolist() == [0, 1, 0]
    assert torch.cat([p.detach()[1].flatten() for p in net.parameters()]).isnan().all()
    assert row(everything(net, optimizer), 0).isfinite().all()
    assert row(everything(net, optimizer), 2).isfinite().all()


# ---- clipping


def gradient_of(net: nn.Module, t: int) -> Tensor:
    """`(A, P)`."""
    return torch.cat([g.reshape(A, -1) for g in torch.autograd.grad(loss_of(net, t), list(net.parameters()))], 1)


def test_gradients_are_clipped_row_by_row_before_they_enter_the_moments():
    net = network(A)
    gradient = gradient_of(net, 0)
    norm = gradient.norm(dim=1)
    limit = 0.9 * float(norm[1])
    assert norm[0] < limit < norm[1] < norm[2]
    optimizer = GuardedAdam(net, A, max_grad_norm=limit)
    stats: StepStats = optimizer.step(loss_of(net, 0), 1e-2)
    torch.testing.assert_close(stats.norm, norm)
    assert stats.clipped.tolist() == [0, 1, 1]
    used = gradient * torch.tensor([1, limit / norm[1], limit / norm[2]]).unsqueeze(1)
    torch.testing.assert_close(optimizer.m, 0.1 * used)
    torch.testing.assert_close(optimizer.v, 0.001 * used.square())


def test_without_a_limit_nothing_is_clipped():
    net = network(A)
    gradient = gradient_of(net, 0)
    optimizer = GuardedAdam(net, A)
    assert optimizer.step(1e4 * loss_of(net, 0), 1e-2).clipped.tolist() == [0, 0, 0]
    torch.testing.assert_close(optimizer.m, 0.1 * 1e4 * gradient, rtol=1e-3, atol=1e-3)


def fed(norms: list[float], clip: AdaptiveClip | None = None) -> tuple[AdaptiveClip, list[float]]:
    """A clip after these norms of its only row, and the limits it gave."""
    clip = clip or AdaptiveClip(1, CPU)
    return clip, [float(ask(clip, norm)) for norm in norms]


def ask(clip: AdaptiveClip, *norms: float) -> Tensor:
    """The limits `(R,)` when the rows' gradients have these norms."""
    norm = torch.tensor(norms)
    return clip(norm, norm.isfinite())


def noisy(count: int, seed: int = 0, sigma: float = 0.5) -> list[float]:
    """Log-normal norms with median 1, as gradient norms are."""
    noise: list[float] = (sigma * torch.randn(count, generator=torch.Generator().manual_seed(seed))).exp().tolist()
    return noise


def test_the_limit_is_ten_until_sixty_four_norms_are_in():
    _, limits = fed(noisy(70))
    assert limits[:64] == [10.0] * 64
    assert limits[64] != 10.0


def test_the_limit_is_the_median_and_four_robust_deviations_of_log_norms():
    clip, _ = fed(noisy(512))
    logs = torch.tensor(noisy(512)).log()
    sigma = 1.4826 * float((logs - logs.median()).abs().median())
    assert float(clip.limit) == pytest.approx(math.exp(float(logs.median()) + 4 * sigma), rel=1e-3)
    clip, _ = fed([0.3] * 512)
    assert float(clip.limit) == pytest.approx(0.3 * math.exp(4 * 0.05), rel=1e-3)
    clip, _ = fed(noisy(512, sigma=5.0))
    median = torch.tensor(noisy(512, sigma=5.0)).clamp_max(10).median()
    assert float(clip.limit) <= 10.01 * float(median)


def test_usual_norms_are_hardly_ever_clipped():
    norms = noisy(3000)
    _, limits = fed(norms)
    assert sum(norm > limit for norm, limit in zip(norms, limits, strict=True)) < 15


@pytest.mark.parametrize("spike", [1e6, math.nan, math.inf])
def test_spikes_leave_the_limit_unmoved(spike: float):
    norms = noisy(600)
    spiked = [spike if t % 50 == 49 else norm for t, norm in enumerate(norms)]
    _, plain = fed(norms)
    _, hit = fed(spiked)
    assert max(hit) <= 10.0
    for one, other in zip(hit[64:], plain[64:], strict=True):
        assert one == pytest.approx(other, rel=0.15)
    clip, _ = fed(norms)
    before = float(clip.limit)
    fed([spike, *norms[:15]], clip)
    assert float(clip.limit) == pytest.approx(before, rel=0.03)


def test_a_burst_longer_than_half_the_window_does_not_lift_the_limit_to_its_height():
    clip, _ = fed(noisy(512))
    fed([1e6] * 300, clip)
    assert float(clip.limit) < 1e3


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_norms_that_are_not_finite_have_no_part_in_the_limit(value: float):
    clip, _ = fed(noisy(112))
    before = clip.limit.clone()
    fed([value] * 160, clip)
    assert torch.equal(clip.limit, before)


@pytest.mark.parametrize(("growth", "steps"), [(1.001, 3000), (1.003, 3000), (1.005, 1500)])
def test_slow_growth_is_followed_over_three_orders_of_magnitude(growth: float, steps: int):
    norms = [norm * growth**t for t, norm in enumerate(noisy(steps, sigma=0.3))]
    clip, limits = fed(norms)
    assert sum(norm > limit for norm, limit in zip(norms, limits, strict=True)) < 0.01 * steps
    assert 1 < float(clip.limit) / growth**steps < 10


def test_a_scale_far_above_the_first_limit_is_reached():
    clip, limits = fed([1e4 * norm for norm in noisy(3000)])
    assert limits[0] == 10.0
    assert float(clip.limit) > 1e4


def test_the_limit_is_never_below_the_median():
    for sigma in (0.0, 0.01, 1.0, 3.0):
        clip = AdaptiveClip(1, CPU)
        for t, norm in enumerate(noisy(700, sigma=sigma)):
            ask(clip, norm)
            if t > 64 and t % 16 == 15:
                assert float(clip.limit) > math.exp(float(clip.ring.nanmedian()))


def test_after_a_long_silence_the_first_gradients_are_not_held_below_the_floor_of_adam():
    clip, _ = fed([1e-9] * 1000)
    assert float(clip.limit) == pytest.approx(AdaptiveClip.LOWEST)
    parameter = nn.Linear(1000, 1, bias=False)
    optimizer = GuardedAdam(parameter, 1, max_grad_norm="adaptive")
    for _ in range(1000):
        optimizer.step(0 * parameter.weight.sum(), 1e-3)
    before = parameter.weight.detach().clone()
    optimizer.step(parameter.weight.sum(), 1e-3)
    assert (parameter.weight - before).abs().mean() > 1e-3  # as far as Adam goes


def test_rows_have_limits_of_their_own():
    clip = AdaptiveClip(2, CPU)
    for norm in noisy(512):
        ask(clip, norm, 0.1 * norm)
    assert float(clip.limit[0] / clip.limit[1]) == pytest.approx(10, rel=1e-3)
    before = clip.limit.clone()
    for norm in noisy(160, seed=1):
        ask(clip, norm, math.nan)
    alone, _ = fed(noisy(512) + noisy(160, seed=1))
    assert clip.limit[0] == alone.limit[0] != before[0]


def test_the_scale_of_one_agents_gradients_leaves_the_clip_of_the_others_alone():
    plain, loud = network(A), network(A)
    for_plain, for_loud = (GuardedAdam(net, A, max_grad_norm="adaptive") for net in (plain, loud))
    clipped = torch.zeros(A)
    for t in range(150):
        x, y = data(t)
        own = torch.tensor([100.0 if t in (100, 120) else 1.0, 1.0, 1.0])  # two spikes of the first agent
        clipped += for_plain.step(((plain(x) - y).square().mean((1, 2)) * own).sum(), 1e-2).clipped
        for_loud.step(((loud(x) - y).square().mean((1, 2)) * own * torch.tensor([1.0, 1.0, 1e4])).sum(), 1e-2)
    assert clipped[0] >= 2
    one, other = everything(plain, for_plain), everything(loud, for_loud)
    assert torch.equal(row(one, 0), row(other, 0))
    assert torch.equal(row(one, 1), row(other, 1))
    assert not torch.equal(row(one, 2), row(other, 2))


# ---- state


@pytest.mark.parametrize("limit", [None, 0.5, "adaptive"])
def test_state_comes_back_and_goes_on_bit_for_bit(limit: float | str | None):
    net, other = network(A), network(A, seed=1)
    optimizer = GuardedAdam(net, A, max_grad_norm=limit)
    for t in range(100):
        optimizer.step(loss_of(net, t), 1e-2)
    state = optimizer.state_dict()
    weights = {key: value.clone() for key, value in net.state_dict().items()}
    for t in range(100, 150):
        optimizer.step(loss_of(net, t), 1e-2)
    ends = []
    for _ in range(2):  # a state may be loaded more than once: going on must not change it
        resumed = GuardedAdam(other, A, max_grad_norm=limit)
        other.load_state_dict(weights)
        resumed.load_state_dict(state)
        for t in range(100, 150):
            resumed.step(loss_of(other, t), 1e-2)
        ends.append(everything(other, resumed))
    for parts in zip(everything(net, optimizer), *ends, strict=True):
        assert torch.equal(parts[0], parts[1])
        assert torch.equal(parts[0], parts[2])


def test_weight_norm_is_of_all_parameters_of_a_row():
    net = network(A)
    optimizer = GuardedAdam(net, A)
    for agent in range(A):
        own = torch.cat([p.detach()[agent].flatten() for p in net.parameters()])
        torch.testing.assert_close(optimizer.weight_norm()[agent], own.norm())
