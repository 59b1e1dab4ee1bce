"""Which parts of VMAS's `info` are the terms of the reward: scenarios report some, but do not say that they are.

Shapes: E copies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from marl_stable.envs.terms import TOLERANCE

MARKS = (("rew", "collision"), ("rew",))  # in the names of what may be a term; the first set that adds up is taken
COPIES, STEPS = 32, 4  # of random play; a step takes some scenarios 0.2 s, however few copies there are


def candidates(infos: Sequence[Mapping[str, Any]], marks: Sequence[str] = MARKS[0]) -> tuple[str, ...]:
    """Names in all agents' `infos` that have one of `marks` in them and stand for one number per copy."""
    first = infos[0] if infos else {}
    return tuple(
        name for name in first if any(m in name for m in marks) and all(_is_number(i.get(name)) for i in infos)
    )


def names_of(seen: Sequence[tuple[Sequence[Tensor], Sequence[Mapping[str, Any]]]]) -> tuple[str, ...]:
    """Names of the terms of agents whose rewards and infos, `(E,)` each, were `seen` in some steps.

    None unless they add up to every agent's reward in every step.
    """
    for marks in MARKS:
        names = candidates(seen[0][1], marks)
        if names and all(_add_up(reward, info, names) for step in seen for reward, info in zip(*step, strict=True)):
            return names
    return ()


def columns(info: Mapping[str, Any], names: Sequence[str]) -> Tensor:
    """One agent's terms `(E, K)` in the order of `names`."""
    return torch.stack([info[name].float().view(-1) for name in names], dim=1)


def _is_number(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.numel() == len(value)


def _add_up(reward: Tensor, info: Mapping[str, Any], names: Sequence[str]) -> bool:
    terms, total = columns(info, names), reward.float().view(-1)
    limit = (TOLERANCE * terms.abs().sum(1)).clamp_min(TOLERANCE)
    return bool(((terms.sum(1) - total).abs() <= limit).all())
