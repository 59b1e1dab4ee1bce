"""What a loop hands over between two readings, kept as copies on its device until they are read.

Shapes: N rows, T steps in order, E copies, A agents (1 unless they have names), O features, D action dimensions.
Copies, since loops write into their buffers again; parts of them where there is much.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from marl_stable.types import UsageError

ROOM = 2_000_000  # numbers of one kind that are kept from one reading to the next
ENDS = ("done", "terminated", "truncated")
BY_AGENT = ("reward", "value", "log_ratio", *ENDS)


class Piece(NamedTuple):
    """Consecutive steps `(T, E, A)`; `value` may be missing, `told_apart` says that ends are of two kinds."""

    reward: Tensor
    value: Tensor | None
    terminated: Tensor  # bool
    ended: Tensor  # bool
    told_apart: bool


class Window:
    """All that `step` was given since the last reading."""

    def __init__(self, agents: Sequence[str]) -> None:
        self._agents, self._many = len(agents), len(agents) > 1
        self.numbers: dict[str, list[Tensor | float]] = {}
        self.rows: dict[str, list[Tensor]] = {}  # (N, A), or (N, A, ...)
        self.pieces: list[Piece] = []
        self.first: list[int] = []  # which of the log ratios are of a first minibatch
        self.missed: list[tuple[Tensor, int]] = []  # (A, O) not finite, and of how many rows, where not all were kept
        self._kept: dict[str, int] = {}
        self._single: list[dict[str, Tensor]] = []  # calls of one step of one environment

    def take_number(self, name: str, x: Any) -> None:
        """A figure of this call; of several their mean, without what is NaN in returns."""
        if isinstance(x, Tensor):
            x = x.detach()
            number: Tensor | float = x if x.dim() == 0 else x.float().nanmean()
        elif np.size(x) == 0:
            return
        else:
            number = float(x) if np.ndim(x) == 0 else float(np.nanmean(np.asarray(x, dtype=np.float64)))
        self.numbers.setdefault(name, []).append(number)

    def take(self, given: dict[str, Any], first: bool) -> None:
        """Arrays of this call, by name."""
        found = {name: self._by_agent(name, x) for name, x in given.items() if name in BY_AGENT}
        shape = next((x.shape[:-1] for x in found.values()), None)  # of rows
        if first and "log_ratio" in found:
            self.first.append(len(self.rows.get("log_ratio", ())))
        for name, x in found.items():
            if name not in ENDS:
                self.rows.setdefault(name, []).append(x.flatten(0, -2) if x.dim() > 1 else x.unsqueeze(0))
        for name, x in given.items():
            if name not in BY_AGENT:
                self._keep(name, self._parts(name, to_tensor(name, x), shape))
        if "reward" in found and any(name in found for name in ENDS):
            self._in_order(found)

    def _by_agent(self, name: str, given: Any) -> Tensor:
        """`(..., A)`, a copy."""
        x: Tensor = to_tensor(name, given)
        x = (x != 0) if name in ENDS else x.to(torch.float32, copy=True)
        if not self._many:
            return x.unsqueeze(-1)
        if x.shape[-1:] == (self._agents,):
            return x
        if name in ENDS:
            return x.unsqueeze(-1).expand(*x.shape, self._agents)
        shape = tuple(x.shape)
        raise UsageError(f"{name} has shape {shape}; its last axis must be the {self._agents} agents of this monitor.")

    def _parts(self, name: str, x: Tensor, shape: torch.Size | None) -> Tensor:
        """`(N, A, K)` where each row is of `shape` if that is known, else of all axes but the last."""
        own = 1 if self._many else 0  # the axis of agents
        whole = name == "action" and not x.is_floating_point()  # one choice per row, unless rows are known to be fewer
        lead = x.dim() - own - (0 if whole else 1)
        if shape is not None and x.shape[: len(shape)] == shape and x.dim() >= len(shape) + own:
            lead = len(shape)
        lead = max(lead, 0)
        if own and x.shape[lead : lead + 1] != (self._agents,):
            says = f"{name} has shape {tuple(x.shape)}; after its rows must come the {self._agents} agents"
            raise UsageError(says + " of this monitor.")
        return x.reshape(int(np.prod(x.shape[:lead], dtype=int)), self._agents, -1)

    def _keep(self, name: str, x: Tensor) -> None:
        """As much of `x (N, A, K)` as there is room for."""
        used = self._kept.get(name, 0)
        rows = max(1, (ROOM - used) // max(1, x[0].numel())) if len(x) else 0
        if not rows or used >= ROOM:
            return
        some = x[:: -(-len(x) // rows)]
        if name == "observation" and len(some) < len(x):
            self.missed.append(((~x.isfinite()).float().sum(0), len(x)))
        self._kept[name] = used + some.numel()
        self.rows.setdefault(name, []).append(some.clone())

    def _in_order(self, found: dict[str, Tensor]) -> None:
        """Rewards with ends are steps in order where there are two axes, or one step where there is none."""
        lead = found["reward"].dim() - 1
        if lead == 0:
            self._single.append({name: x for name, x in found.items() if name != "log_ratio"})
        elif lead == 2:
            self._add(found)

    def _add(self, found: dict[str, Tensor]) -> None:
        reward, no = found["reward"], torch.zeros_like(found["reward"], dtype=torch.bool)
        done, terminated, truncated = (found.get(name, no) for name in ENDS)
        if any(x.shape != reward.shape for x in (done, terminated, truncated, found.get("value", reward))):
            shapes = ", ".join(f"{name} {tuple(x.shape[:2])}" for name, x in found.items())
            raise UsageError(f"steps in order must have one shape (steps, copies), and these have not: {shapes}.")
        told_apart = "terminated" in found and ("truncated" in found or "done" in found)
        ended = done | terminated | truncated
        terminated = terminated if "terminated" in found else done & ~truncated
        self.pieces.append(Piece(reward, found.get("value"), terminated, ended, told_apart))

    def close(self) -> None:
        """All is handed over: single steps become a piece."""
        names = set.intersection(*(set(step) for step in self._single)) if self._single else set()
        if len(self._single) > 1:
            steps = self._single
            self._add({name: torch.stack([step[name] for step in steps]).unsqueeze(1) for name in names})


def to_tensor(name: str, x: Any) -> Tensor:
    """`x` as a tensor outside of any graph; UsageError where it is no array of numbers."""
    if isinstance(x, Tensor):
        return x.detach()
    try:
        array = np.asarray(x)
        kind = np.float32 if array.dtype.kind == "f" else array.dtype
        return torch.from_numpy(np.array(array, dtype=kind))
    except (TypeError, ValueError):
        raise UsageError(f"{name} is {type(x).__name__}; hand over a tensor, an array or numbers.") from None
