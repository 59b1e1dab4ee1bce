"""Linear and LayerNorm layers with or without an axis of agents, and an activation that spares memory.

Shapes: N rows (any batch), A agents, I inputs, U outputs. With `agents=None` a layer has one set of weights and takes
`(N, I)`; with `agents=A` each agent has its own and the layer takes `(A, N, I)`, all agents in one batched product.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Linear(nn.Module):
    """y = x W + b, with W of `(I, U)` or `(A, I, U)`; with `bf16` the product is in bfloat16, the rest float32."""

    bf16 = False

    def __init__(self, inputs: int, outputs: int, agents: int | None) -> None:
        super().__init__()
        lead = () if agents is None else (agents,)
        self.weight = nn.Parameter(torch.empty(*lead, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(*lead, *(() if agents is None else (1,)), outputs))

    def forward(self, x: Tensor) -> Tensor:
        """`(N, I)` to `(N, U)`, or `(A, N, I)` to `(A, N, U)`."""
        if self.bf16:
            return self.product(x, self.weight) + self.bias  # the sum is float32
        if x.dim() == 2:
            return torch.addmm(self.bias, x, self.weight)
        return torch.baddbmm(self.bias, x, self.weight)

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        """x W for some rows of the layer's weight, in its precision."""
        return x.bfloat16() @ weight.bfloat16() if self.bf16 else x @ weight


class Tanh(nn.Tanh):
    """tanh in place of what the layer before it made, which that layer needs no more: memory is what activations cost.

    Not to be given anything that somebody else still reads.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as `x`, which is overwritten."""
        return x.tanh_()


class LayerNorm(nn.Module):
    """Layer normalisation (Ba et al. 2016, eq. 4) with a gain and bias per agent where agents are apart."""

    def __init__(self, width: int, agents: int | None) -> None:
        super().__init__()
        lead = () if agents is None else (agents, 1)
        self.gain = nn.Parameter(torch.ones(*lead, width))
        self.bias = nn.Parameter(torch.zeros(*lead, width))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as `x`, each row with mean 0 and deviation 1 before gain and bias."""
        if x.dim() == 2:
            return functional.layer_norm(x, self.gain.shape, self.gain, self.bias)
        return torch.addcmul(self.bias, functional.layer_norm(x, x.shape[-1:]), self.gain)
