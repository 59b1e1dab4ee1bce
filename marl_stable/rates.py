"""How large the steps of an optimiser's rows are, relative to what its caller asks for.

Shapes: R rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

WARM_UP = 200  # steps


class Rates:
    """A factor for each row: lowered and restored on request, and rising from nothing after a new beginning."""

    def __init__(self, one: Tensor) -> None:
        """`one (R, 1)`: ones, of the parameters' type and on their device."""
        self.factor = one.squeeze(1).clone()  # (R,) as requested
        self.ramp = self.factor.clone()  # (R,) 1 where no row has begun anew
        self.rising = 0  # steps until all rows have risen
        self.current = one.clone()  # (R, 1) of the next step; changed in place, for steps that were recorded

    def _combine(self) -> None:
        self.current.copy_((self.factor * self.ramp).unsqueeze(1))

    def advance(self) -> None:
        """From one step to the next."""
        if self.rising:
            self.rising -= 1
            self.ramp = (self.ramp + 1 / WARM_UP).clamp_max(1.0) if self.rising else torch.ones_like(self.ramp)
            self._combine()

    def scale(self, rows: Tensor, factor: float, lowest: float) -> None:
        """Multiply the factors of `rows (R,) bool` by `factor`, within `lowest` and 1."""
        self.factor = torch.where(rows, (self.factor * factor).clamp(lowest, 1.0), self.factor)
        self._combine()

    def begin(self, rows: Tensor) -> None:
        """Let `rows (R,) bool` rise linearly, to their whole factor at step `WARM_UP` from now."""
        self.ramp = torch.where(rows, 1 / WARM_UP, self.ramp)
        self.rising = WARM_UP - 1
        self._combine()

    def state_dict(self) -> dict[str, Any]:
        """The factors, and how far rows have risen."""
        return {"factor": self.factor.clone(), "ramp": self.ramp.clone(), "rising": self.rising}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.factor = state["factor"].to(self.factor, copy=True)
        self.ramp = state["ramp"].to(self.ramp, copy=True)
        self.rising = state["rising"]
        self._combine()
