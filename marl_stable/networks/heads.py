"""What a network's outputs mean: distributions over actions, with the maths that PPO needs and no host sync.

Shapes: `...` any batch (usually B, A), n discrete actions, D action features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import softplus

from marl_stable.config import LOG_STD_MAX, LOG_STD_MIN

FORBIDDEN = -1e9  # logit of an illegal action: its probability is 0 in float32, and 0 * FORBIDDEN is no NaN
EVERY, DRAWN = 8, 4  # so many actions a critic is asked about one by one; where there are more, about so many draws
LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)

Worth = Callable[[Tensor], Tensor]
"""What a critic says, `(...)`, of actions as it sees them, `(..., U)`."""

# 5-point Gauss-Hermite quadrature for a standard normal: where a function is asked, and what each answer weighs.
NODES = (-2.8569700138728056, -1.3556261799742659, 0.0, 1.3556261799742659, 2.8569700138728056)
WEIGHTS = (0.011257411327720689, 0.2220759220056126, 0.5333333333333333, 0.2220759220056126, 0.011257411327720689)


class Answer(Protocol):
    """A policy's answer to a batch of observations. Actions here are raw: what storage keeps and losses see."""

    def sample(self, generator: torch.Generator) -> Tensor:
        """Raw actions drawn, to explore."""

    def mode(self) -> Tensor:
        """The greedy raw action."""

    def penalty(self) -> Tensor:
        """`(...)` mean square of the pre-squash output, which keeps actions off their bounds."""


class Distribution(Answer, Protocol):
    """An answer with a density: what policy gradients need."""

    def log_prob(self, action: Tensor) -> Tensor:
        """`(...)` log-probability of raw actions."""

    def entropy(self) -> Tensor:
        """`(...)` nats."""


class Differentiable(Answer, Protocol):
    """An answer through which a critic's gradient reaches the actor."""

    def uniform(self, generator: torch.Generator) -> Tensor:
        """Raw actions drawn uniformly from all legal ones, whatever the policy says."""

    def expected(self, worth: Worth, generator: torch.Generator) -> Tensor:
        """`(...)` what the policy's actions are worth on average, with the gradient that climbs it."""

    def relaxed(self, generator: torch.Generator) -> Tensor:
        """`(..., U)` actions as critics see them (one-hot, or between -1 and 1), with a gradient."""

    def smoothed(self, noise: float, clip: float, generator: torch.Generator) -> Tensor:
        """`(..., U)` actions as critics see them, with the noise of target policies."""


def approx_kl(log_ratio: Tensor) -> Tensor:
    """`(...)` unbiased, never negative estimate of KL(old, new): (r - 1) - ln r (Schulman's k3)."""
    return torch.expm1(log_ratio) - log_ratio


class Categorical:
    """One of n actions by unnormalised log-probabilities `logits (..., n)`; only `legal (..., n)` ones, where given.

    Where nothing is legal (an agent that is not there) everything is.
    """

    def __init__(self, logits: Tensor, legal: Tensor | None = None) -> None:
        self.free = logits
        self.legal = None if legal is None else legal | ~legal.any(-1, keepdim=True)
        self.logits = logits = logits if self.legal is None else logits.masked_fill(~self.legal, FORBIDDEN)
        # (..., n), computed with actions first: over a short last axis torch's kernel is three times slower
        self.log_probs = torch.log_softmax(logits.movedim(-1, 0).contiguous(), dim=0).movedim(0, -1)

    def sample(self, generator: torch.Generator) -> Tensor:
        """`(...)` int64, by the Gumbel trick: multinomial would wait for the device."""
        return (self.log_probs + self._gumbel(generator)).argmax(dim=-1)

    def uniform(self, generator: torch.Generator) -> Tensor:
        """`(...)` int64."""
        return Categorical(torch.zeros_like(self.logits), self.legal).sample(generator)

    def expected(self, worth: Worth, generator: torch.Generator) -> Tensor:
        """`(...)` sum of p(a) Q(a) over all actions a (Mean Actor-Critic, Allen et al. 2017); of more than `EVERY`, its
        estimate from `DRAWN`.

        Critics are asked for values alone: their slope at an action is that of actions that do not exist, and may
        point away from a better one.
        """
        return self._over_all(worth) if self.logits.shape[-1] <= EVERY else self._over_drawn(worth, generator)

    def _over_all(self, worth: Worth) -> Tensor:
        n = self.logits.shape[-1]
        every = one_hot(torch.arange(n, device=self.logits.device), n)
        with torch.no_grad():
            value = torch.stack([worth(action.expand(self.logits.shape)) for action in every], dim=-1)
        return (self.log_probs.exp() * value).sum(-1)

    def _over_drawn(self, worth: Worth, generator: torch.Generator) -> Tensor:
        """The gradient is that of `_over_all` on average: each draw is judged by the mean of the others (Kool et al.
        2019, leave-one-out REINFORCE)."""
        drawn = [self.sample(generator) for _ in range(DRAWN)]
        with torch.no_grad():
            value = torch.stack([worth(one_hot(action, self.logits.shape[-1])) for action in drawn])
        log_prob = torch.stack([self.log_prob(action) for action in drawn])
        climb = ((value - value.mean(0)) * log_prob).sum(0) / (DRAWN - 1)
        return value.mean(0) + climb - climb.detach()

    def relaxed(self, generator: torch.Generator) -> Tensor:
        """`(..., n)` one-hot samples whose gradient is that of a softmax: straight-through Gumbel-softmax (Jang et
        al. 2017, section 2.2), at temperature 1."""
        soft = torch.softmax(self.log_probs + self._gumbel(generator), dim=-1)
        return one_hot(soft.argmax(dim=-1), soft.shape[-1]) + soft - soft.detach()

    def smoothed(self, noise: float, clip: float, generator: torch.Generator) -> Tensor:
        """`(..., n)` one-hot samples: a stochastic policy is its own noise, without any the likeliest action."""
        return one_hot(self.sample(generator) if noise else self.mode(), self.logits.shape[-1])

    def _gumbel(self, generator: torch.Generator) -> Tensor:
        return torch.empty_like(self.log_probs).exponential_(generator=generator).log().neg()

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
        return (self.free - self.free.mean(dim=-1, keepdim=True)).square().mean(dim=-1)


class MultiCategorical:
    """Several independent choices at once: choice k is one of `sizes[k]`; `logits (..., sum(sizes))`."""

    def __init__(self, logits: Tensor, sizes: Sequence[int]) -> None:
        self.logits = logits
        self.choices = [Categorical(part) for part in logits.split(list(sizes), dim=-1)]

    def sample(self, generator: torch.Generator) -> Tensor:
        """`(..., K)` int64."""
        return torch.stack([choice.sample(generator) for choice in self.choices], dim=-1)

    def uniform(self, generator: torch.Generator) -> Tensor:
        """`(..., K)` int64."""
        return torch.stack([choice.uniform(generator) for choice in self.choices], dim=-1)

    def expected(self, worth: Worth, generator: torch.Generator) -> Tensor:
        """`(...)` mean over choices of what each is worth where the others are drawn; each has its whole gradient."""
        drawn = [one_hot(choice.sample(generator), choice.logits.shape[-1]) for choice in self.choices]
        apart = [partial(_beside, worth, drawn[:k], drawn[k + 1 :]) for k in range(len(drawn))]
        found = [choice.expected(own, generator) for choice, own in zip(self.choices, apart, strict=True)]
        total = torch.stack(found).sum(0)
        return total + (total / len(found) - total).detach()

    def relaxed(self, generator: torch.Generator) -> Tensor:
        """`(..., sum(sizes))` one-hot samples side by side, with the gradient of :meth:`Categorical.relaxed`."""
        return torch.cat([choice.relaxed(generator) for choice in self.choices], dim=-1)

    def smoothed(self, noise: float, clip: float, generator: torch.Generator) -> Tensor:
        """`(..., sum(sizes))` one-hot samples side by side."""
        return torch.cat([choice.smoothed(noise, clip, generator) for choice in self.choices], dim=-1)

    def mode(self) -> Tensor:
        """`(..., K)` int64."""
        return torch.stack([choice.mode() for choice in self.choices], dim=-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """`(...)` of int64 actions `(..., K)`: independent choices multiply."""
        pairs = zip(self.choices, action.unbind(-1), strict=True)
        return torch.stack([choice.log_prob(part) for choice, part in pairs]).sum(0)

    def entropy(self) -> Tensor:
        """`(...)` nats, summed over choices."""
        return torch.stack([choice.entropy() for choice in self.choices]).sum(0)

    def penalty(self) -> Tensor:
        """`(...)` mean square of the centred logits, mean over choices."""
        return torch.stack([choice.penalty() for choice in self.choices]).mean(0)


def _beside(worth: Worth, before: Sequence[Tensor], after: Sequence[Tensor], choice: Tensor) -> Tensor:
    """What one encoded `choice (..., n)` is worth between others."""
    return worth(torch.cat([*before, choice, *after], dim=-1))


class Gaussian:
    """Independent normals in the units of the environment; the plain head, clipped at the bounds outside."""

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean = mean  # (..., D)
        self.log_std = log_std.expand_as(mean).contiguous()  # (..., D), since `(D,)` would be slow beside short rows

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
        return (self.log_std + 0.5 + LOG_SQRT_2PI).sum(dim=-1)

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
        """`(...)` nats: the normal's entropy plus E[ln tanh'(u)] = 2 (ln 2 - E[u] - E[softplus(-2u)]).

        The last is by quadrature, without noise: exact to 1e-2 up to a deviation of 1, to 0.1 up to 2.
        """
        nodes, weights = _quadrature(self.log_std.dtype, self.log_std.device)
        u = self.mean.flatten() + nodes.unsqueeze(1) * self.log_std.exp().flatten()  # (5, ...)
        soft = (weights @ softplus(-2 * u)).view_as(self.mean)
        return super().entropy() + 2 * (math.log(2) - self.mean - soft).sum(dim=-1)


class Deterministic:
    """tanh of `pre (..., D)`, the deterministic policy of DDPG; raw actions are the canonical ones in [-1, 1]."""

    def __init__(self, pre: Tensor, noise: float | Tensor) -> None:
        self.pre, self.noise = pre, noise  # deviation of exploration, in half-ranges

    def sample(self, generator: torch.Generator) -> Tensor:
        """`(..., D)` with Gaussian noise, kept within the bounds."""
        drawn = torch.empty_like(self.pre).normal_(generator=generator)
        return torch.tanh(self.pre).add_(self.noise * drawn).clamp_(-1, 1)

    def uniform(self, generator: torch.Generator) -> Tensor:
        """`(..., D)` in [-1, 1]."""
        return torch.empty_like(self.pre).uniform_(-1, 1, generator=generator)

    def mode(self) -> Tensor:
        """`(..., D)`."""
        return torch.tanh(self.pre)

    def expected(self, worth: Worth, generator: torch.Generator) -> Tensor:
        """`(...)` what the one action is worth, with the critic's slope there (Silver et al. 2014, eq. 9)."""
        return worth(torch.tanh(self.pre))

    def relaxed(self, generator: torch.Generator) -> Tensor:
        """`(..., D)`."""
        return torch.tanh(self.pre)

    def smoothed(self, noise: float, clip: float, generator: torch.Generator) -> Tensor:
        """`(..., D)` with clipped noise (Fujimoto et al. 2018, eq. 14)."""
        mode = torch.tanh(self.pre)
        if not noise:
            return mode
        drawn = torch.empty_like(mode).normal_(0, noise, generator=generator).clamp_(-clip, clip)
        return (mode + drawn).clamp_(-1, 1)

    def penalty(self) -> Tensor:
        """`(...)` mean square before the tanh."""
        return self.pre.square().mean(dim=-1)


@cache
def _quadrature(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Nodes and weights `(5,)`, brought to the device once."""
    return torch.tensor(NODES, dtype=dtype, device=device), torch.tensor(WEIGHTS, dtype=dtype, device=device)


def one_hot(action: Tensor, n: int) -> Tensor:
    """`(..., n)` float32 of int64 `(...)`; torch's own would wait for the device."""
    return (action.unsqueeze(-1) == torch.arange(n, device=action.device)).to(torch.float32)


def log_slope(u: Tensor) -> Tensor:
    """ln(1 - tanh(u)^2) elementwise, without the cancellation that makes it -inf beyond |u| = 9."""
    return 2 * (math.log(2) - u - softplus(-2 * u))


def bounded_log_std(free: Tensor) -> Tensor:
    """A free parameter as a log deviation in [-5, 2], smoothly: a hard clamp would end its gradient at the bound."""
    return LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (torch.tanh(free) + 1)


def free_log_std(log_std: float) -> float:
    """The inverse of :func:`bounded_log_std`."""
    return math.atanh(2 * (log_std - LOG_STD_MIN) / (LOG_STD_MAX - LOG_STD_MIN) - 1)
