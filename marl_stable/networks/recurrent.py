"""Cells that remember: what a network carries from one step of an episode to the next.

Shapes: L steps, N rows, A agents, H width, G gates times H, M features of memory (H for a GRU, 2H for an LSTM: its
output and its cell side by side). With agents apart every tensor but `begins` has a leading A.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from marl_stable.networks.layers import LayerNorm, Linear

GATES = {"gru": 3, "lstm": 4}


class Recurrent(nn.Module):
    """A GRU (Cho et al. 2014, in torch's form) or an LSTM (Hochreiter and Schmidhuber 1997, with forget gates).

    Memory is zero where an episode begins. Weights of both inputs start orthogonal, gate by gate.
    """

    def __init__(
        self, kind: Literal["gru", "lstm"], width: int, norm: bool, agents: int | None, generator: torch.Generator
    ) -> None:
        """`norm`: LayerNorm on what is handed on, not on what is remembered."""
        super().__init__()
        self.kind, self.width = kind, width
        self.memory_size = width if kind == "gru" else 2 * width
        self.seen = Linear(width, GATES[kind] * width, agents)
        self.remembered = Linear(width, GATES[kind] * width, agents)
        self.norm = LayerNorm(width, agents) if norm else nn.Identity()
        for linear in (self.seen, self.remembered):
            _orthogonal_gates(linear.weight, GATES[kind], generator)
        if kind == "lstm":  # forget nothing at first (Jozefowicz et al. 2015, section 2.2)
            with torch.no_grad():
                self.seen.bias[..., width : 2 * width] = 1.0

    def forward(self, x: Tensor, memory: Tensor, begins: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs `(L * N, H)` for inputs `(L * N, H)`, and the memory after each step, `(L, N, M)`.

        `memory (N, M)` is what was left before the first step; it is forgotten at each step where `begins (L, N, 1)`.
        """
        gates = self.seen(x).unflatten(-2, begins.shape[:2])  # for all steps at once
        step: Callable[..., tuple[Tensor, ...]] = self._gru if self.kind == "gru" else self._lstm
        parts = memory.split(self.width, dim=-1)
        after = []
        for now, begin in zip(gates.unbind(-3), begins.unbind(0), strict=True):
            parts = step(now, *(part.masked_fill(begin, 0.0) for part in parts))  # times 0 would let a NaN through
            after.append(parts)
        stacked = [torch.stack(part, dim=-3) for part in zip(*after, strict=True)]
        return self.norm(stacked[0].flatten(-3, -2)), torch.cat(stacked, dim=-1)

    def _gru(self, seen: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        """h' = z h + (1 - z) tanh(W x + r U h), with the gates r and z."""
        widths = (2 * self.width, self.width)
        (seen_gates, seen_new), (gates, new) = seen.split(widths, -1), self.remembered(h).split(widths, -1)
        reset, keep = torch.sigmoid(seen_gates + gates).chunk(2, dim=-1)
        return (torch.lerp(torch.tanh(torch.addcmul(seen_new, reset, new)), h, keep),)

    def _lstm(self, seen: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        """c' = f c + i tanh(g) and h' = o tanh(c'), with the gates i, f and o."""
        enter, forget, new, out = (seen + self.remembered(h)).chunk(4, dim=-1)
        c = torch.addcmul(torch.sigmoid(forget) * c, torch.sigmoid(enter), torch.tanh(new))
        return torch.sigmoid(out) * torch.tanh(c), c


@torch.no_grad()
def _orthogonal_gates(weight: Tensor, gates: int, generator: torch.Generator) -> None:
    """Fill `(H, G)` or `(A, H, G)` gate by gate with orthogonal matrices (Saxe et al. 2014): they keep lengths."""
    for matrix in weight if weight.dim() == 3 else (weight,):
        for gate in matrix.chunk(gates, dim=-1):
            start = torch.empty(gate.shape)  # drawn on the CPU, so that a seed means the same on every device
            gate.copy_(nn.init.orthogonal_(start, generator=generator))
