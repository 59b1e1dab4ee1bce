"""How weights begin."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from marl_stable.config import Activation, Init

GAIN: dict[Activation, float] = {
    "tanh": 5 / 3,
    "relu": math.sqrt(2),
    "leaky_relu": math.sqrt(2),
    "elu": math.sqrt(2),
    "gelu": math.sqrt(2),
    "silu": math.sqrt(2),
}


@torch.no_grad()
def init_hidden(weight: Tensor, kind: Init, activation: Activation, generator: torch.Generator) -> None:
    """Fill a hidden layer's `(I, U)` or `(A, I, U)` weight, each agent's with its own draw.

    orthogonal: Saxe et al. 2014, with the activation's gain; xavier: Glorot and Bengio 2010, eq. 16; he: He et al.
    2015, eq. 10.
    """
    for matrix in weight if weight.dim() == 3 else (weight,):
        start = torch.empty(matrix.shape)  # drawn on the CPU, so that a seed means the same on every device
        if kind == "orthogonal":
            nn.init.orthogonal_(start, GAIN[activation], generator=generator)
        elif kind == "xavier":
            nn.init.xavier_uniform_(start, GAIN[activation], generator=generator)
        else:  # weights are (inputs, outputs), so the fan in that torch reads off rows is its fan out
            nn.init.kaiming_normal_(start, mode="fan_out", generator=generator)
        matrix.copy_(start)


@torch.no_grad()
def init_final(weight: Tensor, half_width: float, generator: torch.Generator) -> None:
    """Fill the last layer uniformly in +-`half_width` (Lillicrap et al. 2016, section 7): first actions near centre."""
    start = torch.empty(weight.shape).uniform_(-half_width, half_width, generator=generator)
    weight.copy_(start)
