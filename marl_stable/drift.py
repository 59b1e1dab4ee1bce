"""Sensors that drift, told from agents that change what they see: by how episodes begin.

What is observed at the first step of an episode comes from the environment alone, whatever the policy has become. Once
its mean has moved beyond chance, a sensor is known to drift, and the running mean of the feature goes along with the
beginnings from then on: by itself it would follow only as fast as it forgets. In a game that never begins anew nothing
can be told, and nothing is done.

Shapes: E copies, T steps, A agents, F measured features; statistics are (F,) where agents share them, else (A, F).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from marl_stable import distributed
from marl_stable.normalize import WINSOR, ObservationNorm

CERTAIN = 6.0  # standard errors that a difference of means has to have: of all features at every update, none by chance
RELEVANT = 0.1  # deviations of the feature; less would be lost in what agents see anyway
FEWEST = 32  # episodes, for their standard error to mean something
LOST = 0.2  # share of beginnings out of reach, from which on a feature has changed its scale rather than its place


class Beginnings(nn.Module):
    """Mean and variance of what episodes begin with, and which features drift; part of the checkpoint."""

    mean: Tensor
    var: Tensor
    count: Tensor
    drifts: Tensor  # bool

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("var", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("count", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("drifts", torch.zeros(shape, dtype=torch.bool))

    @torch.no_grad()
    def follow(self, norm: ObservationNorm, obs: Tensor, begins: Tensor) -> None:
        """Move `norm` by what the beginnings among raw `obs (T, E, A, O)` have moved, where `begins (T, E)`.

        Agents who share statistics are one row per episode, since what they see at once is no independent evidence.
        """
        x = obs[..., : norm.features].to(torch.float64)
        seen = torch.isfinite(x) & begins[..., None, None]
        near = seen & ((x - norm.mean).abs() <= WINSOR * norm.divisor)
        x = torch.where(near, x, 0.0)
        if norm.share:
            agents = near.sum(2)
            x, near, seen = x.sum(2) / agents.clamp_min(1), agents > 0, seen.any(2)
        x, near, seen = x.flatten(0, 1), near.flatten(0, 1), seen.flatten(0, 1)
        n, summed, known = distributed.total(torch.stack([near.sum(0).double(), x.sum(0), seen.sum(0).double()]))
        mean = summed / n.clamp_min(1)
        var = distributed.total(torch.where(near, (x - mean).square(), 0.0).sum(0)) / n.clamp_min(1)
        told = (n >= FEWEST) & (n > (1 - LOST) * known)
        self.drifts = self.drifts | (told & (self.count > 0) & self._differs(mean, var, n, norm))
        moved = told & self.drifts
        norm.move(torch.where(moved, mean - self.mean, 0.0))
        self._combine(mean, var, n, told, anew=moved | (self.count == 0))

    def _differs(self, mean: Tensor, var: Tensor, n: Tensor, norm: ObservationNorm) -> Tensor:
        error = (var / n.clamp_min(1) + self.var / self.count.clamp_min(1)).sqrt()
        return (mean - self.mean).abs() > torch.maximum(CERTAIN * error, RELEVANT * norm.divisor)

    def _combine(self, mean: Tensor, var: Tensor, n: Tensor, told: Tensor, anew: Tensor) -> None:
        """Chan et al. 1979, where there is something to combine with."""
        before = torch.where(anew, 0.0, self.count)
        total = (before + n).clamp_min(1)
        delta = mean - self.mean
        both = (self.var * before + var * n + delta.square() * before * n / total) / total
        self.var = torch.where(told, both, self.var)
        self.mean = torch.where(told, self.mean + delta * torch.where(anew, 1.0, n / total), self.mean)
        self.count = torch.where(told, total, self.count)
