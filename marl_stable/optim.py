"""The one place that steps an optimiser: row-wise Adam that clips, and refuses what is not finite, agent by agent.

Shapes: R rows (one per agent, or one where agents share), P parameters per row.

All parameters of a network live in one `(R, P)` tensor, so that a step is a dozen operations whatever the network's
depth, each agent's gradient norm is a row's norm, and one agent's bad gradient neither moves it nor touches the others.
Nothing here waits for the device: decisions are masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

MOMENTS = ("m", "v", "m_weight", "v_weight")
TINY = 1e-30  # keeps rows that have never moved from dividing zero by zero


class StepStats(NamedTuple):
    """What one step did, each `(R,)`."""

    norm: Tensor  # gradient norm before clipping
    clipped: Tensor  # whether the norm was above the limit
    non_finite: Tensor  # whether the gradient was not finite; such rows stay as they were, unless told otherwise


class AdaptiveClip:
    """A limit for gradient norms that follows the run: median plus four robust deviations of recent log norms.

    After ZClip (Kumar et al. 2025) and AutoClip (Seetharaman et al. 2020), with a median instead of a mean so that a
    spike of 1e6 leaves it unmoved. Norms enter capped at the limit in force, which still lets it follow slow growth.
    """

    WINDOW, REFRESH, WARM_UP, FIRST_LIMIT = 512, 16, 64, 10.0
    SIGMAS, CEILING, MIN_SIGMA = 4.0, 10.0, 0.05
    LOWEST = 1e-2  # after long silence (no reward yet) a limit of 1e-6 would hold the first lessons below Adam's eps

    def __init__(self, rows: int, device: torch.device) -> None:
        self.ring = torch.full((self.WINDOW, rows), torch.nan, device=device)  # log norms
        self.limit = torch.full((rows,), self.FIRST_LIMIT, device=device)
        self._nan = torch.tensor(torch.nan, device=device)
        self.count = 0

    def __call__(self, norm: Tensor, finite: Tensor) -> Tensor:
        """The limit `(R,)` for this step; `norm` then enters the window, as NaN where it is not `finite`."""
        limit = self.limit
        seen = torch.minimum(norm, limit).clamp_min_(TINY)
        self.ring[self.count % self.WINDOW] = torch.where(finite, seen, self._nan).log_()
        self.count += 1
        if self.count >= self.WARM_UP and self.count % self.REFRESH == 0:
            self._refresh()
        return limit

    def _refresh(self) -> None:
        median = self.ring.nanmedian(0).values
        sigma = 1.4826 * (self.ring - median).abs().nanmedian(0).values
        reach = (self.SIGMAS * sigma.clamp_min(self.MIN_SIGMA)).exp().clamp_max(self.CEILING)
        limit = (median.exp() * reach).clamp_min(self.LOWEST)
        self.limit = torch.where(torch.isfinite(limit), limit, self.limit)

    def state_dict(self) -> dict[str, Any]:
        """The window, the limit and the count."""
        return {"ring": self.ring.clone(), "limit": self.limit.clone(), "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.ring, self.limit = state["ring"].to(self.ring, copy=True), state["limit"].to(self.limit, copy=True)
        self.count = state["count"]


class GuardedAdam:
    """Adam (Kingma and Ba 2015, algorithm 1) by rows, with clipping before the moments and decoupled decay."""

    def __init__(
        self,
        network: nn.Module,
        rows: int,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        max_grad_norm: float | str | None = None,
        weight_decay: float = 0.0,
        l1: float = 0.0,
        refuse: bool = True,
    ) -> None:
        """`max_grad_norm`: a number, "adaptive" or None. `refuse`: rows with a non-finite gradient do not move."""
        self.parameters = list(network.parameters())
        self.rows, self.betas, self.eps, self.refuse = rows, betas, eps, refuse
        self.weight_decay, self.l1 = weight_decay, l1
        self.flat = flatten(self.parameters, rows)
        self.decays = _mask_of_weights(network, rows).to(self.flat)  # (P,) 1 for weight matrices
        self.m, self.v = torch.zeros_like(self.flat), torch.zeros_like(self.flat)
        self.m_weight, self.v_weight = torch.zeros(rows, 1).to(self.flat), torch.zeros(rows, 1).to(self.flat)
        self._zero, self._one = torch.zeros((), device=self.flat.device), torch.ones(rows, 1).to(self.flat)
        self.adaptive = AdaptiveClip(rows, self.flat.device) if max_grad_norm == "adaptive" else None
        self.max_grad_norm = max_grad_norm if isinstance(max_grad_norm, float | int) else None

    def step(self, loss: Tensor, lr: float) -> StepStats:
        """Differentiate `loss` (a scalar) and take one step of size `lr`."""
        gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        with torch.no_grad():
            return self._apply(self._gather(gradients), lr)

    def _gather(self, gradients: Sequence[Tensor | None]) -> Tensor:
        """`(R, P)` from the gradients of single parameters; a parameter outside the loss counts as zero."""
        pairs = zip(gradients, self.parameters, strict=True)
        parts = [(torch.zeros_like(p) if g is None else g).reshape(self.rows, -1) for g, p in pairs]
        return torch.cat(parts, dim=1)

    def _apply(self, gradient: Tensor, lr: float) -> StepStats:
        norm = torch.linalg.vector_norm(gradient, dim=1)  # (R,)
        finite = norm < torch.inf  # false for NaN as well
        clipped = torch.zeros_like(finite)
        limit = self.adaptive(norm, finite) if self.adaptive else self.max_grad_norm
        if limit is not None:
            clipped = norm > limit
            gradient = gradient * (limit / norm).clamp_max_(1.0).unsqueeze(1)
        moves = finite if self.refuse else torch.ones_like(finite)
        if self.refuse:
            gradient = torch.where(moves.unsqueeze(1), gradient, self._zero)  # NaN times zero would still be NaN
        self._adam(gradient, moves.to(self.flat.dtype).unsqueeze(1), lr)
        return StepStats(norm, clipped, ~finite)

    def _adam(self, gradient: Tensor, moves: Tensor, lr: float) -> None:
        """One step; `moves (R, 1)` is 0 for rows that must stay bit for bit as they are, moments included.

        The corrections 1 - beta^t are what the same moving averages make of a constant 1, which spares counting.
        """
        first, second = moves * (1 - self.betas[0]), moves * (1 - self.betas[1])
        self.m.lerp_(gradient, first)
        self.v.lerp_(gradient.square(), second)
        self.m_weight.lerp_(self._one, first)
        self.v_weight.lerp_(self._one, second)
        deviation = (self.v / self.v_weight.clamp_min(TINY)).sqrt_().add_(self.eps)
        rate = moves * lr
        if self.weight_decay or self.l1:
            decay = self.weight_decay * self.flat + self.l1 * self.flat.sign()
            self.flat.sub_(decay * self.decays * rate)
        self.flat.addcdiv_(self.m * (rate / self.m_weight.clamp_min(TINY)), deviation, value=-1)

    def weight_norm(self) -> Tensor:
        """`(R,)` L2 norm of all parameters."""
        norm: Tensor = torch.linalg.vector_norm(self.flat, dim=1)
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Moments with their weights, and the clip's window; the parameters belong to the network."""
        state: dict[str, Any] = {name: getattr(self, name).clone() for name in MOMENTS}
        return state | ({"adaptive": self.adaptive.state_dict()} if self.adaptive else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        for name in MOMENTS:
            getattr(self, name).copy_(state[name])
        if self.adaptive:
            self.adaptive.load_state_dict(state["adaptive"])


def flatten(parameters: Sequence[nn.Parameter], rows: int) -> Tensor:
    """Move all parameters into one `(R, P)` tensor and make each a view of its part."""
    flat = torch.cat([p.detach().reshape(rows, -1) for p in parameters], dim=1).contiguous()
    start = 0
    for p in parameters:
        width = p.numel() // rows
        p.data = flat[:, start : start + width].view(p.shape)
        start += width
    return flat


def polyak(target: Tensor, learned: Tensor, tau: float) -> None:
    """Move flattened parameters `(R, P)` by the share `tau` towards the learned ones (Lillicrap et al. 2016)."""
    target.lerp_(learned, tau)


def _mask_of_weights(network: nn.Module, rows: int) -> Tensor:
    """`(P,)` 1 for weight matrices, 0 for biases, gains and deviations, which decay would only distort."""
    named = network.named_parameters()
    return torch.cat([torch.full((p.numel() // rows,), float(name.endswith("weight"))) for name, p in named])
