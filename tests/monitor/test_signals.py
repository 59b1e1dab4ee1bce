"""Signals against plain loops over observations, copies and agents."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch import Tensor

from marl_stable.monitor.signals import (
    action_counts,
    continuous_responsiveness,
    continuous_sameness,
    continuous_saturation,
    discrete_responsiveness,
    discrete_sameness,
    discrete_saturation,
    repeat_ratio,
)

T, E, A, D, P, N_ACTIONS = 12, 3, 2, 2, 40, 4


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def discrete(seed: int = 0) -> Tensor:
    """`(T, E, A)` with repetitions."""
    return torch.randint(N_ACTIONS, (T, E, A), generator=draw(seed)) // 2 * 2


def continuous(seed: int = 0) -> Tensor:
    """`(T, E, A, D)` in [-1, 1], where half of the dimensions repeat the step before."""
    action = 2 * torch.rand(T, E, A, D, generator=draw(seed)) - 1
    for t in range(1, T):
        action[t] = torch.where(torch.rand(E, A, D, generator=draw(100 + t)) < 0.5, action[t - 1], action[t])
    return action


def entropy(p: list[float]) -> float:
    return -sum(x * math.log(x) for x in p if x > 0)


# ---- responsiveness


def test_discrete_responsiveness_is_the_mutual_information_of_observation_and_action():
    probs = torch.softmax(3 * torch.randn(P, A, N_ACTIONS, generator=draw()), -1)
    responds = discrete_responsiveness(probs)
    for a in range(A):
        mean = [sum(float(probs[p, a, n]) for p in range(P)) / P for n in range(N_ACTIONS)]
        noise = sum(entropy(probs[p, a].tolist()) for p in range(P)) / P
        assert float(responds[a]) == pytest.approx((entropy(mean) - noise) / math.log(N_ACTIONS), abs=1e-5)


def test_discrete_responsiveness_runs_from_none_to_one():
    chosen = torch.arange(P) % N_ACTIONS
    sees_all = torch.eye(N_ACTIONS)[chosen]
    sees_nothing = torch.softmax(torch.randn(N_ACTIONS, generator=draw()), 0).expand(P, N_ACTIONS)
    always_one = torch.eye(N_ACTIONS)[:1].expand(P, N_ACTIONS)
    found = discrete_responsiveness(torch.stack([sees_all, sees_nothing, always_one], 1))
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0, 0.0]), atol=1e-5, rtol=0)
    assert discrete_responsiveness(torch.ones(P, 1, 1)).tolist() == [0]  # a choice of one is none


def test_continuous_responsiveness_is_the_mean_deviation_of_the_greedy_action():
    mode = 2 * torch.rand(P, A, D, generator=draw()) - 1
    mode[:, 1, 0] = 0.7
    responds = continuous_responsiveness(mode)
    for a in range(A):
        deviations = []
        for d in range(D):
            values = mode[:, a, d].tolist()
            mean = sum(values) / P
            deviations.append(math.sqrt(sum((v - mean) ** 2 for v in values) / P))
        assert float(responds[a]) == pytest.approx(sum(deviations) / D, abs=1e-5)


# ---- saturation


def test_saturation_counts_answers_at_their_limit():
    probs = torch.tensor([[[0.999, 0.001], [0.5, 0.5]], [[0.98, 0.02], [0.995, 0.005]]])
    assert discrete_saturation(probs).tolist() == [0.5, 0.5]
    mode = torch.tensor([[[0.995, -1.0], [0.5, 0.98]], [[-0.999, 0.0], [0.2, -0.995]]])
    assert continuous_saturation(mode).tolist() == [0.75, 0.25]


# ---- repetition


def test_repeats_are_counted_within_episodes_only():
    ended = torch.rand(T, E, A, generator=draw(7)) < 0.2
    whole, fine = discrete(), continuous()
    for action, alike in (
        (whole, lambda x, y: bool(x == y)),
        (fine, lambda x, y: bool(((x - y).abs() < 0.02).all())),
    ):
        ratio = repeat_ratio(action, ended)
        for a in range(A):
            steps = [(t, e) for t in range(1, T) for e in range(E) if not ended[t - 1, e, a]]
            repeats = sum(alike(action[t, e, a], action[t - 1, e, a]) for t, e in steps)
            assert 0 < repeats < len(steps)
            assert float(ratio[a]) == pytest.approx(repeats / len(steps))


def test_repeat_ratio_of_nothing_is_zero():
    assert repeat_ratio(discrete(), torch.ones(T, E, A, dtype=torch.bool)).tolist() == [0, 0]
    assert repeat_ratio(discrete()[:1], torch.zeros(1, E, A, dtype=torch.bool)).tolist() == [0, 0]


def test_discrete_sameness_is_the_share_of_the_most_frequent_action():
    action = discrete(3)
    same = discrete_sameness(action, N_ACTIONS)
    for a in range(A):
        counts = Counter(action[:, :, a].flatten().tolist())
        assert float(same[a]) == pytest.approx(max(counts.values()) / (T * E))
    assert discrete_sameness(torch.full((T, E, A), 3), N_ACTIONS).tolist() == [1, 1]


def test_continuous_sameness_is_the_share_of_dimensions_that_no_longer_vary():
    action = continuous(4)
    action[:, :, 0, 0] = -1 + 0.02 * torch.rand(T, E, generator=draw())
    assert continuous_sameness(action).tolist() == [0.5, 0.0]
    action[:, :, 0, 1] = 0.3
    assert continuous_sameness(action).tolist() == [1.0, 0.0]


def test_bang_bang_actions_are_saturated_and_yet_neither_alike_nor_deaf():
    action = (2 * torch.rand(200, E, A, D, generator=draw()) - 1).sign()
    assert continuous_saturation(action.flatten(0, 1)).tolist() == [1, 1]
    assert continuous_sameness(action).tolist() == [0, 0]
    assert continuous_responsiveness(action.flatten(0, 1)).gt(0.9).all()


# ---- histograms


def test_counts_of_discrete_actions():
    action = discrete(5)
    counts = action_counts(action, N_ACTIONS)
    assert counts.shape == (A, N_ACTIONS)
    for a in range(A):
        assert counts[a].tolist() == [(action[:, :, a] == n).sum().item() for n in range(N_ACTIONS)]


def test_counts_of_continuous_actions_fill_bins_from_bound_to_bound():
    action = continuous(6)
    action[0, 0, 0, 0], action[0, 0, 0, 1] = 1.0, -1.0
    counts = action_counts(action, None, bins=8)
    assert counts.shape == (A, D, 8)
    for a in range(A):
        for d in range(D):
            expected = [0] * 8
            for value in action[:, :, a, d].flatten().tolist():
                expected[min(7, int((value + 1) / 2 * 8))] += 1
            assert counts[a, d].tolist() == expected
