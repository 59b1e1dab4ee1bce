"""Tensors to numbers: how much the agents of a group differ from one another.

Shapes: T steps, E copies, M step-copies, P probe observations, A agents of the group, n discrete actions, D action
features. Every result is `(A,)`, still on the device. A group of one is no team: nothing is said of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marl_stable import rows
from marl_stable.monitor.signals.actions import SAME

PAIRS = 16_384  # comparisons of agents with agents, spread over the steps


def swapped(x: Tensor) -> Tensor:
    """What each agent saw, shown to all: `(P, A, ...)` to `(A * P, A, ...)`; agent by agent whose it was."""
    agents = x.shape[1]
    return x.transpose(0, 1).unsqueeze(2).expand(-1, -1, agents, *x.shape[2:]).flatten(0, 1)


def discrete_diversity(probs: Tensor, alive: Tensor | None = None) -> Tensor:
    """Total variation distance between an agent's probabilities `(P, A, n)` and the group's mean, both at the same
    observations: 0 where all answer alike, nearly 1 where one of many always does what no other would.

    `alive (P, A)` is true where a row counts, None where all do.
    """
    return rows.mean(0.5 * (probs - probs.mean(1, keepdim=True)).abs().sum(-1), alive)


def continuous_diversity(mode: Tensor, alive: Tensor | None = None) -> Tensor:
    """Root mean square over observations and dimensions of the distance, in half-ranges, between an agent's greedy
    canonical action `(P, A, D)` and the group's mean."""
    return rows.mean((mode - mode.mean(1, keepdim=True)).square().mean(-1), alive).sqrt()


def equal_actions(action: Tensor, alive: Tensor) -> Tensor:
    """Share of its steps in which an agent does what at least half of the others do that act beside it.

    `action (T, E, A)` or `(T, E, A, K)` int64, or `(T, E, A, D)` canonical, alike within 1% of the range in every
    dimension; `alive (T, E, A)` bool. NaN where nobody ever acts beside it.
    """
    action, alive = action.flatten(0, 1), alive.flatten(0, 1)  # (M, A, ...), (M, A)
    agents = alive.shape[1]
    some = rows.spread(len(alive), max(1, PAIRS // agents**2), alive.device)
    action, alive = action.index_select(0, some), alive.index_select(0, some)
    one, other = action.unsqueeze(2), action.unsqueeze(1)
    alike = one == other if action.dtype == torch.int64 else (one - other).abs() < 2 * SAME
    alike = alike.flatten(3).all(-1) if action.dim() > 2 else alike  # (M, A, A)
    beside = alive.unsqueeze(2) & alive.unsqueeze(1) & ~torch.eye(agents, dtype=torch.bool, device=alive.device)
    others = beside.sum(-1)  # (M, A)
    equal = (2 * (alike & beside).sum(-1) >= others) & (others > 0)
    return equal.sum(0) / (others > 0).sum(0)
