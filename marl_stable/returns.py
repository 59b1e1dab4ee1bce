"""Returns and advantages.

Shapes: T time, E environment copies, A agents. `terminated` ends the bootstrap; `ended` (terminated or truncated) ends
the recursion. The two never merge: a time limit cuts the sum, not the value of what would have followed.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    ended: Tensor,
    gamma: float,
    gae_lambda: float,
    acted: Tensor | None = None,
) -> Tensor:
    """Generalised advantage estimates (Schulman et al. 2016, eq. 16), all `(T, E, A)`.

    A_t = d_t + gamma lambda (1 - ended_t) A_{t+1}   with   d_t = r_t + gamma (1 - terminated_t) V(s'_t) - V(s_t),
    where `next_value` is the value of the state the action led to, also at an episode's end. Where an agent has not
    `acted`, or its step was excluded, d_t is 0, what a true critic expects: no reward that is missing becomes a lesson
    for the steps before.
    """
    delta = reward + gamma * next_value.masked_fill(terminated, 0.0) - value
    if acted is not None:
        delta = delta.masked_fill(~acted, 0.0)
    advantage = torch.empty_like(delta)
    running = torch.zeros_like(delta[0])
    for t in range(len(delta) - 1, -1, -1):
        running = running.masked_fill(ended[t], 0.0)  # a product with 0 would let the next episode's NaN through
        running = torch.add(delta[t], running, alpha=gamma * gae_lambda)
        advantage[t] = running
    return advantage


def gae_by_turns(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    ended: Tensor,
    acted: Tensor,
    gamma: float,
    gae_lambda: float,
    missing: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """:func:`gae` over each agent's own turns, all `(T, E, A)`; advantages, and where they are known.

    An agent's reward is summed from its turn to its next, where its value is taken; one whose next turn lies beyond
    the batch is not known yet (false, advantage 0). Nor is one with something `missing` of what came until its next: to
    those before it brings, as in :func:`gae`, what a true critic expects.
    """
    advantage, known = torch.zeros_like(reward), torch.zeros_like(acted)
    running, pending, ahead = (torch.zeros_like(reward[0]) for _ in range(3))
    open_ended = torch.ones_like(acted[0])  # what follows lies beyond the batch
    spoilt = torch.zeros_like(acted[0])  # something is missing of what is pending
    for t in range(len(reward) - 1, -1, -1):
        over = ended[t]
        ahead = torch.where(over, next_value[t].masked_fill(terminated[t], 0.0), ahead)
        running, pending = running.masked_fill(over, 0.0), pending.masked_fill(over, 0.0)
        open_ended, spoilt = open_ended & ~over, spoilt & ~over
        pending = pending + reward[t]
        if missing is not None:
            spoilt = spoilt | missing[t]
        delta = (pending + gamma * ahead - value[t]).masked_fill(spoilt, 0.0)
        turn = acted[t]
        advantage[t] = torch.where(turn & ~open_ended, delta + gamma * gae_lambda * running, 0.0)
        known[t] = turn & ~open_ended & ~spoilt
        running = torch.where(turn, advantage[t], running)
        ahead, pending = torch.where(turn, value[t], ahead), pending.masked_fill(turn, 0.0)
        open_ended, spoilt = open_ended & ~turn, spoilt & ~turn
    return advantage, known


def finished(ended: Tensor) -> Tensor:
    """`(T, E, A)` bool: steps whose episode ends inside the batch, so that their return is known without a critic."""
    return ended.flip(0).cumsum(0).flip(0) > 0


def explained_variance(target: Tensor, value: Tensor, weight: Tensor) -> Tensor:
    """1 - Var(G - V)/Var(G) per agent `(A,)`, over entries `(N, A)` with weight 1; NaN where nothing varies."""
    count = weight.sum(0).clamp_min(1)

    def variance(x: Tensor) -> Tensor:
        mean = (x * weight).sum(0) / count
        return ((x - mean).square() * weight).sum(0) / count

    spread = variance(target)
    return torch.where(spread > 0, 1 - variance(target - value) / spread, torch.nan)
