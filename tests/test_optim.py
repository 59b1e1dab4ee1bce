"""The optimiser step: torch's Adam row by row, and what it does with gradients that torch's would swallow."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from marl_stable.agents.base import mean_of
from marl_stable.agents.group_learner import step_stats
from marl_stable.config import NetworkConfig
from marl_stable.networks.body import Network
from marl_stable.optim import MOMENTS, GuardedAdam, StepStats
from tests.agents.loops import assert_same, copied, through_a_file
from tests.agents.test_waiting import waits_in
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


def step(optimizer: GuardedAdam, loss: Tensor, lr: float) -> StepStats:
    """Both halves of a step, which learners take apart for recording the first."""
    stats = optimizer.move(loss, lr)
    optimizer.remember(stats.norm)
    return stats


def everything(net: nn.Module, optimizer: GuardedAdam) -> list[Tensor]:
    """All that belongs to a row, as `(R, ...)` tensors: parameters, moments, how many steps were taken, step sizes."""
    parameters = [p.detach().reshape(optimizer.rows, -1).clone() for p in net.parameters()]
    state = optimizer.state_dict()
    return parameters + [state[name] for name in MOMENTS] + [state["rates"]["factor"], state["rates"]["ramp"]]


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
    optimizer = GuardedAdam(net, A, betas=betas, eps=eps, weight_decay=decay)
    for t in range(50):
        x, y = (part.double() for part in data(t))
        step(optimizer, (net(x) - y).square().mean((1, 2)).sum(), 3e-3)
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
        step(optimizer, (net(x) - y).square().mean(), 3e-3)
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
        step(optimizer, (net(x) - y).square().mean(), 1e-2)
        twin.zero_grad()
        (single(x) - y).square().mean().backward()
        twin.step()
    for ours, theirs in zip(net.parameters(), single.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0)


def test_l1_pulls_weight_matrices_alone_towards_zero_by_a_fixed_length():
    plain, pulled = network(A), network(A)
    start = {name: p.detach().clone() for name, p in plain.named_parameters()}
    step(GuardedAdam(plain, A), loss_of(plain, 0), 1e-2)
    step(GuardedAdam(pulled, A, l1=0.5), loss_of(pulled, 0), 1e-2)
    for (name, without), with_l1 in zip(plain.named_parameters(), pulled.parameters(), strict=True):
        pull = 1e-2 * 0.5 * start[name].sign() if name.endswith("weight") else torch.zeros_like(without)
        torch.testing.assert_close(without - with_l1, pull, atol=1e-7, rtol=0)


def test_a_parameter_outside_the_loss_stays():
    net = network(None)
    net.extra = nn.Parameter(torch.ones(3))
    optimizer = GuardedAdam(net, 1)
    x, y = data(0)
    step(optimizer, (net(x[0]) - y[0]).square().mean(), 1e-2)
    assert net.extra.tolist() == [1, 1, 1]
    assert not torch.equal(next(net.parameters()), next(network(None).parameters()))


def test_the_network_itself_moves_and_can_still_be_saved_and_loaded():
    net = network(A)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    optimizer = GuardedAdam(net, A)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    step(optimizer, loss_of(net, 0), 1e-2)
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
        stats = step(for_hit, loss_of(hit, t, {1: value} if t in bad else None), 1e-2)
        step(for_plain, loss_of(plain, t), 1e-2)
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
            step(for_skipped, loss_of(skipped, t), 1e-2)
    assert torch.equal(row(after, 1), row(everything(skipped, for_skipped), 1))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_with_a_shared_network_the_whole_step_is_refused(value: float):
    net = network(None)
    optimizer = GuardedAdam(net, 1, max_grad_norm="adaptive", weight_decay=0.1)
    step(optimizer, loss_of_shared(net, 0), 1e-2)
    before = everything(net, optimizer)
    stats = step(optimizer, loss_of_shared(net, 1, {1: value}), 1e-2)
    assert stats.non_finite.tolist() == [1]
    assert torch.equal(row(everything(net, optimizer), 0), row(before, 0))
    assert step(optimizer, loss_of_shared(net, 2), 1e-2).non_finite.tolist() == [0]
    assert not torch.equal(row(everything(net, optimizer), 0), row(before, 0))


def loss_of_shared(net: nn.Module, t: int, spoilt: dict[int, float] | None = None) -> Tensor:
    return loss_of(lambda x: net(x.flatten(0, 1)).unflatten(0, (A, N)), t, spoilt)  # type: ignore[arg-type]


def test_where_nothing_is_refused_a_bad_gradient_ruins_its_own_row_only():
    net = network(A)
    optimizer = GuardedAdam(net, A, refuse=False)
    stats = step(optimizer, loss_of(net, 0, {1: math.nan}), 1e-2)
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
    stats: StepStats = step(optimizer, loss_of(net, 0), 1e-2)
    torch.testing.assert_close(stats.norm, norm)
    assert stats.clipped.tolist() == [0, 1, 1]
    used = gradient * torch.tensor([1, limit / norm[1], limit / norm[2]]).unsqueeze(1)
    torch.testing.assert_close(optimizer.m, 0.1 * used)
    torch.testing.assert_close(optimizer.v, 0.001 * used.square())


def test_without_a_limit_nothing_is_clipped():
    net = network(A)
    gradient = gradient_of(net, 0)
    optimizer = GuardedAdam(net, A)
    assert step(optimizer, 1e4 * loss_of(net, 0), 1e-2).clipped.tolist() == [0, 0, 0]
    torch.testing.assert_close(optimizer.m, 0.1 * 1e4 * gradient, rtol=1e-3, atol=1e-3)


def test_after_a_long_silence_the_first_gradients_are_not_held_below_the_floor_of_adam():
    parameter = nn.Linear(1000, 1, bias=False)
    optimizer = GuardedAdam(parameter, 1, max_grad_norm="adaptive")
    for _ in range(1000):
        step(optimizer, 0 * parameter.weight.sum(), 1e-3)
    before = parameter.weight.detach().clone()
    step(optimizer, parameter.weight.sum(), 1e-3)
    assert (parameter.weight - before).abs().mean() > 1e-3  # as far as Adam goes


def test_the_scale_of_one_agents_gradients_leaves_the_clip_of_the_others_alone():
    plain, loud = network(A), network(A)
    for_plain, for_loud = (GuardedAdam(net, A, max_grad_norm="adaptive") for net in (plain, loud))
    clipped = torch.zeros(A)
    for t in range(150):
        x, y = data(t)
        own = torch.tensor([100.0 if t in (100, 120) else 1.0, 1.0, 1.0])  # two spikes of the first agent
        clipped += step(for_plain, ((plain(x) - y).square().mean((1, 2)) * own).sum(), 1e-2).clipped
        step(for_loud, ((loud(x) - y).square().mean((1, 2)) * own * torch.tensor([1.0, 1.0, 1e4])).sum(), 1e-2)
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
        step(optimizer, loss_of(net, t), 1e-2)
    state = optimizer.state_dict()
    weights = {key: value.clone() for key, value in net.state_dict().items()}
    for t in range(100, 150):
        step(optimizer, loss_of(net, t), 1e-2)
    ends = []
    for _ in range(2):  # a state may be loaded more than once: going on must not change it
        resumed = GuardedAdam(other, A, max_grad_norm=limit)
        other.load_state_dict(weights)
        resumed.load_state_dict(state)
        for t in range(100, 150):
            step(resumed, loss_of(other, t), 1e-2)
        ends.append(everything(other, resumed))
    for parts in zip(everything(net, optimizer), *ends, strict=True):
        assert torch.equal(parts[0], parts[1])
        assert torch.equal(parts[0], parts[2])


@pytest.mark.parametrize("limit", [None, 0.5, "adaptive"])
def test_what_the_guard_did_comes_back_as_well(limit: float | str | None):
    """Steps already skipped, a rate lowered, a warm-up under way, and more spikes to come."""
    net, other = network(A), network(A, seed=1)
    optimizer = GuardedAdam(net, A, max_grad_norm=limit)
    spiked(net, optimizer, range(103), {101: 0, 102: 0})
    optimizer.scale_rate([True, False, False], 0.5)
    optimizer.reset_moments([False, True, False])
    spiked(net, optimizer, range(103, 110))
    state = copied(optimizer.state_dict())
    weights = copied(net.state_dict())
    rest = {110: 0, 111: 1, 150: 2, 151: 2, 152: 2}
    told = spiked(net, optimizer, range(110, 350), rest)
    resumed = GuardedAdam(other, A, max_grad_norm=limit)
    other.load_state_dict(weights)
    resumed.load_state_dict(through_a_file(state))
    assert_same([list(step) for step in spiked(other, resumed, range(110, 350), rest)], [list(step) for step in told])
    assert_same(dict(other.state_dict()), dict(net.state_dict()))
    assert_same(resumed.state_dict(), optimizer.state_dict())
    assert [int(step.skipped.sum()) for step in told[:2]] == [0, 1]  # the first agent has had its two


@pytest.mark.parametrize("limit", [None, 0.5, "adaptive"])
@pytest.mark.parametrize("young", [0, 20])
def test_back_at_a_young_state_gradients_are_judged_as_by_a_new_optimizer(limit: float | str | None, young: int):
    net, other = network(A), network(A)
    used, new = GuardedAdam(net, A, max_grad_norm=limit), GuardedAdam(other, A, max_grad_norm=limit)
    spiked(net, used, range(young))
    state, weights = through_a_file(used.state_dict()), copied(net.state_dict())
    spiked(net, used, range(young, 200))
    assert used.spikes is not None
    assert used.spikes.limit.isfinite().all()
    for optimizer, its_net in ((used, net), (new, other)):
        optimizer.load_state_dict(state)
        its_net.load_state_dict(weights)
    told = [
        spiked(*pair, range(young, young + 100), {young: 0, young + 3: 1}, 1e3) for pair in ((net, used), (other, new))
    ]
    assert_same([list(step) for step in told[0]], [list(step) for step in told[1]])
    assert not any(step.skipped.any() for step in told[0][:10])
    assert_same(used.state_dict(), new.state_dict())


# ---- spikes


def spiked(
    net: nn.Module, optimizer: GuardedAdam, steps: range, spikes: dict[int, int] | None = None, times: float = 1e6
) -> list[StepStats]:
    """Steps on `data`, in `spikes` (step: agent) with that agent's gradient `times` as large."""
    told = []
    for t in steps:
        x, y = data(t)
        own = torch.ones(A)
        if spikes and t in spikes:
            own[spikes[t]] = times
        told.append(step(optimizer, ((net(x) - y).square().mean((1, 2)) * own).sum(), 1e-3))
    return told


@pytest.mark.parametrize("limit", [None, 0.5, "adaptive"])
def test_on_healthy_gradients_the_guard_is_not_there(limit: float | str | None):
    """Bit for bit, watched or not; and nobody is skipped, clipped for being a spike, or called stunned."""
    ends = []
    for refuse, watch in ((True, True), (False, True), (False, False)):
        net = network(A)
        optimizer = GuardedAdam(net, A, max_grad_norm=limit, weight_decay=0.1, refuse=refuse, watch=watch)
        told = spiked(net, optimizer, range(200))
        assert not any(step.spike.any() or step.skipped.any() for step in told)
        assert not optimizer.stunned().any()
        ends.append(everything(net, optimizer))
    for one, *others in zip(*ends, strict=True):
        assert all(torch.equal(one, other) for other in others)


@pytest.mark.parametrize("limit", [None, 50.0, 1e9, "adaptive"])
def test_two_spikes_in_a_row_are_skipped_and_the_third_is_clipped(limit: float | str | None):
    hit, plain = network(A), network(A)
    for_hit, for_plain = (GuardedAdam(net, A, max_grad_norm=limit) for net in (hit, plain))
    spiked(hit, for_hit, range(100))
    spiked(plain, for_plain, range(100))
    before = everything(hit, for_hit)
    told = spiked(hit, for_hit, range(100, 102), {100: 1, 101: 1})
    assert [step.spike.tolist() for step in told] == [[False, True, False]] * 2
    assert [step.skipped.tolist() for step in told] == [[False, True, False]] * 2
    assert torch.equal(row(everything(hit, for_hit), 1), row(before, 1))
    v = for_hit.v[1].sum()
    usual = float(for_hit.spikes.median.exp()[1])  # type: ignore[union-attr]
    (third,) = spiked(hit, for_hit, range(102, 103), {102: 1})
    assert third.spike[1]
    assert third.clipped[1]
    assert not third.skipped.any()
    assert 0 < float(for_hit.v[1].sum() - 0.999 * v) < 1e-3 * (10 * usual) ** 2  # it weighs as ten usual ones at most
    spiked(plain, for_plain, range(100, 103))
    for agent in (0, 2):
        assert torch.equal(row(everything(hit, for_hit), agent), row(everything(plain, for_plain), agent))


def test_with_a_shared_network_the_whole_step_is_skipped():
    net = network(None)
    optimizer = GuardedAdam(net, 1, max_grad_norm="adaptive")
    for t in range(80):
        step(optimizer, loss_of_shared(net, t), 1e-3)
    before = everything(net, optimizer)
    assert step(optimizer, 1e6 * loss_of_shared(net, 80), 1e-3).skipped.tolist() == [True]
    assert torch.equal(row(everything(net, optimizer), 0), row(before, 0))


@pytest.mark.parametrize("limit", [None, 0.5, "adaptive"])
def test_under_the_monitor_spikes_are_counted_and_nothing_is_done(limit: float | str | None):
    ends = []
    for watch in (True, False):
        net = network(A)
        optimizer = GuardedAdam(net, A, max_grad_norm=limit, refuse=False, watch=watch)
        told = spiked(net, optimizer, range(120), {100: 1, 110: 2})
        assert not any(step.skipped.any() for step in told)
        assert [t for t, step in enumerate(told) if step.spike.any()] == ([100, 110] if watch else [])
        ends.append(everything(net, optimizer))
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))


def test_before_there_are_norms_to_compare_with_nothing_is_a_spike():
    net = network(A)
    told = spiked(net, GuardedAdam(net, A), range(60), {30: 1})
    assert not any(step.spike.any() or step.skipped.any() for step in told)


@pytest.mark.parametrize("limit", [None, 0.5, "adaptive"])
def test_after_a_lasting_change_of_scale_training_goes_on(limit: float | str | None):
    net = network(A)
    optimizer = GuardedAdam(net, A, max_grad_norm=limit)
    spiked(net, optimizer, range(100))
    told = spiked(net, optimizer, range(100, 300), dict.fromkeys(range(100, 300), 1), times=1e3)
    assert sum(int(step.skipped.sum()) for step in told) <= 2 + 200 / 128
    assert not any(step.spike.any() for step in told[-50:])  # it is the usual scale by now
    with torch.no_grad():
        x, y = data(0)
        assert (net(x) - y)[1].square().mean() < (network(A)(x) - y)[1].square().mean()


# ---- step sizes and forgetting


def moved_by(net: nn.Module, optimizer: GuardedAdam, t: int) -> Tensor:
    """`(R,)` how far step `t` goes."""
    before = optimizer.flat.clone()
    step(optimizer, loss_of(net, t), 1e-3)
    distance: Tensor = torch.linalg.vector_norm((optimizer.flat - before).double(), dim=1)
    return distance


def test_a_factor_scales_the_steps_of_its_row_only():
    net, plain = network(A), network(A)
    optimizer, for_plain = GuardedAdam(net, A), GuardedAdam(plain, A)
    optimizer.scale_rate([True, False, False], 0.5)
    ratio = moved_by(net, optimizer, 0) / moved_by(plain, for_plain, 0)
    torch.testing.assert_close(ratio, torch.tensor([0.5, 1, 1]).double(), rtol=1e-3, atol=0)
    assert torch.equal(optimizer.flat[1:], for_plain.flat[1:])
    assert torch.equal(optimizer.v, for_plain.v)


def test_weight_decay_shrinks_with_the_step():
    net = network(None)
    optimizer = GuardedAdam(net, 1, weight_decay=0.5)
    optimizer.scale_rate([True], 0.1)
    before = optimizer.flat.clone()
    step(optimizer, 0 * loss_of_shared(net, 0), 1e-1)
    torch.testing.assert_close(optimizer.flat, before * (1 - 0.1 * 0.1 * 0.5 * optimizer.decays))


def test_rows_that_are_not_reset_go_on_bit_for_bit():
    net, plain = network(A), network(A)
    optimizer, for_plain = (
        GuardedAdam(net, A, max_grad_norm="adaptive"),
        GuardedAdam(plain, A, max_grad_norm="adaptive"),
    )
    for t in range(270):
        if t == 50:
            optimizer.reset_moments(torch.tensor([False, True, False]))
            assert float(optimizer.m[1].norm() + optimizer.v[1].norm() + optimizer.v_weight[1]) == 0
        step(optimizer, loss_of(net, t), 1e-3)
        step(for_plain, loss_of(plain, t), 1e-3)
        for agent in (0, 2):
            assert torch.equal(optimizer.flat[agent], for_plain.flat[agent])
        assert (t >= 50) == (not torch.equal(optimizer.flat[1], for_plain.flat[1]))


def test_after_a_reset_steps_grow_from_a_two_hundredth_to_their_size():
    parameter = nn.Linear(1, 1, bias=False).double()
    optimizer = GuardedAdam(parameter, 1)
    for _ in range(10):
        step(optimizer, parameter.weight.sum(), 1e-3)
    optimizer.reset_moments(torch.tensor([True]))
    sizes = []
    for _ in range(210):
        before = float(optimizer.flat)
        step(optimizer, parameter.weight.sum(), 1e-3)
        sizes.append(before - float(optimizer.flat))
    expected = [1e-3 * min((t + 1) / 200, 1.0) for t in range(210)]  # of a constant gradient, Adam's step is the rate
    assert sizes == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("size", [float("nan"), float("inf")])
def test_a_reset_also_heals_moments_that_are_not_finite(size: float):
    net = network(A)
    optimizer = GuardedAdam(net, A)
    optimizer.m[1], optimizer.v[1] = size, size
    optimizer.reset_moments([False, True, False])
    assert moved_by(net, optimizer, 0).isfinite().all()


# ---- being watched


@pytest.mark.parametrize("limit", [None, 0.5, "adaptive"])
def test_nothing_of_this_waits_for_the_device(limit: float | str | None):
    net = network(A)
    optimizer = GuardedAdam(net, A, max_grad_norm=limit)

    def work() -> None:
        spiked(net, optimizer, range(80), {70: 1})
        optimizer.scale_rate(optimizer.stunned(), 0.5)
        optimizer.reset_moments(optimizer.stunned())
        step(optimizer, loss_of(net, 80), 1e-3)
        for figure in (optimizer.memory, optimizer.frozen_share, optimizer.direction_rms, optimizer.layers):
            figure()

    assert waits_in(work) == {}


def test_what_an_update_tells_has_the_mean_of_its_steps_and_their_largest_norm():
    net = network(A)
    optimizer = GuardedAdam(net, A, max_grad_norm="adaptive")
    spiked(net, optimizer, range(100))
    told = spiked(net, optimizer, range(100, 104), {101: 1})
    stats = mean_of([step_stats("actor", step) for step in told])
    norms = torch.stack([step.norm for step in told])
    assert torch.equal(stats["grad_norm/actor"], norms.mean(0))
    assert torch.equal(stats["stability/grad_norm_peak/actor"], norms.amax(0))
    for tag in ("stability/grad_spike/actor", "skipped/actor"):
        assert stats[tag].tolist() == [0, 0.25, 0]
    assert stats["grad_norm/actor_clipped_fraction"][1] >= 0.25
    assert stats["non_finite/actor"].tolist() == [0, 0, 0]


def test_one_huge_gradient_stuns_its_row_until_it_is_forgotten():
    net = network(A)
    optimizer = GuardedAdam(net, A)
    spiked(net, optimizer, range(80), {20: 1})  # too early to be known for a spike
    assert optimizer.stunned().tolist() == [False, True, False]
    assert float(moved_by(net, optimizer, 80)[1]) < 0.01 * float(moved_by(net, optimizer, 81)[0])
    optimizer.reset_moments(optimizer.stunned())
    assert not optimizer.stunned().any()
    spiked(net, optimizer, range(82, 300))
    assert not optimizer.stunned().any()
    assert float(moved_by(net, optimizer, 300)[1]) > 0.1 * float(moved_by(net, optimizer, 301)[0])


@pytest.mark.parametrize("limit", [0.5, "adaptive"])
def test_what_was_clipped_or_skipped_stuns_nobody(limit: float | str):
    net = network(A)
    optimizer = GuardedAdam(net, A, max_grad_norm=limit)
    spiked(net, optimizer, range(200), {20: 1, 100: 1, 150: 2, 151: 2, 152: 2})
    assert not optimizer.stunned().any()


def test_gradients_that_learning_has_made_small_are_no_reason_to_forget():
    net = network(A)
    optimizer = GuardedAdam(net, A, refuse=False)
    for t in range(500):
        step(optimizer, loss_of(net, t) * (1.0 if t < 150 else 1e-3), 1e-3)
    assert float((optimizer.spikes.median.exp() / optimizer.memory()).max()) < 0.1  # type: ignore[union-attr]
    assert not optimizer.stunned().any()


def test_nobody_is_stunned_where_nobody_watches():
    net = network(A)
    optimizer = GuardedAdam(net, A, refuse=False, watch=False)
    spiked(net, optimizer, range(80), {20: 1})
    assert optimizer.stunned().tolist() == [False] * A


def test_figures_are_those_of_each_row_and_matrix_by_itself():
    net = network(A)
    optimizer = GuardedAdam(net, A, eps=1e-2)
    assert optimizer.frozen_share().tolist() == [0] * A
    assert optimizer.memory().tolist() == [0] * A
    for t in range(30):
        step(optimizer, loss_of(net, t), 1e-2)
    m_hat, v_hat = optimizer.m / (1 - 0.9**30), optimizer.v / (1 - 0.999**30)
    torch.testing.assert_close(optimizer.memory(), v_hat.sum(1).sqrt())
    torch.testing.assert_close(optimizer.frozen_share(), (v_hat.sqrt() < 0.1).float().mean(1))
    assert 0 < optimizer.frozen_share()[0] < 1
    direction = m_hat / (v_hat.sqrt() + 1e-2)
    torch.testing.assert_close(optimizer.direction_rms(), direction.square().mean(1).sqrt(), rtol=1e-4, atol=0)
    layers = optimizer.layers()
    matrices = {name: p for name, p in net.named_parameters() if name.endswith("weight")}
    assert [f"{name}.weight" for name in layers.names] == list(matrices)
    widths = [p.numel() // A for p in net.parameters()]
    parts = dict(zip(dict(net.named_parameters()), v_hat.split(widths, 1), strict=True))
    for i, (name, matrix) in enumerate(matrices.items()):
        torch.testing.assert_close(layers.weight[:, i], matrix.detach().square().mean((1, 2)).sqrt())
        torch.testing.assert_close(layers.gradient[:, i], parts[name].mean(1).sqrt())


def test_the_first_step_is_as_long_over_the_weights_as_is_foretold():
    net = network(A)
    optimizer = GuardedAdam(net, A)
    before, foretold = optimizer.flat.clone(), optimizer.shares(1e-3)
    step(optimizer, torch.stack([p.sum() for p in net.parameters()]).sum(), 1e-3)
    took = (optimizer.flat - before).square().mean(1).sqrt() / before.square().mean(1).sqrt()
    torch.testing.assert_close(took, foretold, rtol=1e-4, atol=0)


def test_weight_norm_is_of_all_parameters_of_a_row():
    net = network(A)
    optimizer = GuardedAdam(net, A)
    for agent in range(A):
        own = torch.cat([p.detach()[agent].flatten() for p in net.parameters()])
        torch.testing.assert_close(optimizer.weight_norm()[agent], own.norm())
