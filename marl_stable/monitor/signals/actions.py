"""How the actions of each agent behave: what its policy answers to probe observations, and what it did.

Shapes: T steps, E copies, P probe observations, A agents, n discrete actions, D action features, O observation
features. Actions of Box groups come in canonical units: -1 and 1 are the bounds. Results are `(A,)` or `(A, D)`, still
on the device: agents stay apart until they are logged, since one that is stuck hides in a mean.

`alive`, `(P, A)` or `(T, E, A)`, is true where an agent acted; None: always. NaN means that there was nothing to see.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marl_stable import rows

SATURATED = 0.99  # of the way to a bound; the tanh passes 2% of the gradient there
SAME = 0.01  # of the range: two continuous actions that close are one
STUCK = 0.05  # of the half-range: a deviation below it is no choice
HIGH = 0.95  # share of rows that a percentile covers
TINY = 1e-30  # keeps logarithms and divisions of nothing finite
ROUNDS = 30  # of fitting constant preferences under masks; 10 are enough where masks are drawn at random

# ---- what discrete policies answer


def discrete_responsiveness(probs: Tensor, legal: Tensor | None = None, alive: Tensor | None = None) -> Tensor:
    """What observations tell of actions, as a share of the most they could: `(A,)` from `probs (P, A, n)`.

    H(mean pi) - mean H(pi), over ln n. With masks `legal (P, A, n)` it is the mean information by which pi departs from
    the best policy that knows nothing but which actions are legal, over ln of their number: where masks change, so do
    the actions of a policy that is deaf to all else. Observations that leave no choice do not count.
    """
    counts = _with_choice(probs, legal, alive)
    preferred = rows.mean(probs, counts) if legal is None else _preferences(probs, legal, counts)  # (A, n)
    offered = preferred.expand_as(probs) if legal is None else preferred * legal
    deaf = offered / offered.sum(-1, keepdim=True).clamp_min(TINY)
    told = (probs * (probs.clamp_min(TINY).log() - deaf.clamp_min(TINY).log())).sum(-1)
    return rows.mean(told, counts).clamp_min(0) / rows.mean(_options(probs, legal).log(), counts)


def discrete_saturation(probs: Tensor, alive: Tensor | None = None) -> Tensor:
    """Share of observations at which one of several actions has over 99% of the probability; `probs (P, A, n)`."""
    return rows.mean(probs.amax(-1) > SATURATED, _with_choice(probs, None, alive))


def discrete_entropy(probs: Tensor, legal: Tensor | None = None, alive: Tensor | None = None) -> Tensor:
    """Mean entropy over its maximum, that of choosing among all legal actions alike; where there is a choice."""
    counts = _with_choice(probs, legal, alive)
    entropy = -(probs * probs.clamp_min(TINY).log()).sum(-1)
    return rows.mean(entropy / _options(probs, legal).log(), counts)


def logit_gap(logits: Tensor, legal: Tensor | None = None, alive: Tensor | None = None) -> Tensor:
    """95th percentile of the distance between the two best legal actions' `logits (P, A, n)`, where there are two."""
    if logits.shape[-1] == 1:
        return torch.full_like(logits[0, :, 0], torch.nan)
    offered = logits if legal is None else torch.where(legal, logits, -torch.inf)
    best, second = offered.topk(2, dim=-1).values.unbind(-1)
    return rows.percentile(best - second, HIGH, _with_choice(logits, legal, alive))


def legal_choices(legal: Tensor, alive: Tensor | None = None) -> Tensor:
    """Mean number of legal actions; `legal (P, A, n)`."""
    return rows.mean(legal.sum(-1), alive)


def _options(like: Tensor, legal: Tensor | None) -> Tensor:
    """`(P, A)` how many actions there are to choose from."""
    return torch.full_like(like[..., 0], like.shape[-1]) if legal is None else legal.sum(-1).to(like.dtype)


def _with_choice(like: Tensor, legal: Tensor | None, alive: Tensor | None) -> Tensor:
    """`(P, A)` where the agent is there and has a choice."""
    choice = _options(like, legal) > 1
    return choice if alive is None else choice & alive


def _preferences(probs: Tensor, legal: Tensor, counts: Tensor) -> Tensor:
    """`(A, n)` weights w of the deaf policy pi_a ~ w_a over legal actions that is likeliest to do what `probs` do.

    Luce's choice model, fitted by minorisation (Hunter 2004, eq. 30): w_a = sum pi_a / sum legal_a / sum_legal w.
    """
    counted = legal * counts.unsqueeze(-1)
    chosen = (probs * counted).sum(0)
    weights = torch.ones_like(chosen)
    for _ in range(ROUNDS):
        offered = (weights * legal).sum(-1, keepdim=True).clamp_min(TINY)
        weights = chosen / (counted / offered).sum(0).clamp_min(TINY)
        weights = weights / weights.sum(-1, keepdim=True).clamp_min(TINY)
    return weights


# ---- what continuous policies answer


def deterministic_responsiveness(mode: Tensor, alive: Tensor | None = None) -> Tensor:
    """`(A, D)` deviation of the greedy action over observations, in half-ranges; `mode (P, A, D)`."""
    return rows.deviation(mode, alive)


def stochastic_responsiveness(mean: Tensor, variance: Tensor, alive: Tensor | None = None) -> Tensor:
    """`(A, D)` share of the variance of actions that observations explain: Var(mean) / (Var(mean) + E[variance]).

    `mean` and `variance (P, A, D)` are those of the action that is executed, in half-ranges: before the tanh, a mean
    that goes from 5 to 9 looks lively and does nothing. Actions closer than 1% of the range count as one.
    """
    explained = rows.deviation(mean, alive).square()
    return explained / (explained + rows.mean(variance, alive) + (2 * SAME) ** 2)


def continuous_saturation(mode: Tensor, alive: Tensor | None = None) -> Tensor:
    """`(A, D)` share of greedy actions within 1% of a bound; `mode (P, A, D)`."""
    return rows.mean(mode.abs() > SATURATED, alive)


def preactivation(u: Tensor, alive: Tensor | None = None) -> Tensor:
    """`(A, D)` 95th percentile of |u|, what the tanh is given; `u (P, A, D)`."""
    return rows.percentile(u.abs(), HIGH, alive)


def attenuation(u: Tensor, alive: Tensor | None = None) -> Tensor:
    """`(A, D)` mean slope 1 - tanh(u)^2, exact where tanh rounds to 1; `u (P, A, D)`."""
    return rows.mean(u.cosh().square().reciprocal(), alive)


# ---- what policies look at


def feature_importance(slope: Tensor, seen: Tensor, alive: Tensor | None = None) -> Tensor:
    """`(A, O)` shares of features in how answers vary: mean |d answer / d feature| times the feature's deviation.

    `slope` and `seen` are `(P, A, O)`. NaN for an agent whose answers depend on nothing.
    """
    reach = rows.mean(slope.abs(), alive) * rows.deviation(seen, alive)
    return reach / reach.sum(-1, keepdim=True)


# ---- what was done


def repeat_ratio(action: Tensor, ended: Tensor, alive: Tensor | None = None) -> Tensor:
    """Share of an agent's actions that equal its last one in the same episode.

    `action (T, E, A)` or `(T, E, A, K)` int64, or `(T, E, A, D)` canonical; `ended (T, E, A)` bool where the episode
    ends after the step.
    """
    last, has_last = _own_last(ended, alive)
    parts = action if action.dim() > ended.dim() else action.unsqueeze(-1)
    before = parts.gather(0, last.unsqueeze(-1).expand_as(parts))
    alike = parts == before if action.dtype == torch.int64 else (parts - before).abs() < 2 * SAME
    return (alike.all(-1) & has_last).sum((0, 1)) / has_last.sum((0, 1)).clamp_min(1)


def _own_last(ended: Tensor, alive: Tensor | None) -> tuple[Tensor, Tensor]:
    """`(T, E, A)` the step of each agent's last action before each step, and whether it was in the same episode."""
    acted = torch.ones_like(ended) if alive is None else alive
    step = torch.arange(len(ended), device=ended.device).reshape(-1, 1, 1)
    until = torch.where(acted, step, -1).cummax(0).values  # the latest step with an action, this one included
    last = torch.cat([torch.full_like(until[:1], -1), until[:-1]])
    episode = ended.cumsum(0) - ended.long()  # how many ended before the step
    known = last.clamp_min(0)
    return known, acted & (last >= 0) & (episode == episode.gather(0, known))


def discrete_sameness(action: Tensor, n: int, alive: Tensor | None = None) -> Tensor:
    """Share of the most frequent action; `action (T, E, A)` int64. NaN where there is only one."""
    if n == 1:
        return torch.full_like(action[0, 0], torch.nan, dtype=torch.float32)
    counts = _counts(action, n, alive)
    return counts.amax(-1) / counts.sum(-1).clamp_min(1)


def continuous_sameness(action: Tensor, alive: Tensor | None = None) -> Tensor:
    """Share of dimensions whose executed actions deviate by less than 5% of the half-range; `action (T, E, A, D)`."""
    acted = None if alive is None else alive.flatten(0, 1)
    return (rows.deviation(action.flatten(0, 1), acted) < STUCK).float().mean(-1)


def bound_clipped(raw: Tensor, executed: Tensor, alive: Tensor | None = None) -> Tensor:
    """`(A, D)` share of actions that bounds changed: `raw` to `executed`, both `(T, E, A, D)`."""
    acted = None if alive is None else alive.flatten(0, 1)
    return rows.mean((raw != executed).flatten(0, 1), acted)


def action_counts(action: Tensor, n: int | None, bins: int = 32, alive: Tensor | None = None) -> Tensor:
    """Histogram of every agent and dimension: `(A, n)` of int64 `(T, E, A)`, or `(A, D, bins)` over [-1, 1]."""
    if n is not None:
        return _counts(action, n, alive)
    place = ((action.flatten(0, 1) + 1) * (0.5 * bins)).long().clamp(0, bins - 1).permute(1, 2, 0)  # (A, D, N)
    counts = torch.zeros(*place.shape[:2], bins, dtype=torch.int64, device=action.device)
    acted = torch.ones_like(place) if alive is None else alive.flatten(0, 1).T.unsqueeze(1).expand_as(place).long()
    return counts.scatter_add_(-1, place, acted)


def _counts(action: Tensor, n: int, alive: Tensor | None) -> Tensor:
    """`(A, n)` how often each action was taken."""
    acted = (action == a if alive is None else (action == a) & alive for a in range(n))
    return torch.stack([at.sum((0, 1)) for at in acted], dim=-1)
