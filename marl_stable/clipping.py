"""The norms of recent gradients, row by row: the limit that follows from them, and which norm is a spike.

Shapes: R rows of an optimiser, W norms of the window.

Norms are taken in 16 at a time: between two of these a step costs one copy. Nothing here waits for the device, and
what a step reads changes in place, so that a recorded step (`graphs.py`) reads it as well.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

TINY = 1e-30  # stands for a norm of zero, which has no logarithm
LOWEST = 1e-2  # after long silence (no reward yet) the usual norm says nothing about what the first lessons may weigh
MIN_SIGMA, SIGMAS, CEILING = 0.05, 4.0, 10.0


class NormHistory(ABC):
    """The logarithms of each row's last norms; those that are not finite have no part in it."""

    WINDOW, BLOCK, WARM_UP = 512, 16, 64

    def __init__(self, rows: int, device: torch.device) -> None:
        self.ring = torch.full((self.WINDOW, rows), torch.nan, device=device)  # (W, R) log norms
        self.block = torch.zeros(self.BLOCK, rows, device=device)  # norms not yet taken in
        self.count = 0
        self._slots = self.block.unbind(0)

    def add(self, norm: Tensor) -> None:
        """Let this step's norms `(R,)` in."""
        self._slots[self.count % self.BLOCK].copy_(norm)
        self.count += 1
        if self.count % self.BLOCK == 0:
            start = (self.count - self.BLOCK) % self.WINDOW
            known = torch.where(self.block < torch.inf, self._capped(), torch.nan)
            self.ring[start : start + self.BLOCK] = known.clamp_min_(TINY).log_()
            if self.count >= self.WARM_UP:
                self._refresh()

    def _capped(self) -> Tensor:
        """`(BLOCK, R)` what of the newest norms enters."""
        return self.block

    @abstractmethod
    def _refresh(self) -> None:
        """Renew what is derived from the ring."""

    def _spread(self) -> tuple[Tensor, Tensor]:
        """`(R,)` each: the median of log norms, and their deviation by the median distance from it."""
        median = self.ring.nanmedian(0).values
        return median, 1.4826 * (self.ring - median).abs().nanmedian(0).values

    def state_dict(self) -> dict[str, Any]:
        """The window, the norms not yet taken in, and the count."""
        return {"ring": self.ring.clone(), "block": self.block.clone(), "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.ring.copy_(state["ring"])
        self.block.copy_(state["block"])
        self.count = state["count"]


class AdaptiveClip(NormHistory):
    """A limit for gradient norms that follows the run: median plus four robust deviations of recent log norms.

    After ZClip (Kumar et al. 2025) and AutoClip (Seetharaman et al. 2020), with a median instead of a mean so that a
    spike of 1e6 leaves it unmoved. Norms enter capped at the limit in force, which still lets it follow slow growth.
    """

    FIRST_LIMIT = 10.0

    def __init__(self, rows: int, device: torch.device) -> None:
        super().__init__(rows, device)
        self.limit = torch.full((rows,), self.FIRST_LIMIT, device=device)

    def _capped(self) -> Tensor:
        return torch.minimum(self.block, self.limit)

    def _refresh(self) -> None:
        median, sigma = self._spread()
        limit = (median.exp() * _reach(sigma)).clamp_min(LOWEST)
        self.limit.copy_(torch.where(torch.isfinite(limit), limit, self.limit))

    def state_dict(self) -> dict[str, Any]:
        """The window and the limit."""
        return super().state_dict() | {"limit": self.limit.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        super().load_state_dict(state)
        self.limit.copy_(state["limit"])


class Spikes(NormHistory):
    """Which norms are spikes: over 8 robust deviations, and over 10 times, above the median of log norms.

    Both, since norms that hardly vary have hardly a deviation. Norms enter as they are: a median does not mind fewer
    spikes than half the window, and a level that lasts as long is the new level. Acting on a spike has bounds more, so
    that neither rare rewards nor a new level are shut out: a norm below 1 harms nobody, after silence every lesson is
    a spike, and at most two steps are skipped in a row and one more in 128; other spikes are clipped.
    """

    Z, TIMES, HARMLESS = 8.0, 10.0, 1.0
    IN_A_ROW, REFILL = 2.0, NormHistory.BLOCK / 128
    FINITE = torch.finfo(torch.float32).max

    def __init__(self, rows: int, device: torch.device, most: float = math.inf) -> None:
        """`most`: the limit for norms that are no spikes."""
        super().__init__(rows, device)
        self.most = torch.full((rows,), most, device=device)
        self._none = torch.full((rows,), torch.inf, device=device)
        self._finite = torch.full((rows,), self.FINITE, device=device)
        self.median = torch.full((rows,), torch.nan, device=device)  # of log norms
        self.limit = self._none.clone()  # norms above it are spikes
        self._harmful = self._finite.clone()  # such as may be acted upon
        self._cut = self.most.clone()  # the limit for spikes
        self.left = torch.full((rows,), self.IN_A_ROW, device=device)  # steps that may be skipped

    def admit(self, norm: Tensor) -> Tensor:
        """`(R,)` which rows may move: those without a spike or a norm that is not finite, and not all spikes."""
        return norm <= torch.where(self.left >= 1, self._harmful, self._finite)

    def settle(self, moved: Tensor) -> None:
        """After a step that `admit` was asked about: `moved (R,)` is 1 for rows that did."""
        self.left.add_(moved).sub_(1.0)

    def cut(self, norm: Tensor) -> Tensor:
        """`(R,)` the limits for norms that may be spikes."""
        return torch.where(norm > self._harmful, self._cut, self.most)

    def _refresh(self) -> None:
        self._derive()
        self.left.clamp_min_(0.0).add_(self.REFILL).clamp_max_(self.IN_A_ROW)

    def _derive(self) -> None:
        self.median, sigma = self._spread()
        enough = self.ring.isfinite().sum(0) >= self.WARM_UP
        usual = self.median.exp().clamp_min(LOWEST)
        far = (self.median + self.Z * (sigma + 1e-3)).exp()
        self.limit.copy_(torch.where(enough, torch.maximum(far, self.TIMES * usual), self._none))
        harmful = self.limit.clamp(self.HARMLESS, self.FINITE)
        self._harmful.copy_(torch.where(usual > LOWEST, harmful, self._finite))
        self._cut.copy_(torch.where(enough, torch.minimum(usual * _reach(sigma), self.most), self.most))

    def heaviest(self, beta: float, limit: Tensor) -> Tensor:
        """`(R,)` the largest part that one step of the window has in a running mean of squared norms.

        It decays with `beta`; norms enter it clipped at `limit (R,)`. Of the last 15 steps nothing may be known yet.
        """
        late = self.count % self.BLOCK
        slots = torch.arange(self.WINDOW, device=self.ring.device)
        age = (self.count - late - 1 - slots) % self.WINDOW + late
        norm = torch.minimum(self.ring.exp(), limit).nan_to_num(0.0)
        return ((1 - beta) * beta**age * norm.T.square()).amax(1)

    def state_dict(self) -> dict[str, Any]:
        """The window, and how many steps may be skipped."""
        return super().state_dict() | {"left": self.left.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        super().load_state_dict(state)
        self.left.copy_(state["left"])
        self._derive()  # of a young window as well, which knows no spikes yet


def _reach(sigma: Tensor) -> Tensor:
    """How far above the median `(R,)` norms with this deviation of their logarithms usually go, as a factor."""
    return (SIGMAS * sigma.clamp_min(MIN_SIGMA)).exp().clamp_max(CEILING)
