"""BatchNorm whose function changes between updates only: acting, learning and targets see the same running statistics.

Shapes: N rows, A agents, U units; with agents apart every tensor has a leading A, and statistics are `(A, 1, U)`.

Plain BatchNorm acts on running statistics and learns on those of the minibatch, so PPO's first ratios are 1 +- 0.39.
Here values always come from the running statistics, while gradients see the batch's own, as in batch renormalisation
(Ioffe 2017). Its r and d are not clipped: within their limits it gives these very values, and beyond them it would give
others. Nor is there need: the gradient is then an orthogonal projection of the plain one, and never longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from marl_stable import distributed
from marl_stable.normalize import WINSOR

EPS = 1e-3  # of the variance, as in CrossQ (Bhatt et al. 2024); less would blow up the rounding of constant units
MEMORY = 0.99  # share that statistics keep of themselves per step of the optimiser, as in CrossQ


class BatchNorm(nn.Module):
    """Batch normalisation with a gain and bias, and statistics, per agent where agents are apart."""

    mean: Tensor
    var: Tensor
    known: Tensor  # bool: whether mean and variance were ever taken from data

    def __init__(self, width: int, agents: int | None) -> None:
        super().__init__()
        shape = (width,) if agents is None else (agents, 1, width)
        self.gain = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape))
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("var", torch.ones(shape))
        self.register_buffer("known", torch.zeros(shape, dtype=torch.bool))
        self.alive: Tensor | None = None  # rows to learn from; None: gradients are those of the function as it is
        self.rate: float | None = None  # None: statistics stay as they are

    def forward(self, x: Tensor) -> Tensor:
        """`(N, U)` or `(A, N, U)`: each unit in deviations from its running mean, before gain and bias."""
        if self.alive is None:
            return _normalised(x, self.gain, self.bias, self.mean, torch.rsqrt(self.var + EPS))
        weight = _by_row(self.alive, x)
        if self.rate is not None:
            self._take_in(x, weight, self.rate)
        scale = torch.rsqrt(self.var + EPS)
        return _Renormalised.apply(x, self.gain, self.bias, self.mean, scale, weight)  # type: ignore[no-any-return,no-untyped-call]

    @torch.no_grad()
    def _take_in(self, x: Tensor, weight: Tensor, rate: float) -> None:
        """Move statistics by the share `rate` towards those of `x`, and the first time all the way.

        Neither dead agents' rows nor non-finite values enter; outliers enter winsorised at ten running deviations. A
        true change is followed all the same, since the variance is that of old and new together.
        """
        w = (weight > 0) & torch.isfinite(x)
        reach = torch.where(self.known, WINSOR * (self.var + EPS).sqrt(), torch.inf)
        x = torch.where(w, torch.clamp(x, self.mean - reach, self.mean + reach), 0.0)
        n = distributed.total(w.sum(-2).view_as(self.mean))
        mean = distributed.total(x.sum(-2).view_as(self.mean)) / n.clamp_min(1)
        off = torch.where(w, (x - mean).square(), 0.0).sum(-2).view_as(self.mean)
        var = distributed.total(off) / n.clamp_min(1)
        moves = (n > 0) & torch.isfinite(var)  # squares may overflow where values do not
        share = torch.where(self.known, rate, 1.0)
        both = torch.lerp(self.var, var, share) + share * (1 - share) * (mean - self.mean).square()  # of the mixture
        self.mean.copy_(torch.where(moves, torch.lerp(self.mean, mean, share), self.mean))
        self.var.copy_(torch.where(moves, both, self.var))
        self.known.logical_or_(moves)

    @torch.no_grad()
    def follow(self, learned: BatchNorm, tau: float) -> None:
        """Move statistics by the share `tau` towards those of `learned`, and the first time all the way."""
        share = torch.where(self.known, tau, 1.0)
        self.mean.lerp_(learned.mean, share)
        self.var.lerp_(learned.var, share)
        self.known.copy_(learned.known)


class BatchNorms:
    """All BatchNorm layers of a network, told together which rows count; a falsy nothing where it has none.

    `target`, a copy that follows the network, has statistics of its own, which follow like its weights: those of the
    network describe activations that the older weights do not have.
    """

    def __init__(self, network: nn.Module, target: nn.Module | None = None) -> None:
        self.network = network
        self.layers = _layers(network)
        self.targets = [] if target is None else _layers(target)

    def __bool__(self) -> bool:
        return bool(self.layers)

    @contextmanager
    def learning(self, alive: Tensor) -> Iterator[None]:
        """Within, gradients account for what moving a layer's inputs does to the statistics of the batch.

        `alive` is 1 where a row is learned from: `(N, A)`, or `(N,)` where the network sees all agents at once.
        """
        for layer in self.layers:
            layer.alive = alive
        try:
            yield
        finally:
            for layer in self.layers:
                layer.alive = None

    @torch.no_grad()
    def take_in(self, inputs: Tensor, alive: Tensor, steps: int) -> None:
        """Let the activations at `inputs` into the statistics, once for `steps` steps of the optimiser.

        Layer by layer: each sees what the renewed statistics of those before it make of the inputs.
        """
        if not self.layers:
            return
        for layer in self.layers:
            layer.rate = 1 - MEMORY**steps
        try:
            with self.learning(alive):
                self.network(inputs)
        finally:
            for layer in self.layers:
                layer.rate = None
        self.follow(0.0)  # targets that know nothing yet begin like the network, as their weights do

    def follow(self, tau: float) -> None:
        """Let the target's statistics follow by the share `tau`."""
        for target, learned in zip(self.targets, self.layers, strict=False):
            target.follow(learned, tau)


@contextmanager
def counting(network: nn.Module, alive: Tensor) -> Iterator[None]:
    """Within, layers of `network` that learn do so from the rows `alive`, and not from those that they were told.

    For a part of a network whose rows are others: those of one group among all.
    """
    told = [(layer, layer.alive) for layer in _layers(network) if layer.alive is not None]
    for layer, _ in told:
        layer.alive = alive
    try:
        yield
    finally:
        for layer, before in told:
            layer.alive = before


class _Renormalised(torch.autograd.Function):
    """y = (x - mu) / sigma gain + bias with the running mu and sigma, differentiated as in Ioffe 2017, section 3.

    There y = (r (x - mu_B) / sigma_B + d) gain + bias with r = sigma_B / sigma and d = (mu_B - mu) / sigma held
    constant, so that with g = gain dL/dy

        dL/dx = (g - mean(g) - z mean(g z)) / sigma   with   z = (x - mu_B) / sigma_B,

    means over the rows that count. The gradient of other rows is g / sigma, and they have no part in that of any row.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, bias: Tensor, mean: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
        """`scale` is 1 / sigma, `weight (N, 1)` or `(A, N, 1)` is 1 for rows that count."""
        ctx.save_for_backward(x, gain, mean, scale, weight)
        return _normalised(x, gain, bias, mean, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, mean, scale, weight = ctx.saved_tensors
        normal = (x - mean) * scale
        share = weight / weight.sum(-2, keepdim=True).clamp_min(1)
        every, counted = torch.ones_like(weight).mT, weight.mT  # sums over rows as products: many times faster
        off = normal - share.mT @ normal  # in running deviations, in which EPS is EPS / sigma^2
        var = share.mT @ off.square() + EPS * scale.square()
        along = torch.addcmul(counted @ g, off, (counted @ (g * off)) / var)  # mean(g) + z mean(g z), times N
        dx = along.mul_(-share).add_(g).mul_(gain * scale)
        dgain, dbias = every @ (g * normal), every @ g
        return dx, dgain.view_as(gain), dbias.view_as(gain), None, None, None


def _normalised(x: Tensor, gain: Tensor, bias: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """(x - mean) scale gain + bias, in one pass over `x`."""
    factor = gain * scale
    return torch.addcmul(torch.addcmul(bias, mean, factor, value=-1), x, factor)


def _by_row(alive: Tensor, x: Tensor) -> Tensor:
    """`alive` as rows of `x` are: `(N, 1)`, or with agents apart `(A, N, 1)`."""
    rows = alive.reshape(-1, 1) if x.dim() == 2 else alive.reshape(-1, len(x)).T.unsqueeze(-1)
    return rows.to(x.dtype)


def _layers(network: nn.Module) -> list[BatchNorm]:
    return [module for module in network.modules() if isinstance(module, BatchNorm)]
