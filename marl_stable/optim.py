"""The one place that steps an optimiser: row-wise Adam that clips, and refuses what is not finite, agent by agent.

Shapes: R rows (one per agent, or one where agents share), P parameters per row, L weight matrices.

All parameters of a network live in one `(R, P)` tensor, so that a step is a dozen operations whatever the network's
depth, each agent's gradient norm is a row's norm, and one agent's bad gradient neither moves it nor touches the others.
Nothing here waits for the device: decisions are masks. A step is in two halves: `move` changes tensors in place and
nothing else, so that it can be recorded (`graphs.py`); `remember` is what the host counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from marl_stable import distributed
from marl_stable.clipping import AdaptiveClip, Spikes
from marl_stable.rates import Rates

MOMENTS = ("m", "v", "m_weight", "v_weight")
TINY = 1e-30  # keeps rows that have never moved from dividing zero by zero
FROZEN = 10.0  # a weight whose gradients are within so many eps of nothing hardly moves
STUNNED, ONE_STEP = 0.1, 0.25  # usual norm in units of Adam's memory; share of that memory which is one step's


class StepStats(NamedTuple):
    """What one step did, each `(R,)`."""

    norm: Tensor  # gradient norm before clipping
    clipped: Tensor  # whether the norm was above the limit
    non_finite: Tensor  # whether the gradient was not finite; such rows stay as they were, unless told otherwise
    spike: Tensor  # whether the norm was far outside of what the row's norms usually are
    skipped: Tensor  # whether the row stayed as it was, for whatever reason


class Layers(NamedTuple):
    """The weight matrices of a network."""

    names: tuple[str, ...]  # (L,) of the modules they belong to
    gradient: Tensor  # (R, L) root mean square gradient as Adam remembers it
    weight: Tensor  # (R, L) root mean square weight


class GuardedAdam:
    """Adam (Kingma and Ba 2015, algorithm 1) by rows, with clipping before the moments and decoupled decay."""

    def __init__(
        self,
        network: nn.Module,
        rows: int,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        max_grad_norm: float | str | None = None,
        weight_decay: float = 0.0,
        l1: float = 0.0,
        refuse: bool = True,
        watch: bool = True,
    ) -> None:
        """`max_grad_norm`: a number, "adaptive" or None.

        `refuse`: rows with a gradient that is not finite do not move, and spikes are skipped, or clipped where no more
        skipping is allowed. `watch`: spikes are counted; implied by `refuse`.
        """
        self.parameters = list(network.parameters())
        self.rows, self.betas, self.eps, self.refuse = rows, betas, eps, refuse
        self.weight_decay, self.l1 = weight_decay, l1
        self.flat = flatten(self.parameters, rows)
        self.matrices = _matrices(network, rows)
        self.decays = self._mask_of_matrices()  # (P,) 1 for weight matrices
        self.m, self.v = torch.zeros_like(self.flat), torch.zeros_like(self.flat)
        self.m_weight, self.v_weight = torch.zeros(rows, 1).to(self.flat), torch.zeros(rows, 1).to(self.flat)
        self._zero, self._one = torch.zeros((), device=self.flat.device), torch.ones(rows, 1).to(self.flat)
        self._never = torch.zeros(rows, dtype=torch.bool, device=self.flat.device)
        self._always = ~self._never
        self.rates = Rates(self._one)
        self.adaptive = AdaptiveClip(rows, self.flat.device) if max_grad_norm == "adaptive" else None
        self.max_grad_norm = max_grad_norm if isinstance(max_grad_norm, float | int) else None
        limit = math.inf if self.max_grad_norm is None else self.max_grad_norm
        self.spikes = Spikes(rows, self.flat.device, limit) if watch or refuse else None

    # ---- a step

    def move(self, loss: Tensor, lr: float | Tensor) -> StepStats:
        """Differentiate `loss` (a scalar) and take one step of size `lr`; `remember` must follow.

        As a scalar tensor, `lr` can change between repetitions. The gradient is the mean of those of all processes that
        train together.
        """
        gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        with torch.no_grad():
            return self._apply(distributed.mean(self._gather(gradients)), lr)

    def remember(self, norm: Tensor) -> None:
        """After a step whose gradients had the norms `norm (R,)` before clipping."""
        self.rates.advance()
        for history in (self.adaptive, self.spikes):
            if history:
                history.add(norm)

    def _gather(self, gradients: Sequence[Tensor | None]) -> Tensor:
        """`(R, P)` from the gradients of single parameters; a parameter outside the loss counts as zero."""
        pairs = zip(gradients, self.parameters, strict=True)
        parts = [(torch.zeros_like(p) if g is None else g).reshape(self.rows, -1) for g, p in pairs]
        return torch.cat(parts, dim=1)

    def _apply(self, gradient: Tensor, lr: float | Tensor) -> StepStats:
        norm = torch.linalg.vector_norm(gradient, dim=1)  # (R,)
        finite = norm < torch.inf  # false for NaN as well
        moves, limit = self._decide(norm, finite)
        spike = norm > self.spikes.limit if self.spikes else self._never
        clipped = self._never
        if limit is not None:
            clipped = norm > limit
            gradient = gradient * (limit / norm).clamp_max_(1.0).unsqueeze(1)
        if self.refuse:
            gradient = torch.where(moves.unsqueeze(1), gradient, self._zero)  # NaN times zero would still be NaN
        moved = moves.to(self.flat.dtype)
        self._adam(gradient, moved.unsqueeze(1), lr)
        if self.spikes and self.refuse:
            self.spikes.settle(moved)
        return StepStats(norm, clipped, ~finite, spike, ~moves)

    def _decide(self, norm: Tensor, finite: Tensor) -> tuple[Tensor, Tensor | float | None]:
        """Which rows move when gradients have these norms `(R,)`, and the limit for those that do."""
        limit = self.adaptive.limit if self.adaptive else self.max_grad_norm
        if not self.refuse:
            return self._always, limit
        if not self.spikes:
            return finite, limit
        return self.spikes.admit(norm), limit if self.adaptive else self.spikes.cut(norm)

    def _adam(self, gradient: Tensor, moves: Tensor, lr: float | Tensor) -> None:
        """One step; `moves (R, 1)` is 0 for rows that must stay bit for bit as they are, moments included.

        The corrections 1 - beta^t are what the same moving averages make of a constant 1, which spares counting.
        """
        first, second = moves * (1 - self.betas[0]), moves * (1 - self.betas[1])
        self.m.lerp_(gradient, first)
        self.v.lerp_(gradient.square(), second)
        self.m_weight.lerp_(self._one, first)
        self.v_weight.lerp_(self._one, second)
        rate = moves * self.rates.current * lr
        if self.weight_decay or self.l1:
            decay = self.weight_decay * self.flat + self.l1 * self.flat.sign()
            self.flat.sub_(decay * self.decays * rate)
        self.flat.addcdiv_(self.m * (rate / self.m_weight.clamp_min(TINY)), self._deviation(), value=-1)

    def _deviation(self) -> Tensor:
        """`(R, P)` what Adam divides by."""
        return self._second_moment().sqrt_().add_(self.eps)

    def _second_moment(self) -> Tensor:
        """`(R, P)` mean squared gradients, corrected for the first steps."""
        return self.v / self.v_weight.clamp_min(TINY)

    # ---- acting on rows; `rows` are R truth values

    def scale_rate(self, rows: Tensor | Sequence[bool], factor: float, lowest: float = 1 / 30) -> None:
        """Multiply the step sizes of `rows` by `factor`; they stay between `lowest` and 1 times what is asked for."""
        self.rates.scale(self._mask(rows), factor, lowest)

    def reset_moments(self, rows: Tensor | Sequence[bool]) -> None:
        """Let `rows` forget all gradients; their step sizes then rise from nothing in 200 steps."""
        mask = self._mask(rows)
        for name in MOMENTS:
            getattr(self, name).masked_fill_(mask.unsqueeze(1), 0.0)
        self.rates.begin(mask)

    def _mask(self, rows: Tensor | Sequence[bool]) -> Tensor:
        return torch.as_tensor(rows, dtype=torch.bool, device=self.flat.device)

    # ---- being watched

    def stunned(self) -> Tensor:
        """`(R,)` whether one huge gradient has Adam's memory, so that usual ones hardly move the row any more.

        Their median norm is below a tenth of that memory, of which a single step makes up a quarter or more: what
        remains of a scale that gradients had for long, and have lost by learning, is no reason to forget it. A spike is
        known 16 steps after it at the latest; False where nobody watches.
        """
        if not self.spikes:
            return self._never.clone()
        limit = self.adaptive.limit if self.adaptive else self.spikes.most
        alone = self.spikes.heaviest(self.betas[1], limit) >= ONE_STEP * self.v.sum(1)
        return alone & (self.spikes.median.exp() < STUNNED * self.memory())

    def memory(self) -> Tensor:
        """`(R,)` gradient norm as Adam remembers it, sqrt(sum v_hat)."""
        return self._second_moment().sum(1).sqrt()

    def frozen_share(self) -> Tensor:
        """`(R,)` share of parameters whose remembered gradients are below 10 eps, Adam's floor. 0 before any step."""
        small: Tensor = self.v < (FROZEN * self.eps) ** 2 * self.v_weight
        return small.to(self.flat.dtype).mean(1)

    def direction_rms(self) -> Tensor:
        """`(R,)` root mean square of what a step of size 1 would now subtract."""
        direction = self.m / self.m_weight.clamp_min(TINY) / self._deviation()
        return direction.square().mean(1).sqrt()

    def shares(self, lr: float) -> Tensor:
        """`(R,)` how long the first step of size `lr`, which moves every weight by that, is over the weights."""
        return lr / self.flat.square().mean(1).sqrt().clamp_min(TINY)

    def layers(self) -> Layers:
        """The weight matrices, their gradients and sizes."""
        gradient = self._mean_by_matrix(self._second_moment()).sqrt()
        return Layers(tuple(self.matrices), gradient, self.rms_by_matrix(self.flat))

    def rms_by_matrix(self, values: Tensor) -> Tensor:
        """`(R, L)` root mean squares of `values (R, P)`, one for each parameter, over each weight matrix."""
        return self._mean_by_matrix(values.square()).sqrt()

    def _mean_by_matrix(self, values: Tensor) -> Tensor:
        """Views and not `index_add_`, which takes twice as long and on a GPU adds in no fixed order."""
        return torch.stack([values[:, columns].mean(1) for columns in self.matrices.values()], dim=1)

    def weight_norm(self) -> Tensor:
        """`(R,)` L2 norm of all parameters."""
        norm: Tensor = torch.linalg.vector_norm(self.flat, dim=1)
        return norm

    # ---- state

    def _parts(self) -> dict[str, AdaptiveClip | Spikes | Rates]:
        """What has a state of its own."""
        found = {"adaptive": self.adaptive, "spikes": self.spikes, "rates": self.rates}
        return {name: part for name, part in found.items() if part}

    def state_dict(self) -> dict[str, Any]:
        """Moments with their weights, norms seen and step sizes; the parameters belong to the network."""
        moments = {name: getattr(self, name).clone() for name in MOMENTS}
        return moments | {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken; what was not kept there, as norms that nobody watched, begins anew."""
        for name in MOMENTS:
            getattr(self, name).copy_(state[name])
        for name, part in self._parts().items():
            if name in state:
                part.load_state_dict(state[name])

    def _mask_of_matrices(self) -> Tensor:
        """`(P,)` 1 for weight matrices, 0 for biases, gains and deviations, which decay would only distort."""
        mask = torch.zeros_like(self.flat[0])
        for columns in self.matrices.values():
            mask[columns] = 1.0
        return mask


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


def _matrices(network: nn.Module, rows: int) -> dict[str, slice]:
    """The columns of each weight matrix in flattened parameters, by the name of its module."""
    found, start = {}, 0
    for name, p in network.named_parameters():
        end = start + p.numel() // rows
        if name.endswith("weight"):
            found[name.removesuffix("weight").removesuffix(".")] = slice(start, end)
        start = end
    return found
