"""Distributions over actions against torch's own, against sampling, and where torch's own would give NaN."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, distributions

from marl_stable.config import LOG_STD_MAX, LOG_STD_MIN
from marl_stable.networks.heads import (
    DRAWN,
    EVERY,
    Categorical,
    Deterministic,
    Gaussian,
    MultiCategorical,
    SquashedGaussian,
    approx_kl,
    bounded_log_std,
    free_log_std,
    log_slope,
    one_hot,
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


def test_one_hot_is_torchs():
    action = torch.randint(5, (B, A), generator=draw())
    assert torch.equal(one_hot(action, 5), torch.nn.functional.one_hot(action, 5).float())


# ---- only some actions legal


def some_legal() -> Tensor:
    """Every agent has one to four legal actions of five, except in the first row, where it has none."""
    legal = torch.rand(B, A, 5, generator=draw(3)) < 0.4
    legal[..., 0] |= ~legal.any(-1)
    legal[..., 4] &= ~legal.all(-1)
    legal[0] = False
    return legal


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_illegal_actions_are_never_taken_in_any_way(scale: float):
    legal, logits = some_legal(), scale * normal(B, A, 5).float()
    policy, generator = Categorical(logits, legal), draw(1)
    everything = legal | ~legal.any(-1, keepdim=True)
    for action in (policy.mode(), *(policy.sample(generator) for _ in range(50))):
        assert everything.gather(-1, action.unsqueeze(-1)).all()
    for _ in range(50):
        assert everything.gather(-1, policy.uniform(generator).unsqueeze(-1)).all()
        for encoded in (policy.relaxed(generator), policy.smoothed(0.2, 0.5, generator)):
            torch.testing.assert_close(encoded[everything].sum(), torch.tensor(float(B * A)))
            assert encoded[~everything].eq(0).all()
    assert policy.log_probs.exp()[~everything].eq(0).all()


def test_legal_actions_share_what_illegal_ones_would_have_got():
    legal, logits = some_legal()[1:], normal(B, A, 5)[1:]
    policy = Categorical(logits, legal)
    for b in range(B - 1):
        for a in range(A):
            kept = logits[b, a][legal[b, a]]
            theirs = distributions.Categorical(logits=kept)
            torch.testing.assert_close(policy.log_probs[b, a][legal[b, a]], theirs.logits)
            torch.testing.assert_close(policy.entropy()[b, a], theirs.entropy())


def test_where_nothing_is_legal_everything_is():
    logits, nothing = normal(B, A, 5), torch.zeros(B, A, 5, dtype=torch.bool)
    policy, free = Categorical(logits, nothing), Categorical(logits)
    assert torch.equal(policy.log_probs, free.log_probs)
    assert torch.equal(policy.sample(draw(1)), free.sample(draw(1)))
    seen = torch.stack([policy.uniform(draw(seed)) for seed in range(50)])
    assert torch.bincount(seen.flatten(), minlength=5).gt(0).all()


def test_masks_leave_everything_finite_and_give_illegal_actions_no_gradient():
    legal = some_legal()
    logits = (1000 * normal(B, A, 5).float()).requires_grad_()
    policy = Categorical(logits, legal)
    action = policy.sample(draw(1))
    relaxed = (policy.relaxed(draw(2)) * normal(B, A, 5, seed=4).float()).sum()
    assert policy.entropy().isfinite().all()
    for loss in (policy.entropy().sum(), policy.log_prob(action).sum(), relaxed):
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        assert gradient.isfinite().all()
        assert gradient[1:][~legal[1:]].eq(0).all()


def test_uniform_covers_all_legal_actions_alike_whatever_the_policy_says():
    logits = torch.tensor([90.0, -90.0, 0.0, 0.0]).expand(20_000, 1, 4)
    legal = torch.tensor([True, True, False, True]).expand(20_000, 1, 4)
    for policy, share in ((Categorical(logits), [0.25] * 4), (Categorical(logits, legal), [1 / 3, 1 / 3, 0.0, 1 / 3])):
        action = policy.uniform(draw())
        assert (action.shape, action.dtype) == ((20_000, 1), torch.int64)
        found = torch.bincount(action.flatten(), minlength=4) / 20_000
        torch.testing.assert_close(found, torch.tensor(share), atol=0.02, rtol=0)


# ---- answers that a critic of actions teaches


def judge(features: int) -> Callable[[Tensor], Tensor]:
    """A critic that is anything but linear in the action."""
    weight = normal(A, features, 6, seed=11)
    return lambda action: torch.sin(3 * torch.einsum("bau,auh->bah", action.double(), weight)).sum(-1)


@pytest.mark.parametrize("masked", [False, True])
def test_what_is_expected_of_choices_is_the_sum_over_them_with_its_exact_gradient(masked: bool):
    logits, worth = normal(B, A, 5).requires_grad_(), judge(5)
    legal = some_legal()[1:] if masked else torch.ones(B - 1, A, 5, dtype=torch.bool)
    found = Categorical(logits[1:], legal if masked else None).expected(worth, draw())
    total = torch.zeros(B - 1, A, dtype=torch.float64)
    for b in range(B - 1):
        for a in range(A):
            kept = legal[b, a].nonzero().flatten().tolist()
            shares = torch.softmax(logits[b + 1, a][kept], 0)
            for share, choice in zip(shares, kept, strict=True):
                action = torch.zeros(1, A, 5)
                action[0, a, choice] = 1
                total[b, a] = total[b, a] + share * worth(action)[0, a]
    torch.testing.assert_close(found, total)
    (ours,), (theirs,) = (torch.autograd.grad(x.sum(), logits) for x in (found, total))
    torch.testing.assert_close(ours, theirs)
    assert ours[1:][legal].abs().amax() > 0.1


def test_of_many_choices_some_are_drawn_and_the_gradient_is_right_on_average():
    n, rows = EVERY + 4, 40_000
    weight, free = normal(n, 6, seed=11), normal(n).requires_grad_()
    asked = []

    def worth(action: Tensor) -> Tensor:
        asked.append(action)
        return torch.sin(3 * action.double() @ weight).sum(-1)

    found = Categorical(free.expand(rows, 1, n)).expected(worth, draw())
    assert len(asked) == DRAWN
    assert all(one.sum(-1).eq(1).all() and one.amax() == 1 for one in asked)
    torch.testing.assert_close(found, torch.stack([worth(one) for one in asked[:DRAWN]]).mean(0))
    exact = (torch.softmax(free, 0) * worth(torch.eye(n))).sum()
    torch.testing.assert_close(found.mean(), exact, atol=0.02, rtol=0)
    (ours,), (theirs,) = (torch.autograd.grad(x, free) for x in (found.mean(), exact))
    torch.testing.assert_close(ours, theirs, atol=0.006, rtol=0)
    assert theirs.abs().max() > 0.1


def test_each_of_several_choices_has_its_own_gradient_where_the_others_are_as_drawn():
    sizes, worth = (3, 2), judge(5)
    logits = normal(B, A, 5).requires_grad_()
    found = MultiCategorical(logits, sizes).expected(worth, draw(7))
    generator, parts = draw(7), logits.split(sizes, -1)
    drawn = [one_hot(Categorical(part).sample(generator), n) for part, n in zip(parts, sizes, strict=True)]
    total = torch.zeros(B, A, dtype=torch.float64)
    for k, n in enumerate(sizes):
        for choice in range(n):
            did = [one_hot(torch.full((B, A), choice), n) if i == k else other for i, other in enumerate(drawn)]
            total = total + torch.softmax(parts[k], -1)[..., choice] * worth(torch.cat(did, -1))
    torch.testing.assert_close(found, total / 2)
    (ours,), (theirs,) = (torch.autograd.grad(x.sum(), logits) for x in (found, total))
    torch.testing.assert_close(ours, theirs)


def test_what_is_expected_of_a_deterministic_policy_is_its_actions_worth_and_climbs_the_critics_slope():
    pre, worth = normal(B, A, D).requires_grad_(), judge(D)
    found = Deterministic(pre, 0.3).expected(worth, draw())
    action = pre.detach().tanh().requires_grad_()
    torch.testing.assert_close(found, worth(action))
    (slope,) = torch.autograd.grad(worth(action).sum(), action)
    (ours,) = torch.autograd.grad(found.sum(), pre)
    torch.testing.assert_close(ours, slope * (1 - action.detach().square()))


def test_relaxed_is_one_hot_forward_and_a_softmax_backward():
    logits, weight = normal(B, A, 4).requires_grad_(), normal(B, A, 4, seed=1)
    policy = Categorical(logits)
    encoded = policy.relaxed(draw(7))
    noisy = torch.log_softmax(logits, -1) + policy._gumbel(draw(7))
    torch.testing.assert_close(encoded, one_hot(noisy.argmax(-1), 4).double())
    assert torch.equal(noisy.argmax(-1), policy.sample(draw(7)))
    (ours,) = torch.autograd.grad((encoded * weight).sum(), logits)
    (theirs,) = torch.autograd.grad((torch.softmax(noisy, -1) * weight).sum(), logits)
    torch.testing.assert_close(ours, theirs)
    assert ours.abs().amin() > 0


def test_target_choices_are_the_likeliest_ones_unless_noise_is_asked_for():
    policy = Categorical(normal(5_000, 1, 3).float())
    assert torch.equal(policy.smoothed(0.0, 0.5, draw(1)), one_hot(policy.mode(), 3))
    noisy = policy.smoothed(0.2, 0.5, draw(1))
    assert torch.equal(noisy, one_hot(policy.sample(draw(1)), 3))
    torch.testing.assert_close(noisy.mean((0, 1)), policy.log_probs.exp().mean((0, 1)), atol=0.03, rtol=0)


def test_several_choices_are_torchs_one_by_one():
    sizes = (3, 2, 4)
    logits, generator = normal(B, A, sum(sizes)), draw(2)
    policy = MultiCategorical(logits, sizes)
    action = torch.stack([torch.randint(n, (B, A), generator=generator) for n in sizes], dim=-1)
    theirs = [distributions.Categorical(logits=part) for part in logits.split(list(sizes), -1)]
    parts = list(zip(theirs, action.unbind(-1), strict=True))
    torch.testing.assert_close(policy.log_prob(action), sum(d.log_prob(part) for d, part in parts))
    torch.testing.assert_close(policy.entropy(), sum(d.entropy() for d in theirs))
    assert torch.equal(policy.mode(), torch.stack([d.logits.argmax(-1) for d in theirs], -1))
    spread = torch.stack([part.var(-1, correction=0) for part in logits.split(list(sizes), -1)])
    torch.testing.assert_close(policy.penalty(), spread.mean(0))


def test_several_choices_are_drawn_as_often_as_they_say_and_apart_from_each_other():
    probs = (torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.4, 0.6]))
    policy = MultiCategorical(torch.cat(probs).log().expand(40_000, 1, 5), (3, 2))
    for action, shares in (
        (policy.sample(draw()), probs),
        (policy.uniform(draw()), (torch.ones(3) / 3, torch.ones(2) / 2)),
    ):
        assert (action.shape, action.dtype) == ((40_000, 1, 2), torch.int64)
        both = torch.bincount((2 * action[..., 0] + action[..., 1]).flatten(), minlength=6) / 40_000
        torch.testing.assert_close(both.reshape(3, 2), torch.outer(*shares), atol=0.01, rtol=0)


def test_several_choices_are_relaxed_and_smoothed_one_by_one():
    logits, weight = normal(B, A, 5).requires_grad_(), normal(B, A, 5, seed=1)
    policy, generator = MultiCategorical(logits, (3, 2)), draw(7)
    encoded = policy.relaxed(draw(7))
    apart = [Categorical(part).relaxed(generator) for part in logits.split([3, 2], -1)]
    torch.testing.assert_close(encoded, torch.cat(apart, -1))
    (ours,) = torch.autograd.grad((encoded * weight).sum(), logits, retain_graph=True)
    (theirs,) = torch.autograd.grad((torch.cat(apart, -1) * weight).sum(), logits)
    torch.testing.assert_close(ours, theirs)
    mode = policy.mode()
    likeliest = torch.cat([one_hot(mode[..., 0], 3), one_hot(mode[..., 1], 2)], -1)
    assert torch.equal(policy.smoothed(0.0, 0.5, draw()), likeliest)
    drawn = policy.smoothed(0.1, 0.5, draw())
    assert drawn[..., :3].sum(-1).eq(1).all()
    assert drawn[..., 3:].sum(-1).eq(1).all()
    assert not torch.equal(drawn, likeliest)


def test_a_deterministic_policy_explores_with_its_noise_and_stays_in_bounds():
    pre = torch.tensor([0.0, 0.3, -4.0]).expand(50_000, 1, 3)
    mode = pre.tanh()
    policy = Deterministic(pre, 0.1)
    assert torch.equal(policy.mode(), mode)
    assert torch.equal(policy.relaxed(draw()), mode)
    drawn = policy.sample(draw())
    off = (drawn - mode)[:, 0]
    torch.testing.assert_close(off.mean(0)[:2], torch.zeros(2), atol=0.005, rtol=0)
    torch.testing.assert_close(off.std(0)[:2], torch.full((2,), 0.1), atol=0.005, rtol=0)
    assert drawn.abs().max() == 1  # the third is cut at its bound half of the time
    assert 0.4 < float((drawn[..., 2] == -1).float().mean()) < 0.6
    assert torch.equal(Deterministic(pre, 0.0).sample(draw()), mode)


def test_noise_of_target_policies_is_cut_and_their_actions_stay_in_bounds():
    pre = torch.tensor([0.0, 5.0]).expand(50_000, 1, 2)
    policy, mode = Deterministic(pre, 0.9), torch.tensor([0.0, math.tanh(5.0)])
    assert torch.equal(policy.smoothed(0.0, 0.5, draw()), pre.tanh())
    smooth = policy.smoothed(0.2, 0.3, draw())[:, 0]
    noise = torch.empty(50_000, 1, 2).normal_(0, 0.2, generator=draw()).clamp(-0.3, 0.3)[:, 0]
    torch.testing.assert_close(smooth, (mode + noise).clamp(-1, 1))
    assert smooth[:, 0].abs().max() == pytest.approx(0.3)
    assert 0.1 < float((smooth[:, 0].abs() > 0.2999).float().mean()) < 0.17  # beyond 1.5 deviations
    assert smooth.abs().max() <= 1


def test_uniform_actions_fill_the_box_and_penalty_is_the_mean_square_before_the_tanh():
    policy = Deterministic(torch.full((50_000, 1, 2), 9.0), 0.0)
    drawn = policy.uniform(draw())
    counts = torch.histc(drawn, 10, -1, 1) / 1e5
    torch.testing.assert_close(counts, torch.full((10,), 0.1), atol=0.005, rtol=0)
    assert policy.penalty().eq(81).all()
    pre = normal(B, A, D).requires_grad_()
    (gradient,) = torch.autograd.grad(Deterministic(pre, 0.5).relaxed(draw()).sum(), pre)
    torch.testing.assert_close(gradient, 1 - pre.detach().tanh().square())


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
