"""What designs are made of. Observations of simple_spread: velocity, position, then 3 landmarks relative to the agent.

Shapes: E copies, A agents.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.reward_designs.design import Moment


def landmarks(obs: Tensor) -> Tensor:
    """`(E, A, 3)` distances of simple_spread."""
    found: Tensor = obs[..., 4:10].unflatten(-1, (3, 2)).norm(dim=-1)
    return found


def cover(obs: Tensor) -> Tensor:
    """`(E, A)` minus the summed distance of each landmark to its nearest agent."""
    return -landmarks(obs).amin(1).sum(-1, keepdim=True).expand(obs.shape[:2])


def moves(m: Moment) -> Tensor:
    """`(E, A)` whether discrete actions are not the first, or mean squares of others."""
    return (m.action != 0).float() if m.action.dim() == 2 else m.action.square().mean(-1)


def speed(m: Moment) -> Tensor:
    """`(E, A)` of mpe2's agents, whose velocity comes first."""
    found: Tensor = m.next_obs[..., :2].norm(dim=-1)
    return found


def noise(m: Moment) -> Tensor:
    """`(E, A)` standard normal."""
    return torch.randn(m.reward.shape, generator=m.rng)


def rare(m: Moment, share: float) -> Tensor:
    """`(E, A)` 1 now and then."""
    return (torch.rand(m.reward.shape, generator=m.rng) < share).float()


def goal(obs: Tensor, at: int) -> Tensor:
    """`(E, A)` distance to what is seen relative to the agent in two features."""
    found: Tensor = obs[..., at : at + 2].norm(dim=-1)
    return found
