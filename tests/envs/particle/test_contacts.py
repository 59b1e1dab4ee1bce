"""Which pairs can touch, and with what force they push each other apart."""

from __future__ import annotations

import math

import pytest
import torch

from marl_stable.envs.particle.contacts import Contacts

CPU = torch.device("cpu")


def contacts(radii: list[float], movers: range, entities: int) -> Contacts:
    return Contacts(radii, movers, entities, 1, CPU)


def column(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64).unsqueeze(1)


@pytest.mark.parametrize(
    ("count", "movers", "expected"),
    [
        (0, range(2), ()),
        (1, range(2), ()),
        (2, range(2), ((0, 1),)),
        (4, range(2), ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3))),
        (3, range(1, 2), ((0, 1), (1, 2))),
    ],
)
def test_pairs_are_those_that_collide_and_of_which_one_moves(
    count: int, movers: range, expected: tuple[tuple[int, int], ...]
):
    assert contacts([0.1] * count, movers, 4).pairs == expected


@pytest.mark.parametrize("gap", [0.05, 0.2999, 0.3, 0.3001, 0.35])
def test_the_force_is_that_of_the_depth_smoothed_by_the_margin(gap: float):
    pair = contacts([0.1, 0.2], range(2), 2)
    pair.measure(column(0.0, 1.0, 0.0, 1.0 + gap))
    depth = 1e-3 * math.log1p(math.exp((0.3 - gap) / 1e-3))
    force = pair.add_to(column(1.0, 2.0, 3.0, 4.0))
    torch.testing.assert_close(force, column(1.0, 2.0 - 100 * depth, 3.0, 4.0 + 100 * depth), atol=1e-9, rtol=1e-9)
    assert pair.touching().item() == (gap < 0.3)


def test_what_cannot_move_is_not_pushed():
    pair = contacts([0.1, 0.2], range(1), 2)
    pair.measure(column(0.0, 0.0, 0.1, 0.0))
    torch.testing.assert_close(pair.add_to(column(0.0, 0.0)), column(-20.0, 0.0))


def test_where_nothing_touches_forces_stay_as_they_are():
    none = contacts([], range(2), 3)
    none.measure(torch.zeros(6, 1, dtype=torch.float64))
    force = column(1.0, 2.0, 3.0, 4.0)
    assert none.add_to(force) is force
    assert none.touching().shape == (0, 1)
