"""What a loop hands over between two readings, kept as copies on its device until they are read.

Shapes: N rows, T steps in order, E copies, A agents (1 unless they have names), O features, D action dimensions.
Copies, since loops write into their buffers again; parts of them where there is much.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby
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
    """All that `step` was given since the last reading.

    Arrays of one call after the other that have the same shapes wait to be looked at together.
    """

    def __init__(self, agents: Sequence[str]) -> None:
        self._agents, self._many = len(agents), len(agents) > 1
        self.numbers: defaultdict[str, list[Tensor | float]] = defaultdict(list)
        self.rows: dict[str, list[Tensor]] = {}  # (N, A), or (N, A, ...)
        self.pieces: list[Piece] = []
        self.first: list[int] = []  # which of the log ratios are of a first minibatch
        self.missed: list[tuple[Tensor, int]] = []  # (A, O) not finite, and of how many rows, where not all were kept
        self._kept: dict[str, int] = {}
        self._ratios: list[Any] = []
        self._waiting: list[dict[str, Any]] = []  # arrays of calls, in one shape
        self._shapes: list[Any] = []  # which shape that is
        self._held = 0  # numbers that wait
        self._single: list[dict[str, Tensor]] = []  # consecutive steps (K, A) of one environment

    def take_number(self, name: str, x: Any) -> None:
        """A figure of this call; of several their mean, without what is NaN in returns."""
        if isinstance(x, Tensor):
            x = x.detach()
            number: Tensor | float = x if x.dim() == 0 else x.float().nanmean()
        elif isinstance(x, float):
            number = x
        elif np.size(x) == 0:
            return
        else:
            number = float(x) if np.ndim(x) == 0 else float(np.nanmean(np.asarray(x, dtype=np.float64)))
        self.numbers[name].append(number)

    def take_log_ratio(self, x: Any, first: bool) -> None:
        """Log ratios of one minibatch; whether nothing was learned from these data before."""
        if first:
            self.first.append(len(self._ratios))
        self._ratios.append(_copy("log_ratio", x))

    def take(self, given: dict[str, Any]) -> None:
        """Arrays of this call, by name."""
        copies = {name: _copy(name, x) for name, x in given.items()}
        shapes = [(name, type(x), np.shape(x) if not isinstance(x, Tensor) else x.shape) for name, x in copies.items()]
        if self._waiting and (shapes != self._shapes or self._held > ROOM):
            self._settle()
        self._waiting.append(copies)
        self._shapes = shapes
        self._held += sum(x.numel() if isinstance(x, Tensor) else np.size(x) for x in copies.values())

    def _settle(self) -> None:
        """Look at what waits: K calls at once."""
        waiting, self._waiting, self._held = self._waiting, [], 0
        given = {name: _stack(name, [call[name] for call in waiting]) for name in (waiting[0] if waiting else ())}
        found = {name: self._by_agent(name, x) for name, x in given.items() if name in BY_AGENT}
        shape = next((x.shape[:-1] for x in found.values()), None)  # of rows
        for name, x in found.items():
            if name not in ENDS:
                self.rows.setdefault(name, []).append(x.flatten(0, -2))
        for name, x in given.items():
            if name not in BY_AGENT:
                self._keep(name, self._parts(name, x, shape))
        if "reward" in found and any(name in found for name in ENDS):
            self._in_order(found)

    def _by_agent(self, name: str, given: Tensor) -> Tensor:
        """`(..., A)`."""
        x = (given != 0) if name in ENDS else given.float()
        if not self._many:
            return x.unsqueeze(-1)
        if x.shape[-1:] == (self._agents,):
            return x
        if name in ENDS:
            return x.unsqueeze(-1).expand(*x.shape, self._agents)
        shape = tuple(x.shape[1:])
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
            says = f"{name} has shape {tuple(x.shape[1:])}; after its rows must come the {self._agents} agents"
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
        self.rows.setdefault(name, []).append(some if len(some) == len(x) else some.clone())

    def _in_order(self, found: dict[str, Tensor]) -> None:
        """Rewards with ends are steps in order where a call has two axes, or one step where it has none."""
        axes = found["reward"].dim() - 2
        if axes == 0:
            self._single.append(found)
        elif axes == 2:
            for k in range(len(found["reward"])):
                self._add({name: x[k] for name, x in found.items()})

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
        """All is handed over."""
        self._settle()
        for _, run in groupby(self._ratios, np.shape):
            x = self._by_agent("log_ratio", _stack("log_ratio", list(run)))
            self.rows.setdefault("log_ratio", []).extend((x.flatten(1, -2) if x.dim() > 2 else x.unsqueeze(1)).unbind())
        names = set.intersection(*(set(run) for run in self._single)) if self._single else set()
        steps = {name: torch.cat([run[name] for run in self._single]) for name in names}
        if steps and len(steps["reward"]) > 1:
            self._add({name: x.unsqueeze(1) for name, x in steps.items()})


def _copy(name: str, x: Any) -> Any:
    """What a loop may not write into any more; tensors within a graph it does not write into anyway."""
    if isinstance(x, Tensor):
        return x.detach() if x.grad_fn is not None else x.detach().clone()
    return x if isinstance(x, (bool, int, float)) else to_tensor(name, x)


def _stack(name: str, parts: list[Any]) -> Tensor:
    """`(K, ...)` arrays or numbers of K calls."""
    if isinstance(parts[0], Tensor):
        return torch.stack(parts) if len(parts) > 1 else parts[0].unsqueeze(0)
    return to_tensor(name, parts)


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
