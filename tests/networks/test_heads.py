"""Distributions over actions against torch's own, against sampling, and where torch's own would give NaN."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, distributions

from marl_stable.networks.heads import (
    LOG_STD_MAX,
    LOG_STD_MIN,
    Categorical,
    Gaussian,
    SquashedGaussian,
    approx_kl,
    bounded_log_std,
    free_log_std,
    log_slope,
)

B, A, D = 50, 3, 2


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=draw(seed), dtype=torch.float64)


# ---- discrete


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_categorical_is_torchs(scale: float):
    logits = scale * normal(B, A, 5)
    ours, theirs = Categorical(logits), distributions.Categorical(logits=logits)
    action = torch.randint(5, (B, A), generator=draw())
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    assert torch.equal(ours.mode(), logits.argmax(-1))


def test_categorical_is_sampled_as_often_as_it_says():
    probs = torch.tensor([0.5, 0.3, 0.15, 0.05])
    policy = Categorical((probs.log() + 7).expand(40_000, 1, 4))
    action = policy.sample(draw())
    assert (action.shape, action.dtype) == ((40_000, 1), torch.int64)
    share = torch.bincount(action.flatten(), minlength=4) / 40_000
    torch.testing.assert_close(share, probs, atol=0.01, rtol=0)


def test_the_generator_alone_decides_what_is_drawn():
    for policy in (Categorical(normal(B, A, 4)), Gaussian(normal(B, A, D), torch.zeros(D))):
        torch.manual_seed(0)
        first = policy.sample(draw(5))
        torch.manual_seed(1)
        assert torch.equal(policy.sample(draw(5)), first)
        assert not torch.equal(policy.sample(draw(6)), first)


def test_an_action_that_is_masked_is_never_drawn():
    logits = normal(10_000, 1, 3).float()
    logits[..., 1] = -torch.inf
    policy = Categorical(logits)
    assert not (policy.sample(draw()) == 1).any()
    assert not (policy.mode() == 1).any()


def test_penalty_of_logits_is_their_mean_square_around_their_mean():
    logits = normal(B, A, 4)
    torch.testing.assert_close(Categorical(logits).penalty(), logits.var(-1, correction=0))
    torch.testing.assert_close(Categorical(logits + 100).penalty(), Categorical(logits).penalty())


# ---- continuous


@pytest.mark.parametrize("lead", [(), (A,)], ids=["one deviation", "one per agent"])
def test_gaussian_is_torchs(lead: tuple[int, ...]):
    mean, log_std, action = normal(B, A, D), normal(*lead, D, seed=1), normal(B, A, D, seed=2)
    ours = Gaussian(mean, log_std)
    theirs = distributions.Independent(distributions.Normal(mean, log_std.exp().expand_as(mean)), 1)
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    assert torch.equal(ours.mode(), mean)
    torch.testing.assert_close(ours.penalty(), mean.square().mean(-1))


@pytest.mark.parametrize("kind", [Gaussian, SquashedGaussian])
def test_gaussians_are_sampled_with_their_mean_and_deviation(kind: type[Gaussian]):
    mean, log_std = torch.tensor([[1.0, -2.0]]).expand(100_000, 1, 2), torch.tensor([0.0, -1.0])
    raw = kind(mean, log_std).sample(draw()).flatten(0, 1)
    torch.testing.assert_close(raw.mean(0), mean[0, 0], atol=0.02, rtol=0)
    torch.testing.assert_close(raw.std(0), log_std.exp(), atol=0.02, rtol=0)


def test_the_squashed_gaussian_is_torchs_transformed_distribution():
    mean, log_std, raw = normal(B, A, D), 0.3 * normal(A, D, seed=1), normal(B, A, D, seed=2)
    base = distributions.Normal(mean, log_std.exp().expand_as(mean))
    theirs = distributions.Independent(distributions.TransformedDistribution(base, [distributions.TanhTransform()]), 1)
    torch.testing.assert_close(SquashedGaussian(mean, log_std).log_prob(raw), theirs.log_prob(raw.tanh()))


def test_the_density_of_squashed_actions_integrates_to_one():
    action = torch.linspace(-1, 1, 200_001, dtype=torch.float64)[1:-1]
    for mean, log_std in ((0.0, -0.5), (1.0, 0.0), (-0.7, -2.0)):
        policy = SquashedGaussian(torch.full((1,), mean).double(), torch.full((1,), log_std).double())
        density = policy.log_prob(action.atanh().unsqueeze(-1)).exp()
        assert float(torch.trapezoid(density, action)) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("u", [-20.0, -9.5, 9.5, 20.0, 1e4])
def test_far_out_the_squashed_gaussian_stays_finite_and_right(u: float):
    mean = torch.tensor([u], requires_grad=True)
    policy = SquashedGaussian(mean, torch.tensor([0.0]))
    raw = torch.tensor([u + 0.5])
    # ln(1 - tanh(u)^2) is 2 ln 2 - 2 |u| out there, to exp(-2 |u|)
    expected = -0.5 * 0.5**2 - 0.5 * math.log(2 * math.pi) - (2 * math.log(2) - 2 * abs(u + 0.5))
    log_prob = policy.log_prob(raw)
    assert float(log_prob.detach()) == pytest.approx(expected, rel=1e-5)
    (gradient,) = torch.autograd.grad(log_prob + policy.entropy(), mean)
    assert gradient.isfinite().all()
    assert float(gradient) == pytest.approx(0.5 - 2 * math.copysign(1, u), rel=1e-4)


def test_log_slope_is_the_logarithm_of_the_derivative_of_tanh():
    u = torch.linspace(-8, 8, 1001, dtype=torch.float64)
    torch.testing.assert_close(log_slope(u), (1 - u.tanh().square()).log(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(log_slope(u), log_slope(-u))


@pytest.mark.parametrize(("std", "error"), [(0.05, 1e-3), (0.6, 1e-2), (1.0, 1e-2), (2.0, 0.1)])
def test_entropy_by_quadrature_equals_monte_carlo(std: float, error: float):
    mean = torch.tensor([-3.0, -1.0, 0.0, 0.5, 2.0], dtype=torch.float64).reshape(-1, 1)
    policy = SquashedGaussian(mean, torch.tensor([math.log(std)], dtype=torch.float64))
    raw = SquashedGaussian(mean.expand(200_000, -1, 1), policy.log_std).sample(draw())
    monte_carlo = -policy.log_prob(raw).mean(0)
    torch.testing.assert_close(policy.entropy(), monte_carlo, atol=error + 0.01, rtol=0)


def test_entropy_falls_towards_the_bounds_and_for_wide_and_narrow_deviations():
    def entropy(mean: float, std: float) -> float:
        return float(SquashedGaussian(torch.tensor([mean]), torch.tensor([math.log(std)])).entropy())

    assert entropy(0, 0.8) > entropy(1, 0.8) > entropy(3, 0.8)
    assert entropy(0, 0.8) > entropy(0, 0.2) > entropy(0, 0.01)
    assert entropy(0, 0.8) > entropy(0, 2) > entropy(0, 7)
    assert entropy(0, 0.8) <= math.log(2) + 0.01  # the uniform's


def test_deviations_are_bounded_smoothly():
    free = torch.linspace(-30, 30, 601, dtype=torch.float64, requires_grad=True)
    bounded = bounded_log_std(free)
    assert bounded.min() >= LOG_STD_MIN
    assert bounded.max() <= LOG_STD_MAX
    assert bounded.diff().ge(0).all()
    inner = torch.tensor([-3.0, 0.0, 3.0], requires_grad=True)
    (slope,) = torch.autograd.grad(bounded_log_std(inner).sum(), inner)
    assert slope.gt(0).all()  # a clamp would give 0 outside of its range
    for log_std in (-4.9, -0.5, 0.0, 1.9):
        assert float(bounded_log_std(torch.tensor(free_log_std(log_std)))) == pytest.approx(log_std, abs=1e-5)


def test_approximate_kl_is_never_negative_and_right_on_average():
    old, new = distributions.Normal(0.0, 1.0), distributions.Normal(0.2, 1.1)
    torch.manual_seed(0)
    x = old.sample((400_000,))
    estimate = approx_kl(new.log_prob(x) - old.log_prob(x))
    assert estimate.min() >= 0
    assert float(estimate.mean()) == pytest.approx(float(distributions.kl_divergence(old, new)), rel=0.05)
