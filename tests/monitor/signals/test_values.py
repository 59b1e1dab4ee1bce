"""What critics say and what came, against plain loops over steps, copies and agents."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from torch import Tensor

from marl_stable.monitor.signals.values import (
    Flow,
    Judged,
    age_ratio,
    agreement,
    gap,
    infeasible,
    judged,
    ratios,
    slopes,
    spreads,
    value_signals,
)

T, E, A, GAMMA = 14, 4, 3, 0.9
N = T * E


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flow(seed: int = 0, turn_based: bool = False) -> Flow:
    """Random steps with ends of both kinds and dead agents; where turn-based, one agent acts in each."""
    g, shape = draw(seed), (T, E, A)
    terminated, truncated = torch.rand(shape, generator=g) < 0.12, torch.rand(shape, generator=g) < 0.12
    alive = torch.rand(shape, generator=g) < 0.8
    if turn_based:
        alive = torch.randint(A, (T, E, 1), generator=g) == torch.arange(A)
        terminated, truncated = terminated[..., :1].expand(shape), truncated[..., :1].expand(shape)
    reward, value, next_value = (torch.randn(shape, generator=g) for _ in range(3))
    reward = reward * alive if turn_based else reward
    return Flow(reward, value, next_value, terminated, terminated | truncated, alive)


def outcome(f: Flow, t: int, e: int, a: int) -> tuple[float, bool]:
    """The discounted return from step `t`, bootstrapped at a truncation, and whether the episode's end is known."""
    total, weight = 0.0, 1.0
    for k in range(t, T):
        total += weight * float(f.reward[k, e, a])
        weight *= GAMMA
        if f.ended[k, e, a]:
            return total + (0.0 if f.terminated[k, e, a] else weight * float(f.next_value[k, e, a])), True
    return total + weight * float(f.next_value[T - 1, e, a]), False


def turn_outcome(f: Flow, t: int, e: int, a: int) -> tuple[float, bool]:
    """The same where each of the agent's turns is a step."""
    total, weight = float(f.reward[t, e, a]), 1.0
    for k in range(t, T):
        if k > t and f.alive[k, e, a]:
            weight *= GAMMA
            total += weight * float(f.reward[k, e, a])
        if f.ended[k, e, a]:
            return total + (0.0 if f.terminated[k, e, a] else weight * GAMMA * float(f.next_value[k, e, a])), True
    return total, False


def living(f: Flow, a: int) -> list[tuple[int, int]]:
    return [(t, e) for t in range(T) for e in range(E) if f.alive[t, e, a]]


def variance(values: list[float]) -> float:
    return statistics.pvariance(values)


# ---- values of states


@pytest.mark.parametrize("seed", [0, 1])
def test_values_beside_what_came(seed: int):
    f = flow(seed)
    found = value_signals(judged(f, GAMMA, turn_based=False))
    for a in range(A):
        rows = living(f, a)
        known = [(t, e) for t, e in rows if outcome(f, t, e, a)[1]]
        values = [float(f.value[t, e, a]) for t, e in known]
        returns = [outcome(f, t, e, a)[0] for t, e in known]
        ahead = [0.0 if f.terminated[t, e, a] else GAMMA * float(f.next_value[t, e, a]) for t, e in rows]
        rewards = [float(f.reward[t, e, a]) for t, e in rows]
        errors = [r + n - float(f.value[t, e, a]) for r, n, (t, e) in zip(rewards, ahead, rows, strict=True)]
        expected = {
            "value_mean": statistics.fmean(values),
            "value_std": statistics.pstdev(values),
            "return_mean": statistics.fmean(returns),
            "return_std": statistics.pstdev(returns),
            "explained_variance": 1
            - variance([g - v for g, v in zip(returns, values, strict=True)]) / variance(returns),
            "td_scale": math.sqrt(statistics.fmean(x * x for x in errors)) / statistics.pstdev(returns),
            "reward_share": variance(rewards) / (variance(rewards) + variance(ahead)),
        }
        assert 0 < len(known) < len(rows)
        assert {name: float(found[f"stability/{name}"][a]) for name in expected} == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("seed", [0, 1])
def test_turns_are_the_steps_of_turn_based_play(seed: int):
    f = flow(seed, turn_based=True)
    seen = judged(f, GAMMA, turn_based=True)
    found = value_signals(seen)
    for a in range(A):
        known = [(t, e) for t, e in living(f, a) if turn_outcome(f, t, e, a)[1]]
        returns = [turn_outcome(f, t, e, a)[0] for t, e in known]
        assert found["stability/return_mean"][a] == pytest.approx(statistics.fmean(returns), rel=1e-4)
        assert found["stability/return_std"][a] == pytest.approx(statistics.pstdev(returns), rel=1e-4)
        rows = [t * E + e for t, e in known]
        assert seen.known[:, a].nonzero().flatten().tolist() == sorted(rows)
    assert seen.learned.sum() > seen.known.sum()  # a last turn may be followed by another without an end


def test_a_critic_that_knows_explains_all_and_errs_nowhere():
    """Reward 1 for ever, cut off after ten steps: every value is 1/(1 - gamma), and so is every return."""
    ended = torch.zeros(20, 2, 1, dtype=torch.bool)
    ended[9::10] = True
    ones = torch.ones(20, 2, 1)
    value = ones / (1 - GAMMA)
    f = Flow(ones, value, value, ~ended & ended, ended, torch.ones_like(ended))
    seen = judged(f, GAMMA, turn_based=False)
    torch.testing.assert_close(seen.outcome, seen.value)
    assert seen.error.abs().max() < 1e-5


def test_values_are_of_all_steps_where_no_return_is_known():
    f = flow()
    open_ended = f._replace(ended=torch.zeros_like(f.ended), terminated=torch.zeros_like(f.ended))
    found = value_signals(judged(open_ended, GAMMA, turn_based=False))
    for a in range(A):
        values = [float(f.value[t, e, a]) for t, e in living(f, a)]
        assert float(found["stability/value_mean"][a]) == pytest.approx(statistics.fmean(values), rel=1e-4)
    for name in ("return_mean", "return_std", "explained_variance", "td_scale"):
        assert found[f"stability/{name}"].isnan().all(), name


def test_of_an_agent_that_never_lives_nothing_is_read():
    f = flow()
    f.alive[..., 1] = False
    found = value_signals(judged(f, GAMMA, turn_based=False))
    assert all(bool(value[1].isnan()) and bool(value[0].isfinite()) for value in found.values())


def test_units_change_with_those_of_the_reward():
    unit = torch.tensor([1.0, 10.0, 1e-3])
    seen = judged(flow(), GAMMA, turn_based=False)
    found, raw = value_signals(seen), value_signals(seen.times(unit))
    for name in ("value_mean", "value_std", "return_mean", "return_std"):
        torch.testing.assert_close(raw[f"stability/{name}"], found[f"stability/{name}"] * unit)
    for name in ("explained_variance", "td_scale", "reward_share"):
        torch.testing.assert_close(raw[f"stability/{name}"], found[f"stability/{name}"], rtol=1e-3, atol=1e-4)
    assert isinstance(seen, Judged)
    assert seen.times(unit).known is seen.known


# ---- what is feasible


@pytest.mark.parametrize(
    ("low", "high", "limits"),
    [(-1.0, 2.0, (-13.0, 23.0)), (1.0, 3.0, (-3.0, 33.0)), (-3.0, -1.0, (-33.0, 3.0)), (0.0, 0.0, (0.0, 0.0))],
)
def test_values_that_no_rewards_could_bring(low: float, high: float, limits: tuple[float, float]):
    """Rewards for ever, an end of zeros, and a tenth of the width more; gamma is 0.9."""
    inside = torch.tensor([limits[0] + 1e-3, limits[1] - 1e-3, 0.0]) if low != high else torch.zeros(3)
    outside = torch.tensor([limits[0] - 1e-2, limits[1] + 1e-2, math.nan, math.inf])
    value = torch.cat([inside, outside, outside]).unsqueeze(1)
    counts = torch.tensor([True] * 7 + [False] * 4).unsqueeze(1)
    found = infeasible(value, counts, torch.tensor([low]), torch.tensor([high]), 0.9)
    assert float(found["stability/infeasible"]) == pytest.approx(4 / 7)


def test_without_discount_hardly_anything_is_infeasible():
    found = infeasible(torch.tensor([[1e6]]), torch.tensor([[True]]), torch.tensor([-1.0]), torch.tensor([1.0]), 1.0)
    assert float(found["stability/infeasible"]) == 0


# ---- critics of actions


def cosine(x: list[float], y: list[float]) -> float:
    dot = sum(a * b for a, b in zip(x, y, strict=True))
    return dot / math.hypot(*x) / math.hypot(*y)


@pytest.mark.parametrize("critics", [1, 2])
def test_slopes_of_continuous_actions(critics: int):
    gradient = torch.randn(critics, N, A, 2, generator=draw()) + 0.5
    counts = torch.rand(N, A, generator=draw(1)) < 0.7
    unit = torch.tensor([1.0, 2.0, 5.0])
    found = slopes(gradient, counts, unit)
    for a in range(A):
        rows = [n for n in range(N) if counts[n, a]]
        mean = statistics.fmean(math.hypot(*gradient[0, n, a].tolist()) for n in rows)
        assert float(found["stability/action_slope"][a]) == pytest.approx(mean / float(unit[a]), rel=1e-4)
        if critics == 2:
            pairs = [cosine(gradient[0, n, a].tolist(), gradient[1, n, a].tolist()) for n in rows]
            agreed = statistics.fmean(pairs)
        else:
            halves = [[n for n in rows if n < N // 2], [n for n in rows if n >= N // 2]]
            sums = [[sum(float(gradient[0, n, a, d]) for n in half) for d in range(2)] for half in halves]
            agreed = cosine(*sums)
        assert float(found["stability/slope_agreement"][a]) == pytest.approx(agreed, abs=1e-4)


@pytest.mark.parametrize("critics", [1, 2])
def test_spreads_of_discrete_actions_are_over_legal_ones(critics: int):
    worth = torch.randn(critics, N, A, 4, generator=draw())
    legal = torch.rand(N, A, 4, generator=draw(1)) < 0.7
    counts = torch.rand(N, A, generator=draw(2)) < 0.7
    likely = torch.where(legal, torch.rand(N, A, 4, generator=draw(3)), -1.0).argmax(-1)
    action = torch.eye(4)[likely]
    found = spreads(worth, action, legal, counts, torch.full((A,), 2.0))
    for a in range(A):
        halves, missed = [], []
        for n in range(N):
            offered = [float(worth[0, n, a, u]) for u in range(4) if legal[n, a, u]]
            if offered and counts[n, a]:
                halves.append((max(offered) - min(offered)) / 2)
                missed.append(max(offered) - float(worth[0, n, a, likely[n, a]]))
        assert float(found["stability/action_slope"][a]) == pytest.approx(statistics.fmean(halves) / 2, rel=1e-4)
        assert float(found["stability/regret"][a]) == pytest.approx(sum(missed) / sum(halves) / 2, rel=1e-4)
    if critics == 2:
        same = spreads(
            torch.stack([worth[0], 3 * worth[0] + 7]), action, legal.clone().fill_(True), counts, torch.ones(A)
        )
        torch.testing.assert_close(same["stability/slope_agreement"], torch.ones(A))


def test_directions_that_oppose_disagree():
    one = torch.randn(1, N, A, 3, generator=draw())
    counts = torch.ones(N, A, dtype=torch.bool)
    torch.testing.assert_close(agreement(torch.cat([one, -one]), counts), -torch.ones(A))
    steady = torch.ones(1, N, A, 3)
    steady[0, N // 2 :, 1] = -1.0
    torch.testing.assert_close(agreement(steady, counts), torch.tensor([1.0, -1.0, 1.0]))


def test_the_gap_is_in_deviations_of_returns_else_of_values():
    done = torch.randn(N, 2, generator=draw())
    counts = torch.ones(N, 2, dtype=torch.bool)
    counts[: N // 2, 0] = False
    done[: N // 2, 0] = 1e6
    found = gap(done + 3.0, done, counts, torch.tensor([1.5, math.nan]))["stability/q_gap"]
    spread = statistics.pstdev(done[:, 1].tolist())
    assert found.tolist() == pytest.approx([2.0, 3.0 / spread], rel=1e-3)


def test_errors_on_what_is_old_over_those_on_what_is_new():
    old, new = torch.tensor([[3.0], [-3.0], [99.0]]), torch.tensor([[1.0], [2.0]])
    found = age_ratio(old, new, torch.tensor([[True], [True], [False]]), torch.ones(2, 1, dtype=torch.bool))
    assert float(found["stability/td_age_ratio"]) == pytest.approx(3 / math.sqrt(2.5))


# ---- ratios


@pytest.mark.parametrize("offset", [0.0, 60.0, -60.0])
def test_ratios_agent_by_agent(offset: float):
    """Effective sizes stay exact where the ratios themselves would overflow."""
    log_ratio = torch.randn(N, A, generator=draw(), dtype=torch.float64) + offset
    alive = (torch.rand(N, A, generator=draw(1)) < 0.7).double() if not offset else torch.ones(N, A).double()
    log_ratio = torch.where(alive > 0, log_ratio, 50.0)
    found = ratios(log_ratio.float(), alive.float())
    for a in range(A):
        logs = [float(log_ratio[n, a]) for n in range(N) if alive[n, a]]
        weights = [math.exp(x - max(logs)) for x in logs]
        effective = sum(weights) ** 2 / sum(w * w for w in weights) / len(weights)
        assert float(found["stability/log_ratio_peak"][a]) == pytest.approx(max(map(abs, logs)), rel=1e-4)
        assert float(found["stability/effective_samples"][a]) == pytest.approx(effective, rel=1e-3)
        if not offset:
            largest = max(abs(math.exp(x) - 1) for x in logs)
            assert float(found["stability/first_ratio"][a]) == pytest.approx(largest, rel=1e-4)


def test_a_policy_that_has_not_moved_has_ratios_of_one():
    found: dict[str, Tensor] = ratios(torch.zeros(8, 2), torch.ones(8, 2))
    assert {name: value.tolist() for name, value in found.items()} == {
        "stability/log_ratio_peak": [0, 0],
        "stability/effective_samples": [1, 1],
        "stability/first_ratio": [0, 0],
    }


def test_one_ratio_that_outweighs_all_leaves_one_sample():
    log_ratio = torch.zeros(100, 1)
    log_ratio[3] = 30.0
    assert float(ratios(log_ratio, torch.ones(100, 1))["stability/effective_samples"]) == pytest.approx(0.01, rel=1e-3)
