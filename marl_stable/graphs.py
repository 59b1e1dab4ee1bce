"""A step of acting or learning as one CUDA graph: recorded once, then launched as a whole.

With networks of this size a GPU waits for the host, which launches hundreds of small kernels for each minibatch. What
is recorded must change tensors in place only, and what the host decides must be outside of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

ORDINARY = 3  # calls before the recording, in which libraries set themselves up
MOST = 8  # recordings; where shapes vary more than that, the rest is done as it comes


class Replayed:
    """`work`, which is given nested tuples of tensors and floats and returns nested tuples and dictionaries of tensors.

    After :meth:`record` it is recorded for each combination of shapes that comes back, and replayed from then on:
    floats may change from call to call, tensors are copied in, and results are the caller's own. Bit for bit it does
    what `work` does, random draws included where they come from `generator`. Without a CUDA device, or before, it
    calls `work`.
    """

    def __init__(self, work: Callable[..., Any]) -> None:
        self.work = work
        self.recording = False
        self._calls: dict[Any, int] = {}
        self._graphs: dict[Any, _Graph] = {}
        self._generator: torch.Generator | None = None

    def record(self, generator: torch.Generator) -> None:
        """From now on, replay where possible; `generator` is what `work` draws from, on a CUDA device."""
        self.recording = generator.device.type == "cuda"
        self._generator = generator

    def __call__(self, *inputs: Any) -> Any:
        """What `work` returns."""
        if not self.recording:
            return self.work(*inputs)
        leaves, form = pytree.tree_flatten(inputs)
        key = (form, tuple(map(_kind, leaves)))
        if key not in self._graphs:
            self._calls[key] = self._calls.get(key, 0) + 1
            if self._calls[key] <= ORDINARY or len(self._graphs) == MOST:
                return self.work(*inputs)
            assert self._generator is not None
            self._graphs[key] = _Graph(self.work, leaves, form, self._generator)
        return self._graphs[key](leaves)


class _Graph:
    """One recording."""

    def __init__(self, work: Callable[..., Any], leaves: list[Any], form: Any, generator: torch.Generator) -> None:
        self._inputs = [_place(x, generator.device) for x in leaves]
        self._numbers = [None if isinstance(x, Tensor) else x for x in leaves]
        self._graph = torch.cuda.CUDAGraph()
        self._graph.register_generator_state(generator)
        with torch.cuda.graph(self._graph):
            found, self._form = pytree.tree_flatten(work(*pytree.tree_unflatten(self._inputs, form)))
            self._found = _Packed(found)
        # What the recording's stream set up for the generator must not come after what the first replay does.
        torch.cuda.synchronize()

    def __call__(self, leaves: list[Any]) -> Any:
        """Repeat the work with other inputs of the same shapes; its results."""
        for i, (place, x) in enumerate(zip(self._inputs, leaves, strict=True)):
            if isinstance(x, Tensor):
                place.copy_(x)
            elif x != self._numbers[i]:
                place.fill_(x)
                self._numbers[i] = x
        self._graph.replay()
        return pytree.tree_unflatten(self._found.copies(), self._form)


class _Packed:
    """Tensors side by side, one vector for each of their types, so that to copy them all takes few operations."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self._kinds = [x.dtype for x in tensors]
        self._shapes = [x.shape for x in tensors]
        self._vectors = {
            kind: torch.cat([x.detach().reshape(-1) for x in tensors if x.dtype == kind]) for kind in set(self._kinds)
        }

    def copies(self) -> list[Tensor]:
        """What is there now, in memory of its own."""
        rest = {kind: vector.clone() for kind, vector in self._vectors.items()}
        found = []
        for kind, shape in zip(self._kinds, self._shapes, strict=True):
            count = shape.numel()
            found.append(rest[kind][:count].view(shape))
            rest[kind] = rest[kind][count:]
        return found


def _kind(x: Any) -> Any:
    """What must be the same for a recording to fit."""
    if isinstance(x, Tensor):
        return x.shape, x.dtype
    return float if isinstance(x, float) else x


def _place(x: Any, device: torch.device) -> Any:
    """Where a recording finds an input: a tensor of its own, also for a number; what is neither stays as it is."""
    if isinstance(x, Tensor):
        return x.clone()
    return torch.full((), x, device=device) if isinstance(x, float) else x
