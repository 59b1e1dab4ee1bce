"""Tensors to numbers: what critics say, beside what came.

Shapes: T steps, E copies, N rows, A agents, K critics, U features of an encoded action. Every result is `(A,)`, still
on the device, and NaN where there is nothing to judge by. Values, rewards and returns are in units of raw reward.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from marl_stable import rows
from marl_stable.returns import explained_variance, finished, gae, gae_by_turns

TOLERANCE = 0.1  # of the width of what is feasible
TINY = 1e-12
SAMPLE = 2_048  # rows from which a critic is judged


class Flow(NamedTuple):
    """Consecutive steps, and what a critic said of them; all `(T, E, A)`."""

    reward: Tensor
    value: Tensor
    next_value: Tensor  # of what the action led to, also at an episode's end
    terminated: Tensor  # bool
    ended: Tensor  # bool: terminated or truncated
    alive: Tensor  # bool: the agent acted


class Judged(NamedTuple):
    """Steps with what a critic said of them and what came."""

    value: Tensor  # (N, A)
    reward: Tensor  # (N, A)
    error: Tensor  # (N, A) r + gamma V(s') - V(s)
    outcome: Tensor  # (N, A) Monte-Carlo return
    known: Tensor  # (N, A) bool: the outcome is known, the episode's end being among the steps
    learned: Tensor  # (N, A) bool: the agent acted, and what followed is known

    def some(self) -> Judged:
        """Rows spread over all."""
        some = rows.spread(len(self.value), SAMPLE, self.value.device)
        return Judged._make(x.index_select(0, some) for x in self)

    def times(self, unit: Tensor) -> Judged:
        """The same in units `1 / unit (A,)`."""
        return Judged._make([*(x * unit for x in self[:4]), *self[4:]])


def judged(flow: Flow, gamma: float, turn_based: bool) -> Judged:
    """From the steps of a window.

    Where turn-based, rewards are already summed from an agent's turn to its next, and `next_value` is of what it saw
    then; what it saw at an episode's end counts where the episode ended.
    """
    reward, value, next_value, terminated, ended, alive = flow
    error = td_error(reward, value, next_value, terminated, gamma)
    nothing = torch.zeros_like(value)  # with values of 0 an advantage is the return
    beyond = (nothing, next_value.masked_fill(~ended, 0.0), terminated, ended)
    if turn_based:
        outcome, _ = gae_by_turns(reward, *beyond, alive, gamma, 1.0)
    else:
        outcome = gae(reward, *beyond, gamma, 1.0)
    known = alive & finished(ended)
    return Judged._make(x.flatten(0, 1) for x in (value, reward, error, outcome, known, alive))


def td_error(reward: Tensor, value: Tensor, next_value: Tensor, terminated: Tensor, gamma: float) -> Tensor:
    """r + gamma (1 - terminated) V(s') - V(s)."""
    return reward + gamma * next_value.masked_fill(terminated, 0.0) - value


def value_signals(seen: Judged) -> dict[str, Tensor]:
    """How a critic's values fit what came.

    Values and returns are compared at the same steps, those whose return is known; values are of all steps where none
    is. The rest is over all steps that are learned from.
    """
    known, learned = seen.known, seen.learned
    value_mean, value_std = _moments(seen.value, torch.where(known.any(0), known, learned))
    return_mean, return_std = _moments(seen.outcome, known)
    bootstrap = torch.where(learned, seen.error + seen.value - seen.reward, 0.0)  # gamma V(s')
    reward_var = rows.deviation(seen.reward, learned).square()
    found = {
        "value_mean": value_mean,
        "value_std": value_std,
        "return_mean": return_mean,
        "return_std": return_std,
        "explained_variance": explained_variance(
            torch.where(known, seen.outcome, 0.0), torch.where(known, seen.value, 0.0), known.to(seen.value.dtype)
        ),
        "td_scale": _rms(seen.error, learned) / return_std,
        "reward_share": reward_var / (reward_var + rows.deviation(bootstrap, learned).square()),
    }
    return {f"stability/{name}": value for name, value in found.items()}


def infeasible(value: Tensor, counts: Tensor, low: Tensor, high: Tensor, gamma: float) -> dict[str, Tensor]:
    """Share of values `(N, A)` that no rewards from `low` to `high (A,)` could bring, by a tenth of the width at least.

    An end brings rewards of 0 for ever, and values begin near 0, so that 0 is always among the rewards.
    """
    low, high = (bound.to(value.dtype) / max(1 - gamma, TINY) for bound in (low.clamp_max(0), high.clamp_min(0)))
    reach = TOLERANCE * (high - low)
    within = (value >= low - reach) & (value <= high + reach)  # false for NaN
    return {"stability/infeasible": rows.mean(~within, counts)}


# ---- critics of actions


def slopes(gradient: Tensor, counts: Tensor, unit: Tensor) -> dict[str, Tensor]:
    """What the critic has to teach the actor: how far its values change over half the range of the agent's action.

    `gradient (K, N, A, U)` of each agent's own value by its own canonical action, at the policy's, for each of K
    critics; `unit (A,)` is the deviation of these values.
    """
    size = torch.linalg.vector_norm(gradient[0], dim=-1)  # (N, A)
    found = {"action_slope": rows.mean(size, counts) / unit, "slope_agreement": agreement(gradient, counts)}
    return {f"stability/{name}": value for name, value in found.items()}


def spreads(worth: Tensor, action: Tensor, legal: Tensor, counts: Tensor, unit: Tensor) -> dict[str, Tensor]:
    """The same for discrete actions: the slope is half the distance between best and worst choice, and regret the
    share of that distance by which the policy's own, one-hot `action (N, A, U)`, falls short of the best.

    `worth (K, N, A, U)` is what each choice would be worth, all else as it is, where it is `legal (N, A, U)`.
    """
    counts = counts & legal.any(-1)
    best = worth[0].masked_fill(~legal, -torch.inf).amax(-1)
    worst = worth[0].masked_fill(~legal, torch.inf).amin(-1)
    chosen = (worth[0] * action).sum(-1) / action.sum(-1)
    distance = rows.mean(best - worst, counts)
    centre = torch.where(legal, worth, 0.0).sum(-1, keepdim=True) / legal.sum(-1, keepdim=True).clamp_min(1)
    better = torch.where(legal, worth - centre, 0.0)
    found = {
        "action_slope": 0.5 * distance / unit,
        "regret": rows.mean(best - chosen, counts) / distance.clamp_min(TINY),
        "slope_agreement": agreement(better, counts),
    }
    return {f"stability/{name}": value for name, value in found.items()}


def agreement(direction: Tensor, counts: Tensor) -> Tensor:
    """Cosine of the directions `(K, N, A, U)` of two critics, mean over rows; of a single one, that between the mean
    directions of the first and the second half of the rows."""
    if len(direction) > 1:
        return rows.mean(torch.cosine_similarity(direction[0], direction[1], dim=-1), counts)
    weighted = torch.where(counts.unsqueeze(-1), direction[0], 0.0)
    first, second = (half.sum(0) for half in weighted.tensor_split(2))
    return torch.cosine_similarity(first, second, dim=-1)


def gap(chosen: Tensor, done: Tensor, counts: Tensor, spread: Tensor) -> dict[str, Tensor]:
    """How much more the policy's actions are worth to the critic than the replay's, `(N, A)` both, in units of `spread
    (A,)`, or of the values' deviation where that is NaN."""
    unit = torch.where(spread.isnan(), rows.deviation(done, counts), spread)
    return {"stability/q_gap": rows.mean(chosen - done, counts) / unit}


def age_ratio(oldest: Tensor, newest: Tensor, old: Tensor, new: Tensor) -> dict[str, Tensor]:
    """Root mean square of errors `oldest (N, A)` over that of `newest`; agents were alive where `old` and `new`."""
    return {"stability/td_age_ratio": _rms(oldest, old) / _rms(newest, new)}


# ---- ratios of policy gradients


def ratios(log_ratio: Tensor, alive: Tensor) -> dict[str, Tensor]:
    """How far a policy has moved from the one that collected, `(..., A)` at minibatches `(..., N, A)`; `first_ratio` is
    for the first of an update, before any step."""
    log_ratio = log_ratio * alive
    low, high = log_ratio.aminmax(dim=-2)
    weight = (log_ratio - high.unsqueeze(-2)).exp() * alive  # the effective size does not depend on the unit
    effective = weight.sum(-2).square() / (weight.square().sum(-2) * alive.sum(-2))
    return {
        "stability/log_ratio_peak": torch.maximum(high, -low),
        "stability/effective_samples": effective,
        "stability/first_ratio": torch.maximum(high.expm1(), -low.expm1()),
    }


def _moments(x: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    return rows.mean(x, counts), rows.deviation(x, counts)


def _rms(x: Tensor, counts: Tensor) -> Tensor:
    return rows.mean(x.square(), counts).sqrt()
