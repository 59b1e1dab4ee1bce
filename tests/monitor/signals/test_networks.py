"""Health of networks against plain loops over units, rows and singular values."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from marl_stable.monitor.signals.networks import DORMANT, dormant, effective_rank, ratio, rms, step_budget
from tests.agents.test_waiting import waits_in

N, A, H = 60, 3, 16


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def activations(seed: int = 0) -> Tensor:
    """`(N, A, H)` of a ReLU layer where some units hardly ever answer."""
    h = draw(N, A, H, seed=seed).relu()
    h[..., 3] = 0.0
    h[..., 5] *= 1e-3
    h[:, 1, 7] *= 1e-2
    return h


def alive() -> Tensor:
    return torch.rand(N, A, generator=torch.Generator().manual_seed(9)) < 0.6


def slow_dormant(rows: list[Tensor]) -> float:
    """Sokar's score of one network, from its rows `(H,)`."""
    activity = [sum(float(row[j].abs()) for row in rows) / len(rows) for j in range(H)]
    mean = sum(activity) / H
    return sum(score <= DORMANT * mean for score in activity) / H


def slow_rank(rows: list[Tensor]) -> float:
    values = torch.linalg.svdvals(torch.stack(rows).double())
    shares = (values / values.sum()).tolist()
    return math.exp(-sum(s * math.log(s) for s in shares if s > 1e-6)) / H


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("fast", "slow"), [(dormant, slow_dormant), (effective_rank, slow_rank)])
def test_units_of_one_network_for_all_and_of_one_each(fast, slow, masked: bool):
    h, counts = activations(), alive() if masked else torch.ones(N, A, dtype=torch.bool)
    mask = counts if masked else None
    everything = [h[n, a] for n in range(N) for a in range(A) if counts[n, a]]
    assert float(fast(h, False, mask)) == pytest.approx(slow(everything), rel=1e-3)
    each = [slow([h[n, a] for n in range(N) if counts[n, a]]) for a in range(A)]
    assert float(fast(h, True, mask)) == pytest.approx(sum(each) / A, rel=1e-3)


def test_units_that_answer_nothing_are_dormant():
    assert dormant(torch.zeros(N, A, H), False).item() == 1  # all of a dead layer
    assert dormant(draw(N, A, H), False).item() == 0
    assert dormant(activations(), False).item() == pytest.approx(2 / H)
    assert dormant(activations(), True).item() == pytest.approx((2 + 3 + 2) / (3 * H))


def test_rank_runs_from_one_direction_to_all():
    one = draw(N, 1, 1) * draw(1, 1, H, seed=1)
    assert effective_rank(one, False).item() == pytest.approx(1 / H, rel=1e-3)
    three = draw(N, 1, 3) @ torch.linalg.qr(draw(H, H, seed=2)).Q[:3]
    assert 2.5 / H < effective_rank(three, False).item() < 3.01 / H
    assert effective_rank(torch.eye(H).repeat(4, 1).unsqueeze(1), False).item() == pytest.approx(1)


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
def test_rank_has_no_unit(scale: float):
    torch.testing.assert_close(effective_rank(scale * activations(), False), effective_rank(activations(), False))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_is_not_read_and_raises_nothing(value: float):
    h = activations()
    h[4, 1, 2] = value
    for fast in (dormant, effective_rank):
        assert fast(h, False).isnan()
        torch.testing.assert_close(fast(h, True), fast(activations()[:, [0, 2]], True))  # the others' are


def test_an_agent_that_never_acts_has_no_part_in_it():
    counts = alive()
    counts[:, 0] = False
    for fast in (dormant, effective_rank):
        torch.testing.assert_close(fast(activations(), True, counts), fast(activations()[:, 1:], True, counts[:, 1:]))
        assert fast(activations(), True, torch.zeros_like(counts)).isnan()


def test_step_budget_bounds_what_one_step_of_adam_does_to_an_output():
    """Adam's first step moves every weight by the rate, in the direction of its gradient's sign."""
    h = draw(N, A, H)
    budget = step_budget(h, torch.tensor([1e-2]))
    for a in range(A):
        slow = sum(float(h[n, a, j].abs()) for n in range(N) for j in range(H)) / N
        assert float(budget[a]) == pytest.approx(1e-2 * slow, rel=1e-5)
    weight = torch.zeros(H, requires_grad=True)
    optimizer = torch.optim.Adam([weight], lr=1e-2)
    (h[0, 0] @ weight).backward()
    optimizer.step()
    moved = float((h[0, 0] @ weight).detach().abs())
    assert moved == pytest.approx(float(step_budget(h[:1, :1], torch.tensor([1e-2]))[0]), rel=1e-4)


def test_step_budget_knows_each_agents_rate_and_living_rows():
    h, counts, rate = draw(N, A, H), alive(), torch.tensor([1e-3, 2e-3, 0.0])
    found = step_budget(h, rate, counts)
    for a in range(A):
        rows = [float(h[n, a].abs().sum()) for n in range(N) if counts[n, a]]
        assert float(found[a]) == pytest.approx(float(rate[a]) * sum(rows) / len(rows), rel=1e-5)


def test_ratios_of_root_mean_squares():
    x = torch.tensor([[3.0, 4.0, 0.0, 0.0], [1.0, 1.0, 1.0, -1.0], [0.0, 0.0, 0.0, 0.0]])
    assert rms(x).tolist() == [2.5, 1.0, 0.0]
    assert ratio(rms(x), torch.tensor([5.0, 0.0, 0.0])).tolist() == [0.5, math.inf, 0.0]


def test_nothing_makes_the_host_wait_on_the_cpu():
    h, counts = activations(), alive()
    assert waits_in(lambda: dormant(h, False, counts)) == {}
    assert waits_in(lambda: effective_rank(h, True, counts)) == {}
    assert waits_in(lambda: step_budget(h, torch.ones(1), counts)) == {}
