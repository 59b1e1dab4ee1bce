"""What a design is: a reward on a task, which says of a step what each agent is paid, term by term.

Shapes: E copies, A agents of a group, O observation features, D action features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Moment(NamedTuple):
    """One step of a group, as a reward sees it."""

    obs: Tensor  # (E, A, O) before
    next_obs: Tensor  # (E, A, O) after
    action: Tensor  # (E, A) or (E, A, D)
    reward: Tensor  # (E, A) the task's own
    terms: dict[str, Tensor]  # (E, A) each, the task's own; empty where it has none
    over: Tensor  # (E,) the task ended here
    rng: torch.Generator


Pay = Callable[[Moment], dict[str, Tensor]]


@dataclass(frozen=True)
class Design:
    """A reward on a task. `cause` is the verdict that is right; None where it is sound."""

    task: str
    cause: str | None
    pay: Pay | None  # None: the task's own reward
    says: str
    built_on: bool  # whether the task was played while thresholds were chosen
    kwargs: dict[str, Any] = field(default_factory=dict)
    single: bool = False  # through PettingZoo and infos
    ends: Callable[[Moment], Tensor] | None = None  # (E,) ends episodes, of single ones
    metric: Callable[[Moment], Tensor] | None = None  # (E, A) reported as infos["metric"]
    expert: str | None = None  # in experts.py
