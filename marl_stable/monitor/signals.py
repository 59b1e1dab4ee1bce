"""Tensors to numbers: how the actions of each agent behave.

Shapes: T steps, E copies, P probe observations, A agents, n discrete actions, D action features. Actions of Box groups
come in canonical units: -1 and 1 are the bounds. Every result is `(A,)`, still on the device: agents stay apart until
they are logged, since one that is stuck hides in a mean.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SATURATED = 0.99  # of the way to a bound; the tanh passes 2% of the gradient there
SAME = 0.01  # of the range: two continuous actions that close are one
STUCK = 0.05  # of the half-range: a deviation below it is no choice


def discrete_responsiveness(probs: Tensor) -> Tensor:
    """Mutual information of observation and action, as a share of ln n: H(mean pi) - mean H(pi), `probs (P, A, n)`."""

    def entropy(p: Tensor) -> Tensor:
        return -(p * p.clamp_min(1e-12).log()).sum(-1)

    return (entropy(probs.mean(0)) - entropy(probs).mean(0)) / math.log(max(2, probs.shape[-1]))


def continuous_responsiveness(mode: Tensor) -> Tensor:
    """Deviation of the greedy action over observations, mean over dimensions, in half-ranges; `mode (P, A, D)`."""
    return mode.std(0, correction=0).mean(-1)


def discrete_saturation(probs: Tensor) -> Tensor:
    """Share of observations at which one action has more than 99% of the probability; `probs (P, A, n)`."""
    return (probs.amax(-1) > SATURATED).float().mean(0)


def continuous_saturation(mode: Tensor) -> Tensor:
    """Share of greedy actions within 1% of a bound, over observations and dimensions; `mode (P, A, D)`."""
    return (mode.abs() > SATURATED).float().mean((0, 2))


def repeat_ratio(action: Tensor, ended: Tensor) -> Tensor:
    """Share of steps whose action equals the one before in the same episode.

    `action (T, E, A)` or `(T, E, A, K)` int64, or `(T, E, A, D)` canonical; `ended (T, E, A)` bool where the episode
    ends after the step.
    """
    alike = action[1:] == action[:-1] if action.dtype == torch.int64 else (action[1:] - action[:-1]).abs() < 2 * SAME
    same = alike.all(-1) if alike.dim() > ended.dim() else alike
    within = ~ended[:-1]
    return (same & within).sum((0, 1)) / within.sum((0, 1)).clamp_min(1)


def discrete_sameness(action: Tensor, n: int) -> Tensor:
    """Share of the most frequent action; `action (T, E, A)` int64."""
    counts = torch.stack([(action == a).sum((0, 1)) for a in range(n)])  # (n, A)
    return counts.amax(0) / counts.sum(0).clamp_min(1)


def continuous_sameness(action: Tensor) -> Tensor:
    """Share of dimensions whose executed actions deviate by less than 5% of the half-range; `action (T, E, A, D)`."""
    return (action.flatten(0, 1).std(0, correction=0) < STUCK).float().mean(-1)


def action_counts(action: Tensor, n: int | None, bins: int = 32) -> Tensor:
    """Histogram of every agent and dimension: `(A, n)` of int64 `(T, E, A)`, or `(A, D, bins)` over [-1, 1]."""
    if n is not None:
        return torch.stack([(action == a).sum((0, 1)) for a in range(n)], dim=-1)
    place = ((action.flatten(0, 1) + 1) * (0.5 * bins)).long().clamp(0, bins - 1)  # (N, A, D)
    counts = torch.zeros(*place.shape[1:], bins, dtype=torch.int64, device=action.device)
    return counts.scatter_add_(-1, place.permute(1, 2, 0), torch.ones_like(place.permute(1, 2, 0)))
