"""The cheapest assignment, beside SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from marl_stable.envs.particle.assignment import Assignment

CPU = torch.device("cpu")


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 10])
def test_what_is_paid_is_that_of_scipys_assignment(count: int):
    draw = torch.Generator().manual_seed(count)
    distance, price = torch.rand(2, count, count, 20, generator=draw, dtype=torch.float64)
    paid = Assignment(count, CPU).price(distance, price)
    for copy in range(20):
        rows, columns = linear_sum_assignment(distance[..., copy].numpy())
        assert float(paid[copy]) == pytest.approx(float(np.sum(price[..., copy].numpy()[rows, columns])), abs=1e-12)


def test_nobody_shares_a_place_however_near_it_is():
    distance = torch.tensor([[0.0, 5.0], [1.0, 9.0]], dtype=torch.float64).unsqueeze(2)
    assert float(Assignment(2, CPU).price(distance, distance)) == 6.0
