"""Networks of single agents, cut out of one that holds all agents."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@torch.no_grad()
def like_agent(single: ModuleT, batched: nn.Module, agent: int) -> ModuleT:
    """`single`, with the parameters that agent number `agent` has in `batched`."""
    ours, theirs = list(single.parameters()), list(batched.parameters())
    for one, all_agents in zip(ours, theirs, strict=True):
        one.copy_(all_agents[agent].reshape(one.shape))
    return single
