"""The factors of an optimiser's step sizes, row by row."""

from __future__ import annotations

import pytest
import torch

from marl_stable.rates import Rates


def rates() -> Rates:
    return Rates(torch.ones(3, 1))


def taken(some: Rates) -> list[float]:
    """The factors of a step that is taken now."""
    factors: list[float] = some.current.squeeze(1).tolist()
    some.advance()
    return factors


def test_factors_are_one_until_somebody_asks():
    assert taken(rates()) == [1, 1, 1]


def test_factors_multiply_within_their_bounds():
    some = rates()
    first = torch.tensor([True, False, False])
    some.scale(first, 0.5, 0.1)
    some.scale(first, 0.5, 0.1)
    assert taken(some) == [0.25, 1, 1]
    some.scale(first, 0.01, 0.1)
    assert taken(some) == pytest.approx([0.1, 1, 1])
    some.scale(torch.tensor([True, True, False]), 1e9, 0.1)
    assert taken(some) == [1, 1, 1]


def test_rows_rise_apart_and_end_at_exactly_one():
    some = rates()
    some.begin(torch.tensor([True, False, False]))
    rising = [taken(some) for _ in range(100)]
    assert [row[0] for row in rising] == pytest.approx([(t + 1) / 200 for t in range(100)])
    some.begin(torch.tensor([False, True, False]))
    rising = [taken(some) for _ in range(200)]
    assert rising[99][:2] == pytest.approx([1, 0.5])
    assert rising[-1] == [1, 1, 1]
    assert all(row[2] == 1 for row in rising)


def test_a_lowered_row_rises_to_its_lowered_factor():
    some = rates()
    some.scale(torch.tensor([True, True, True]), 0.5, 1 / 30)
    some.begin(torch.tensor([True, False, False]))
    assert [taken(some) for _ in range(200)][-1] == [0.5, 0.5, 0.5]
