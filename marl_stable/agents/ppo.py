"""PPO's objective (Schulman et al. 2017) for a group of agents, as pure functions of tensors and numbers.

Shapes: B rows of a batch, A agents of one group, O observation features, S features of the joint observation,
D action features. Chunks: N of L steps, M features of memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from marl_stable import distributed
from marl_stable.monitor.signals.values import ratios
from marl_stable.networks.heads import Distribution, approx_kl
from marl_stable.normalize import robust, sampled
from marl_stable.rows import percentile

ADVANTAGE_WINSOR = 5.0  # robust deviations
OUTLIERS = 0.01  # of a batch's steps; what more of them have is a rare event, not a mishap
ROUNDING = 1e-4  # of the mean: a smaller deviation is none
POLICY_FIGURES = ("losses/actor", "losses/entropy", "losses/approx_kl", "losses/clip_fraction")


class Past(NamedTuple):
    """What recurrent networks remembered before the first step of N chunks of L steps."""

    actor: Tensor  # (N, A, M)
    critic: Tensor  # (N, M), or (N, A, M) for a critic that is local or pools
    begins: Tensor  # (L, N) bool: an episode begins at this step; in a whole batch (T, E)


class Batch(NamedTuple):
    """Rows to learn from; `obs` and `critic_input` are normalised, `value` and `target` in the critic's units."""

    obs: Tensor  # (B, A, O)
    critic_input: Tensor  # (B, S), or (B, A, O) for a local critic
    action: Tensor  # (B, A) or (B, A, D), raw
    log_prob: Tensor  # (B, A) when the action was taken
    advantage: Tensor  # (B, A)
    value: Tensor  # (B, A) before the update
    target: Tensor  # (B, A)
    alive: Tensor  # (B, A) 1 where the agent acted
    past: Past | None = None  # where networks are recurrent: then rows are steps of chunks, time by time

    def rows(self, index: Tensor) -> Batch:
        """The rows `index (N,)`, without a past."""
        return Batch._make([*(tensor.index_select(0, index) for tensor in self[:-1]), None])


class Terms(NamedTuple):
    """What a minibatch's objective is made of, and who acted; all `(B, A)`, and no longer differentiable."""

    gain: Tensor
    entropy: Tensor
    log_ratio: Tensor
    alive: Tensor


def masked_mean(x: Tensor, alive: Tensor, share: bool) -> Tensor:
    """Mean over active entries. With one network per agent, the sum of each agent's own mean: no agent's gradient
    depends on how many others there are or for how long they lived."""
    if share:
        return (x * alive).sum() / _entries(alive.sum())
    return ((x * alive).sum(0) / _entries(alive.sum(0))).sum()


def _entries(count: Tensor) -> Tensor:
    """What to divide a sum over `count` entries by; where several processes have some each, their mean number.

    The mean of all processes' gradients is then that of one which has all entries.
    """
    return distributed.mean(count).clamp_min(1 / distributed.world_size())


def policy_loss(
    policy: Distribution,
    batch: Batch,
    clip_coef: float,
    entropy_coef: float | Tensor,
    action_penalty: float,
    share: bool,
) -> tuple[Tensor, Terms]:
    """PPO's clipped objective (Schulman et al. 2017, eq. 7) with an entropy bonus, to be minimised.

    L = -E[min(r A, clip(r, 1 - eps, 1 + eps) A)] - c E[H] + p E[u^2]   with   r = pi(a|o) / pi_old(a|o).
    """
    log_ratio = policy.log_prob(batch.action) - batch.log_prob
    ratio = log_ratio.exp()
    gain = torch.minimum(ratio * batch.advantage, ratio.clamp(1 - clip_coef, 1 + clip_coef) * batch.advantage)  # (B, A)
    entropy = policy.entropy()
    objective = gain + entropy_coef * entropy
    if action_penalty:
        objective = objective - action_penalty * policy.penalty()
    loss = -masked_mean(objective, batch.alive, share)
    return loss, Terms(gain.detach(), entropy.detach(), log_ratio.detach(), batch.alive)


@torch.no_grad()
def policy_figures(steps: Sequence[Terms], clip_coef: float) -> list[dict[str, Tensor]]:
    """What is told of the policy at each of some steps: all at once, in fewer and larger operations."""
    gain, entropy, log_ratio, alive = (pad_sequence(list(x), batch_first=True) for x in zip(*steps, strict=True))
    clipped = (log_ratio.expm1().abs() > clip_coef).to(gain.dtype)
    seen = torch.stack([-gain, entropy, approx_kl(log_ratio), clipped]) * alive
    means = seen.sum((2, 3)) / alive.sum((1, 2)).clamp_min(1)
    found = dict(zip(POLICY_FIGURES, means, strict=True)) | ratios(log_ratio, alive)
    each = zip(*(values.unbind() for values in found.values()), strict=True)
    return [dict(zip(found, values, strict=True)) for values in each]


def root_mean_square(advantage: Tensor, alive: Tensor) -> Tensor:
    """Root mean square over active entries; NaN where all are 0."""
    square = (advantage * alive).square().sum() / alive.sum().clamp_min(1)
    return torch.where(square > 0, square, torch.nan).sqrt()


def value_loss(value: Tensor, batch: Batch, clip_value: float | None, share: bool) -> Tensor:
    """Half the mean squared error (Schulman et al. 2017, eq. 9), optionally max(unclipped, clipped).

    The maximum, and not the clipped error alone, whose gradient is zero wherever the value has moved away.
    """
    error = (value - batch.target).square()
    if clip_value is not None:
        near = batch.value + (value - batch.value).clamp(-clip_value, clip_value)
        error = torch.maximum(error, (near - batch.target).square())
    return 0.5 * masked_mean(error, batch.alive, share)


def normalized_advantage(advantage: Tensor, alive: Tensor) -> Tensor:
    """Mean 0 and deviation 1 over a group's active steps `(B, A)`, at most a hundredth of them winsorised.

    Those lie beyond five robust deviations, and beyond what the others reach: where little is decided in most steps,
    and much in few, nearly all of the batch is noise, and its deviation says nothing of what is at stake.
    What is not a number has no part in either and stays so, to be refused with its own agent's step. Steps are those of
    all processes that train together.
    """
    known = (alive > 0) & ~advantage.isnan()
    some = sampled(advantage.reshape(-1, 1), known.reshape(-1, 1))
    centre, scale = robust(some)
    others_reach = percentile((some - centre).abs(), 1 - OUTLIERS, ~some.isnan(), above=1).nan_to_num()
    reach = torch.maximum(ADVANTAGE_WINSOR * scale, others_reach)
    advantage = torch.where(alive > 0, torch.clamp(advantage, centre - reach, centre + reach), 0.0)
    count = distributed.total(known.sum()).clamp_min(1)
    mean = distributed.total(torch.where(known, advantage, 0.0).sum()) / count
    var = distributed.total(torch.where(known, (advantage - mean).square(), 0.0).sum()) / count
    floor = (ROUNDING * mean.abs()).clamp_min(1e-8)  # where all are equal, what is left of them is rounding
    return (advantage - mean) / torch.maximum(var.sqrt(), floor)
