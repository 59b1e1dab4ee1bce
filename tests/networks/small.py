"""A small group of agents: its sizes, its networks' settings, and what it sees."""

from __future__ import annotations

import torch
from torch import Tensor

from marl_stable.config import NetworkConfig

B, A, O = 6, 3, 4  # noqa: E741 - the letters of the shape legend
SMALL = NetworkConfig(hidden=(16,), final_init=None)


def draw(seed: int = 0) -> torch.Generator:
    """A generator of its own for everything random."""
    return torch.Generator().manual_seed(seed)


def obs(agents: int = A) -> Tensor:
    """`(B, A, O)`."""
    return torch.randn(B, agents, O, generator=draw(1))
