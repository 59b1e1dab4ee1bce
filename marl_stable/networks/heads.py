"""What a network's outputs mean: distributions over actions, with the maths that PPO needs and no host sync.

Shapes: `...` any batch (usually B, A), n discrete actions, D action features.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import softplus

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0
LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)

# Nodes and weights of 5-point Gauss-Hermite quadrature for a standard normal.
_NODES = (-2.8569700138728056, -1.3556261799742659, 0.0, 1.3556261799742659, 2.8569700138728056)
_WEIGHTS = (0.011257411327720689, 0.2220759220056126, 0.5333333333333333, 0.2220759220056126, 0.011257411327720689)


class Distribution(Protocol):
    """A policy's answer for a batch of observations. Actions here are raw: what storage keeps and losses see."""

    def sample(self, generator: torch.Generator) -> Tensor:
        """Raw actions drawn."""

    def mode(self) -> Tensor:
        """The greedy raw action."""

    def log_prob(self, action: Tensor) -> Tensor:
        """`(...)` log-probability of raw actions."""

    def entropy(self) -> Tensor:
        """`(...)` nats."""

    def penalty(self) -> Tensor:
        """`(...)` mean square of the pre-squash output, which keeps actions off their bounds."""


def approx_kl(log_ratio: Tensor) -> Tensor:
    """`(...)` unbiased, never negative estimate of KL(old, new): (r - 1) - ln r (Schulman's k3)."""
    return torch.expm1(log_ratio) - log_ratio


class Categorical:
    """One of n actions by unnormalised log-probabilities `logits (..., n)`."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        # (..., n), computed with actions first: over a short last axis torch's kernel is three times slower
        self.log_probs = torch.log_softmax(logits.movedim(-1, 0).contiguous(), dim=0).movedim(0, -1)

    def sample(self, generator: torch.Generator) -> Tensor:
        """`(...)` int64, by the Gumbel trick: multinomial would wait for the device."""
        noise = torch.empty_like(self.log_probs).exponential_(generator=generator).log()
        return (self.log_probs - noise).argmax(dim=-1)

    def mode(self) -> Tensor:
        """`(...)` int64, the likeliest action."""
        return self.logits.argmax(dim=-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """`(...)` of int64 actions."""
        return self.log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """`(...)` nats."""
        return -(self.log_probs.exp() * self.log_probs).sum(dim=-1)

    def penalty(self) -> Tensor:
        """`(...)` mean square of the centred logits."""
        return (self.logits - self.logits.mean(dim=-1, keepdim=True)).square().mean(dim=-1)


class Gaussian:
    """Independent normals in the units of the environment; the plain head, clipped at the bounds outside."""

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean, self.log_std = mean, log_std  # (..., D), (..., D) or (D,)

    def sample(self, generator: torch.Generator) -> Tensor:
        """`(..., D)`."""
        noise = torch.empty_like(self.mean).normal_(generator=generator)
        return torch.addcmul(self.mean, self.log_std.exp(), noise)

    def mode(self) -> Tensor:
        """`(..., D)`."""
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        """`(...)` log-density."""
        z = (action - self.mean) * torch.exp(-self.log_std)
        return -(0.5 * z.square() + self.log_std + LOG_SQRT_2PI).sum(dim=-1)

    def entropy(self) -> Tensor:
        """`(...)` nats."""
        return (self.log_std.expand_as(self.mean) + 0.5 + LOG_SQRT_2PI).sum(dim=-1)

    def penalty(self) -> Tensor:
        """`(...)` mean square of the mean."""
        return self.mean.square().mean(dim=-1)


class SquashedGaussian(Gaussian):
    """tanh of a normal: actions in (-1, 1)^D. Raw actions are the u before the tanh.

    Keeping u instead of tanh(u) spares the inverse, which is infinite where tanh rounds to 1 and is the classic source
    of NaN (Haarnoja et al. 2018, appendix C, has the log-density).
    """

    def log_prob(self, action: Tensor) -> Tensor:
        """`(...)` exact log-density of tanh(u) at u = `action`."""
        return super().log_prob(action) - log_slope(action).sum(dim=-1)

    def entropy(self) -> Tensor:
        """`(...)` nats: the normal's entropy plus E[ln tanh'(u)], by quadrature, without noise: exact to 1e-2
        up to a deviation of 1, to 0.1 up to 2."""
        std = self.log_std.exp()
        slope = sum(w * log_slope(self.mean + x * std) for x, w in zip(_NODES, _WEIGHTS, strict=True))
        return super().entropy() + slope.sum(dim=-1)  # type: ignore[union-attr]


def log_slope(u: Tensor) -> Tensor:
    """ln(1 - tanh(u)^2) elementwise, without the cancellation that makes it -inf beyond |u| = 9."""
    return 2 * (math.log(2) - u - softplus(-2 * u))


def bounded_log_std(free: Tensor) -> Tensor:
    """A free parameter as a log deviation in [-5, 2], smoothly: a hard clamp would end its gradient at the bound."""
    return LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (torch.tanh(free) + 1)


def free_log_std(log_std: float) -> float:
    """The inverse of :func:`bounded_log_std`."""
    return math.atanh(2 * (log_std - LOG_STD_MIN) / (LOG_STD_MAX - LOG_STD_MIN) - 1)
