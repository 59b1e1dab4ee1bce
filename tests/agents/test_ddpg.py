"""DDPG's losses against plain loops over samples and agents, and masks that nothing leaks through."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from marl_stable.agents.ddpg import actor_loss, critic_loss, td_target

B, A, K, GAMMA = 40, 3, 2, 0.9


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=draw(seed))


ALIVE = (torch.rand(B, A, generator=draw(9)) < 0.6).float()


def mean_by_hand(x: list[list[float]], share: bool) -> float:
    """Over living entries together, or the sum over agents of each one's own mean."""
    columns = [[x[b][a] for b in range(B) if ALIVE[b, a] > 0] for a in range(A)]
    if share:
        return sum(map(sum, columns)) / sum(map(len, columns))
    return sum(sum(column) / len(column) for column in columns)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_targets_are_the_reward_and_what_the_most_doubtful_critic_expects(count: int):
    reward, next_q = normal(B, A, seed=1), normal(count, B, A, seed=2)
    terminated, terminal = torch.rand(B, A, generator=draw(3)) < 0.3, torch.tensor([0.0, -4.0, 2.5])
    target = td_target(reward, next_q, terminated, GAMMA, terminal)
    for b in range(B):
        for a in range(A):
            follows = float(terminal[a]) if terminated[b, a] else min(float(next_q[k, b, a]) for k in range(count))
            assert float(target[b, a]) == pytest.approx(float(reward[b, a]) + GAMMA * follows, abs=1e-6)


def test_what_targets_say_of_states_beyond_an_end_does_not_matter():
    terminated = torch.rand(B, A, generator=draw(3)) < 0.3
    nan = torch.where(terminated, torch.nan, normal(K, B, A))
    assert td_target(normal(B, A), nan, terminated, GAMMA, torch.zeros(A)).isfinite().all()


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("huber", [None, 0.5, 1.0])
def test_the_critics_loss_equals_a_loop_over_critics_and_samples(huber: float | None, share: bool):
    q, target = normal(K, B, A, seed=1), normal(B, A, seed=2)
    beyond = 0

    def of(k: int, b: int, a: int) -> float:
        nonlocal beyond
        error = abs(float(q[k, b, a] - target[b, a]))
        if huber is None or error <= huber:
            return 0.5 * error**2
        beyond += 1
        return huber * (error - 0.5 * huber)

    expected = mean_by_hand([[sum(of(k, b, a) for k in range(K)) for a in range(A)] for b in range(B)], share)
    assert float(critic_loss(q, target, ALIVE, huber, share)) == pytest.approx(expected, rel=1e-5)
    assert huber is None or 10 < beyond < K * B * A - 10


@pytest.mark.parametrize("share", [True, False])
def test_the_actors_loss_equals_a_loop_over_samples(share: bool):
    q, penalty = normal(B, A, seed=1), normal(B, A, seed=2).square()
    expected = -mean_by_hand([[float(q[b, a]) - 0.3 * float(penalty[b, a]) for a in range(A)] for b in range(B)], share)
    assert float(actor_loss(q, penalty, ALIVE, 0.3, share)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("share", [True, False])
def test_dead_agents_have_no_part_in_any_gradient(share: bool):
    dead = ALIVE == 0

    def gradients(garbage: float) -> list[Tensor]:
        q = torch.where(dead, garbage, normal(K, B, A, seed=1)).requires_grad_()
        target = torch.where(dead, garbage, normal(B, A, seed=2))
        fit = critic_loss(q, target, ALIVE, 1.0, share)
        improve = actor_loss(q[0], torch.where(dead, garbage, 1.0), ALIVE, 0.1, share)
        return [torch.autograd.grad(loss, q)[0] for loss in (fit, improve)]

    for clean, dirty in zip(gradients(0.0), gradients(-1e6), strict=True):
        assert torch.equal(clean, dirty)
        assert clean[:, dead].eq(0).all()
    nobody = torch.zeros(B, A)
    assert critic_loss(normal(K, B, A), normal(B, A), nobody, 1.0, share) == 0
    assert actor_loss(normal(B, A), normal(B, A), nobody, 1.0, share) == 0


def test_an_agents_nan_stays_its_own_where_nothing_is_shared():
    q = normal(K, B, A, seed=1)
    q[:, 3, 1] = torch.nan
    q.requires_grad_()
    for loss in (critic_loss(q, normal(B, A), ALIVE, 1.0, False), actor_loss(q[0], normal(B, A), ALIVE, 0.1, False)):
        (gradient,) = torch.autograd.grad(loss, q)
        assert gradient[:, :, [0, 2]].isfinite().all()
