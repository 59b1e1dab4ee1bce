"""What hidden layers put out, seen by hooks that exist only while a reading is near.

Shapes: N rows, H units. The hidden layers of a module are its linear layers that another linear layer takes its input
from; what lies between (activation, norm), as a module or a function, is then included.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from marl_stable.monitor.signals import networks

ROWS = 512  # looked at
FEWEST = 16  # rows that say something about units
WIDEST = 1024  # units of which a rank is worth its price


class Activations:
    """Keeps the largest batch that passes while armed."""

    def __init__(self, module: nn.Module) -> None:
        linear = [(name, part) for name, part in module.named_modules() if isinstance(part, nn.Linear)]
        self._next = {
            name: after
            for (name, part), (_, after) in pairwise(linear)
            if part.out_features == after.in_features and part.out_features > 1
        }
        self.names = list(self._next)
        self._handles: list[RemovableHandle] = []
        self._seen: dict[str, Tensor] = {}

    def arm(self) -> None:
        """Look at every forward pass from now on."""
        if not self._handles:
            self._handles = [
                part.register_forward_pre_hook(partial(self._see, name), with_kwargs=True)
                for name, part in self._next.items()
            ]

    def disarm(self) -> None:
        """Cost nothing from now on."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _see(self, name: str, _: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        h = args[0] if args else named.get("input")
        if not isinstance(h, Tensor):
            return  # the layer itself says what is wrong
        h = h.detach().flatten(0, -2) if h.dim() > 1 else h.detach().unsqueeze(0)
        if name not in self._seen or len(h) >= len(self._seen[name]):
            self._seen[name] = h

    def read(self, rank: bool) -> dict[str, Tensor]:
        """`dormant (L,)`, NaN where a layer was not seen; where it is due the last one's `effective_rank ()`; and
        `reach ()`, the mean L1 norm of the last one's output."""
        self.disarm()
        seen, self._seen = self._seen, {}
        layers = {name: h[:: -(-len(h) // ROWS)].float() for name, h in seen.items() if len(h) >= FEWEST}
        if not layers:
            return {}
        unknown = torch.full_like(next(iter(layers.values()))[0, 0], torch.nan)
        asleep = {name: networks.dormant(h.unsqueeze(1), False) for name, h in layers.items()}
        found = {"dormant": torch.stack([asleep.get(name, unknown) for name in self.names])}
        last = layers.get(self.names[-1])
        if last is not None:
            found["reach"] = last.abs().sum(-1).mean()
            if rank and last.shape[1] <= WIDEST:
                found["effective_rank"] = networks.effective_rank(last.unsqueeze(1), False)
        return found
