"""How agents of a group differ, against plain loops."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from torch import Tensor

from marl_stable.monitor.signals.team import continuous_diversity, discrete_diversity, equal_actions, swapped

T, E, A, P = 10, 4, 3, 20


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- answers to the same observations


def test_what_each_agent_saw_is_shown_to_all():
    seen = torch.randn(P, A, 5, generator=draw())
    shown = swapped(seen)
    assert shown.shape == (A * P, A, 5)
    for source in range(A):
        for p in range(P):
            for agent in range(A):
                assert torch.equal(shown[source * P + p, agent], seen[p, source])
    assert torch.equal(swapped(seen[..., 0]), shown[..., 0])  # whether an agent lived goes with what it saw


def test_diversity_of_discrete_answers():
    probs = torch.softmax(2 * torch.randn(P, A, 4, generator=draw()), -1)
    alive = torch.rand(P, A, generator=draw(1)) < 0.7
    found = discrete_diversity(probs, alive)
    for a in range(A):
        apart = []
        for p in (p for p in range(P) if alive[p, a]):
            mean = [sum(float(probs[p, b, n]) for b in range(A)) / A for n in range(4)]
            apart.append(sum(abs(float(probs[p, a, n]) - mean[n]) for n in range(4)) / 2)
        assert float(found[a]) == pytest.approx(statistics.fmean(apart), rel=1e-4)


def test_diversity_of_continuous_answers():
    mode = 2 * torch.rand(P, A, 2, generator=draw()) - 1
    alive = torch.rand(P, A, generator=draw(1)) < 0.7
    found = continuous_diversity(mode, alive)
    for a in range(A):
        squares = [
            (float(mode[p, a, d]) - sum(float(mode[p, b, d]) for b in range(A)) / A) ** 2
            for p in range(P)
            if alive[p, a]
            for d in range(2)
        ]
        assert float(found[a]) == pytest.approx(math.sqrt(statistics.fmean(squares)), rel=1e-4)


def test_agents_that_answer_alike_are_not_apart():
    same = torch.softmax(torch.randn(P, 1, 4, generator=draw()), -1).expand(P, A, 4)
    assert discrete_diversity(same).tolist() == pytest.approx([0] * A, abs=1e-6)
    assert continuous_diversity(same).tolist() == pytest.approx([0] * A, abs=1e-6)
    different = torch.eye(A).expand(P, A, A)
    assert discrete_diversity(different).tolist() == pytest.approx([1 - 1 / A] * A)


# ---- what is done


def plain_equal(action: Tensor, alive: Tensor, near: float) -> list[float]:
    shares = []
    for a in range(A):
        equal = []
        for t in range(T):
            for e in range(E):
                others = [b for b in range(A) if b != a and alive[t, e, b]]
                if not alive[t, e, a] or not others:
                    continue
                off = [(action[t, e, a].double() - action[t, e, b].double()).abs().max() for b in others]
                equal.append(2 * sum(float(x) <= near for x in off) >= len(others))
        shares.append(statistics.fmean(equal))
    return shares


@pytest.mark.parametrize("kind", ["discrete", "several choices", "continuous"])
def test_doing_what_most_others_do(kind: str):
    shape = (T, E, A) if kind == "discrete" else (T, E, A, 2)
    action = torch.randint(2, shape, generator=draw())
    if kind == "continuous":
        action = action.float() - 0.5 + 0.015 * torch.rand(shape, generator=draw(1))
    alive = torch.rand(T, E, A, generator=draw(2)) < 0.8
    expected = plain_equal(action, alive, 0.02 if kind == "continuous" else 0.0)
    assert all(0 < share < 1 for share in expected)
    assert equal_actions(action, alive).tolist() == pytest.approx(expected)


def test_where_each_acts_alone_nobody_acts_alike():
    alone = torch.arange(A).expand(T, E, A) == (torch.arange(T) % A).reshape(T, 1, 1)
    assert equal_actions(torch.zeros(T, E, A, dtype=torch.int64), alone).isnan().all()


def test_many_agents_are_compared_at_some_of_the_steps():
    action = torch.zeros(2_000, 2, 40, dtype=torch.int64)
    action[:, :, 0] = 1
    found = equal_actions(action, torch.ones(2_000, 2, 40, dtype=torch.bool))
    assert found.tolist() == [0.0] + [1.0] * 39
