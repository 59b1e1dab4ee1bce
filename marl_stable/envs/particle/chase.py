"""What a chase is paid by: who catches whom, and what leaving the square costs. Shapes: E copies, P pairs, K agents."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def catches(pairs: Sequence[tuple[int, int]], adversaries: int, agents: int) -> list[list[float]]:
    """`(agents, P)`: 1 for every adversary where any adversary touches a good agent, -1 for the good agent it touches.

    Adversaries come first among the agents, and agents first among what can touch.
    """
    caught = [good if first < adversaries <= good < agents else None for first, good in pairs]
    chasing = [[float(good is not None) for good in caught] for _ in range(adversaries)]
    return chasing + [[-float(good == agent) for good in caught] for agent in range(adversaries, agents)]


def beyond(pos: Tensor) -> Tensor:
    """What agents at `pos` (2K, E) pay, (K, E): from 0.9 on 10 per unit, beyond 1 exponentially, up to 10, per axis."""
    reach = pos.abs()
    per_axis = torch.minimum((reach - 0.9).mul(10).clamp(0, 10), (2 * reach - 2).exp())
    paid: Tensor = per_axis.unflatten(0, (-1, 2)).sum(dim=1)
    return paid
