"""PPO's losses against plain loops over samples and agents, and masks that nothing leaks through."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from marl_stable.agents.ppo import (
    Batch,
    Terms,
    masked_mean,
    normalized_advantage,
    policy_figures,
    policy_loss,
    value_loss,
)
from marl_stable.networks.heads import Categorical, Distribution, SquashedGaussian

B, A, N = 60, 3, 5
CLIP, ENTROPY, PENALTY = 0.2, 0.03, 0.05


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=draw(seed))


def policy(discrete: bool) -> tuple[Distribution, Tensor]:
    """A policy that one can differentiate, and what to differentiate by."""
    output = normal(B, A, N, seed=1).requires_grad_()
    return (Categorical(output) if discrete else SquashedGaussian(output, torch.full((N,), -0.5))), output


def batch(discrete: bool, **changed: Any) -> Batch:
    """Rows whose ratios are well on both sides of the clip, with a third of the agents dead."""
    action = torch.randint(N, (B, A), generator=draw(2)) if discrete else normal(B, A, N, seed=2)
    now = policy(discrete)[0].log_prob(action).detach()
    alive = (torch.rand(B, A, generator=draw(3)) < 0.67).float()
    empty = torch.zeros(B, 0)
    parts = {
        "action": action,
        "log_prob": now + 0.4 * normal(B, A, seed=4),
        "advantage": normal(B, A, seed=5),
        "value": normal(B, A, seed=6),
        "target": normal(B, A, seed=7),
        "alive": alive,
    }
    return Batch(obs=empty, critic_input=empty, **(parts | changed))


def mean_by_hand(x: list[list[float]], alive: Tensor, share: bool) -> float:
    """Over living entries together, or the sum over agents of each one's own mean."""
    columns = [[x[b][a] for b in range(B) if alive[b, a] > 0] for a in range(A)]
    if share:
        everything = [value for column in columns for value in column]
        return sum(everything) / len(everything)
    return sum(sum(column) / len(column) for column in columns)


def grid(at: Any) -> list[list[float]]:
    return [[at(b, a) for a in range(A)] for b in range(B)]


# ---- policy


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("discrete", [True, False])
def test_policy_loss_equals_a_loop_over_samples(discrete: bool, share: bool):
    pi, _ = policy(discrete)
    rows = batch(discrete)
    log_prob, entropy, penalty = (x.detach() for x in (pi.log_prob(rows.action), pi.entropy(), pi.penalty()))
    clipped_by: dict[tuple[bool, bool], int] = {}

    def objective(b: int, a: int) -> float:
        ratio, advantage = math.exp(float(log_prob[b, a] - rows.log_prob[b, a])), float(rows.advantage[b, a])
        bounded = min(max(ratio, 1 - CLIP), 1 + CLIP)
        if bounded != ratio and rows.alive[b, a] > 0:
            side = (ratio > 1, advantage > 0)
            clipped_by[side] = clipped_by.get(side, 0) + 1
        gain = min(ratio * advantage, bounded * advantage)
        return gain + ENTROPY * float(entropy[b, a]) - PENALTY * float(penalty[b, a])

    expected = -mean_by_hand(grid(objective), rows.alive, share)
    loss, _ = policy_loss(pi, rows, CLIP, ENTROPY, PENALTY, share)
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-5)
    assert len(clipped_by) == 4  # above and below, for good actions and for bad ones
    assert min(clipped_by.values()) >= 3


@pytest.mark.parametrize("discrete", [True, False])
def test_what_is_told_about_the_policy_equals_a_loop(discrete: bool):
    pi, _ = policy(discrete)
    rows = batch(discrete)
    _, terms = policy_loss(pi, rows, CLIP, ENTROPY, PENALTY, share=False)
    (stats,) = policy_figures([terms], CLIP)
    log_ratio = (pi.log_prob(rows.action) - rows.log_prob).detach().double()

    def gain(b: int, a: int) -> float:
        ratio, advantage = math.exp(float(log_ratio[b, a])), float(rows.advantage[b, a])
        return min(ratio * advantage, min(max(ratio, 1 - CLIP), 1 + CLIP) * advantage)

    expected = {
        "losses/actor": -mean_by_hand(grid(gain), rows.alive, True),
        "losses/entropy": mean_by_hand(pi.entropy().tolist(), rows.alive, True),
        "losses/approx_kl": mean_by_hand((log_ratio.exp() - 1 - log_ratio).tolist(), rows.alive, True),
        "losses/clip_fraction": mean_by_hand(((log_ratio.exp() - 1).abs() > CLIP).double().tolist(), rows.alive, True),
    }
    assert {tag: float(stats[tag]) for tag in expected} == pytest.approx(expected, abs=1e-5)
    assert not any(value.requires_grad for value in stats.values())


def test_steps_of_different_sizes_are_told_of_as_if_each_were_alone():
    alive = (normal(B, A, seed=9) > -1).float()
    whole = Terms(normal(B, A, seed=1), normal(B, A, seed=2), 0.3 * normal(B, A, seed=3), alive)
    steps = [Terms._make(x[rows] for x in whole) for rows in (slice(0, 3), slice(3, B), slice(2, 6))]
    together, alone = policy_figures(steps, CLIP), [policy_figures([step], CLIP)[0] for step in steps]
    assert [list(told) for told in together] == [list(told) for told in alone]
    for told, expected in zip(together, alone, strict=True):
        for tag, value in expected.items():
            torch.testing.assert_close(told[tag], value, msg=tag)


@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"),
    [(1.3, 1.0, False), (1.3, -1.0, True), (0.7, 1.0, True), (0.7, -1.0, False), (1.1, 1.0, True), (0.9, -1.0, True)],
)
def test_the_gradient_stops_only_where_the_ratio_has_gone_far_enough(ratio: float, advantage: float, moves: bool):
    output = normal(1, 1, N).requires_grad_()
    pi = Categorical(output)
    action = torch.zeros(1, 1, dtype=torch.int64)
    one = torch.ones(1, 1)
    old = pi.log_prob(action).detach() - math.log(ratio)
    rows = Batch(one, one, action, old, advantage * one, one, one, one)
    (gradient,) = torch.autograd.grad(policy_loss(pi, rows, CLIP, 0.0, 0.0, True)[0], output)
    assert bool(gradient.ne(0).any()) is moves
    if moves:  # a good action becomes likelier
        assert float(gradient[0, 0, 0]) * advantage < 0


def test_without_a_penalty_weight_no_penalty_is_paid():
    pi, _ = policy(True)
    rows = batch(True)
    losses = [float(policy_loss(pi, rows, CLIP, 0.0, p, True)[0].detach()) for p in (0.0, 0.1)]
    assert losses[1] - losses[0] == pytest.approx(0.1 * mean_by_hand(pi.penalty().tolist(), rows.alive, True), abs=1e-6)


# ---- values


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("clip", [None, 0.3])
def test_value_loss_equals_a_loop_over_samples(clip: float | None, share: bool):
    rows, value = batch(True), normal(B, A, seed=8)

    def error(b: int, a: int) -> float:
        now, before, target = float(value[b, a]), float(rows.value[b, a]), float(rows.target[b, a])
        if clip is None:
            return (now - target) ** 2
        near = before + min(max(now - before, -clip), clip)
        return max((now - target) ** 2, (near - target) ** 2)

    expected = 0.5 * mean_by_hand(grid(error), rows.alive, share)
    assert float(value_loss(value, rows, clip, share)) == pytest.approx(expected, abs=1e-5)


def test_a_clipped_value_that_has_moved_away_still_comes_back():
    value = torch.full((1, 1), 5.0, requires_grad=True)
    one = torch.ones(1, 1)
    rows = Batch(one, one, one, one, one, value=0 * one, target=0 * one, alive=one)
    (gradient,) = torch.autograd.grad(value_loss(value, rows, 0.2, True), value)
    assert float(gradient) == 5  # the clipped error alone has none


# ---- masks


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("discrete", [True, False])
def test_garbage_of_dead_agents_changes_no_bit_of_loss_gradient_or_figures(discrete: bool, share: bool):
    def outcome(rows: Batch, value: Tensor) -> list[Tensor]:
        pi, output = policy(discrete)
        loss, terms = policy_loss(pi, rows, CLIP, ENTROPY, PENALTY, share)
        (stats,) = policy_figures([terms], CLIP)
        value = value.requires_grad_()
        fit = value_loss(value, rows, 0.2, share)
        return [loss, fit, *stats.values(), *torch.autograd.grad(loss, output), *torch.autograd.grad(fit, value)]

    rows, value = batch(discrete), normal(B, A, seed=8)
    dead = rows.alive == 0
    garbage: dict[str, Any] = {
        name: torch.where(dead, size, getattr(rows, name))
        for name, size in (("log_prob", -20.0), ("advantage", 1e6), ("value", -1e6), ("target", 1e6))
    }
    spoilt = rows._replace(**garbage)
    if discrete:
        spoilt = spoilt._replace(action=torch.where(dead, 0, rows.action))
    else:
        spoilt = spoilt._replace(action=torch.where(dead.unsqueeze(-1), 3.0, rows.action))
    clean, dirty = outcome(rows, value), outcome(spoilt, torch.where(dead, 1e5, value))
    for one, other in zip(clean, dirty, strict=True):
        assert torch.equal(one, other)


def test_without_sharing_no_agents_gradient_depends_on_the_others():
    rows = batch(True)

    def gradients(kept: Batch) -> Tensor:
        pi, output = policy(True)
        (gradient,) = torch.autograd.grad(policy_loss(pi, kept, CLIP, ENTROPY, 0.0, share=False)[0], output)
        return gradient

    whole = gradients(rows)
    fewer = rows.alive.clone()
    fewer[5:, 0] = 0  # agent 0 dies early
    assert torch.equal(gradients(rows._replace(alive=fewer))[:, 1:], whole[:, 1:])


def test_a_mean_over_nobody_is_zero():
    x, nobody = torch.ones(4, 2), torch.zeros(4, 2)
    assert masked_mean(x, nobody, share=True) == masked_mean(x, nobody, share=False) == 0
    some = torch.tensor([[1.0, 0], [1, 0], [0, 0], [0, 0]])
    assert masked_mean(3 * x, some, share=True) == masked_mean(3 * x, some, share=False) == 3


# ---- advantages


def test_advantages_have_mean_zero_and_deviation_one_over_active_steps():
    advantage, alive = 40 * normal(500, A) + 7, (torch.rand(500, A, generator=draw(1)) < 0.7).float()
    out = normalized_advantage(advantage, alive)
    active = out[alive > 0]
    assert float(active.mean()) == pytest.approx(0, abs=1e-5)
    assert float(active.std(correction=0)) == pytest.approx(1, abs=1e-4)
    kept = advantage[alive > 0]
    torch.testing.assert_close(active, (kept - kept.mean()) / kept.std(correction=0), atol=0.05, rtol=0)


def test_dead_agents_have_no_part_in_the_normalisation():
    advantage, alive = normal(200, A), (torch.rand(200, A, generator=draw(1)) < 0.5).float()
    spoilt = torch.where(alive > 0, advantage, 1e9)
    assert torch.equal(
        normalized_advantage(advantage, alive)[alive > 0], normalized_advantage(spoilt, alive)[alive > 0]
    )
    assert normalized_advantage(torch.where(alive > 0, advantage, torch.nan), alive)[alive > 0].isfinite().all()


def test_the_whole_group_has_one_scale():
    advantage = normal(500, 2) * torch.tensor([1.0, 3.0])
    out = normalized_advantage(advantage, torch.ones(500, 2))
    assert float(out[:, 1].std() / out[:, 0].std()) == pytest.approx(3, rel=0.15)


def test_one_huge_advantage_does_not_silence_the_others():
    advantage = normal(1000, 1)
    plain = normalized_advantage(advantage, torch.ones(1000, 1))
    advantage[17] = 1e6
    hit = normalized_advantage(advantage, torch.ones(1000, 1))
    others = torch.arange(1000) != 17
    torch.testing.assert_close(hit[others], plain[others], atol=0.05, rtol=0)
    assert 4 < float(hit[17]) < 6


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 3.7, -7.77, 100.3])
@pytest.mark.parametrize("rows", [100, 6400])
def test_equal_advantages_give_zeros_and_no_amplified_rounding(value: float, rows: int):
    assert normalized_advantage(torch.full((rows, 2), value), torch.ones(rows, 2)).abs().max() < 0.01


def test_advantages_of_nobody_are_finite():
    assert normalized_advantage(torch.ones(100, 2), torch.zeros(100, 2)).isfinite().all()


@pytest.mark.parametrize(("rows", "agents"), [(2048, 2), (6400, 2), (8192, 2), (6400, 10), (100, 4)])
@pytest.mark.parametrize("first", [0, 1])
def test_nobody_is_missed_where_every_other_agent_is_away(rows: int, agents: int, first: int):
    advantage, alive = normal(rows, agents), torch.zeros(rows, agents)
    alive[:, first::2] = 1
    assert float(normalized_advantage(advantage, alive)[alive > 0].std()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("copies", [1, 2, 3, 4])
def test_nobody_is_missed_who_acts_in_every_other_step(copies: int):
    advantage, alive = normal(6400 // copies, copies), torch.zeros(6400 // copies, copies)
    alive[1::2] = 1
    assert float(normalized_advantage(advantage.view(-1, 1), alive.view(-1, 1))[alive.view(-1, 1) > 0].std()) > 0.98


def test_what_one_step_in_fifty_decides_is_not_taken_for_an_outlier():
    advantage = 0.01 * normal(5000, 1)
    advantage[::50], advantage[25::50] = 7.0, -3.0
    out = normalized_advantage(advantage, torch.ones(5000, 1))
    torch.testing.assert_close(out, (advantage - advantage.mean()) / advantage.std(correction=0))


def test_at_most_a_hundredth_is_winsorised_and_a_single_step_of_a_small_batch_as_well():
    for rows, few in ((5000, 40), (60, 1)):
        advantage = normal(rows, 1)
        calm = normalized_advantage(advantage, torch.ones(rows, 1))
        advantage[:few] = 1e6
        out = normalized_advantage(advantage, torch.ones(rows, 1))
        torch.testing.assert_close(out[few:], calm[few:], atol=0.6, rtol=0)
