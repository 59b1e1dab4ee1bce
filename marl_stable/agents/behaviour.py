"""How a group's actions behave, for every kind of action: the monitor's signals, asked in the right way.

Shapes: T steps, E copies, P probe observations, A agents, D action features or K choices, O observation features,
n options. Signals are `(A,)`, or `(A, D)` where a policy's features are told apart. NaN: there was nothing to see.
"""

from __future__ import annotations

import functools

import torch
from numpy.polynomial.hermite_e import hermegauss
from torch import Tensor

from marl_stable.monitor.signals import actions
from marl_stable.monitor.signals.data import MOST_COLUMNS
from marl_stable.networks.actors import PolicyBody
from marl_stable.networks.heads import Answer, Categorical, Deterministic, Gaussian, MultiCategorical, SquashedGaussian
from marl_stable.types import ActionSpec, Box, Discrete, Group

PROBE = 256  # observations at which the policy is asked how it responds
LARGEST_GAP = 10.0  # between the two best logits; beyond it probabilities have next to no slope in float32
_NODES, _WEIGHTS = hermegauss(7)  # quadrature for a standard normal


def action_signals(
    actor: PolicyBody,
    answer: Answer,
    raw: Tensor,
    ended: Tensor,
    *,
    alive: Tensor | None = None,
    asked: Tensor | None = None,
    probe: bool = False,
) -> dict[str, Tensor]:
    """From the policy's `answer` to P observations, and raw actions with where episodes `ended (T, E, A)`.

    `alive (T, E, A)` is true where the agent acted, `asked (P, A)` the same of the probe's rows; None: everywhere.
    `probe`: with all "stability/NAME" signals of actions, else with those that are looked at in every iteration.
    """
    action = actor.canonical(raw)
    alike, lively = sameness(actor.action, action, alive), _liveliness(actor, answer, asked)
    found = {
        "actions/saturation": _saturation(actor, answer, asked).nan_to_num(),
        "actions/repeat_ratio": actions.repeat_ratio(action, ended, alive),
        "actions/responsiveness": lively.nan_to_num(),
        "sameness": alike.nan_to_num(),
    }
    if probe:
        named = {"sameness": alike, "responsiveness": lively} | _answers(actor, answer, asked)
        if isinstance(answer, Gaussian) and not isinstance(answer, SquashedGaussian):
            named["bound_clipped"] = actions.bound_clipped(raw, raw.clamp(actor.low, actor.high), alive)
        found |= {f"stability/{name}": value for name, value in named.items()}
    return found


def _saturation(actor: PolicyBody, answer: Answer, asked: Tensor | None) -> Tensor:
    if isinstance(answer, Categorical | MultiCategorical):
        return torch.stack([actions.discrete_saturation(_probs(x), asked) for x in _parts(answer)]).nanmean(0)
    return actions.continuous_saturation(actor.canonical(answer.mode()), asked).mean(-1)


def _liveliness(actor: PolicyBody, answer: Answer, asked: Tensor | None) -> Tensor:
    """How far the greedy action, or for discrete ones the distribution, varies with the observation."""
    if isinstance(answer, Categorical | MultiCategorical):
        parts = [actions.discrete_responsiveness(_probs(x), x.legal, asked) for x in _parts(answer)]
        return torch.stack(parts).nanmean(0)
    return actions.deterministic_responsiveness(actor.canonical(answer.mode()), asked).mean(-1)


def _answers(actor: PolicyBody, answer: Answer, asked: Tensor | None) -> dict[str, Tensor]:
    """What the answers alone say, by name; of discrete ones the responsiveness is known already."""
    if isinstance(answer, Categorical | MultiCategorical):
        return _chosen(answer, asked)
    mode = actor.canonical(answer.mode())
    found = {"saturation": actions.continuous_saturation(mode, asked)}
    if isinstance(answer, Deterministic):
        found["responsiveness"] = actions.deterministic_responsiveness(mode, asked)
        return found | _squashed(answer.pre, asked)
    assert isinstance(answer, Gaussian)
    found["responsiveness"] = actions.stochastic_responsiveness(*_moments(actor, answer), asked)
    found["log_std"] = answer.log_std[0]  # at whatever row
    if isinstance(answer, SquashedGaussian):
        return found | _squashed(answer.mean, asked)
    middle, half = (actor.high + actor.low) / 2, (actor.high - actor.low) / 2
    return found | {"preactivation": actions.preactivation((answer.mean - middle) / half, asked)}  # beyond 1: clipped


def _squashed(u: Tensor, asked: Tensor | None) -> dict[str, Tensor]:
    return {"preactivation": actions.preactivation(u, asked), "attenuation": actions.attenuation(u, asked)}


def _chosen(answer: Categorical | MultiCategorical, asked: Tensor | None) -> dict[str, Tensor]:
    """Several choices: their mean, and the widest gap of logits, which none of them should have."""
    parts = _parts(answer)
    gaps = [actions.logit_gap(x.logits, x.legal, asked) for x in parts]
    found = {
        "entropy": torch.stack([actions.discrete_entropy(_probs(x), x.legal, asked) for x in parts]).nanmean(0),
        "logit_gap": functools.reduce(torch.fmax, gaps),
    }
    legal = parts[0].legal
    return found if legal is None else found | {"legal_choices": actions.legal_choices(legal, asked)}


def _parts(answer: Categorical | MultiCategorical) -> list[Categorical]:
    return [answer] if isinstance(answer, Categorical) else answer.choices


def _probs(choice: Categorical) -> Tensor:
    return choice.log_probs.exp()


def _moments(actor: PolicyBody, answer: Gaussian) -> tuple[Tensor, Tensor]:
    """`(P, A, D)` mean and variance of the canonical action that is executed, behind the tanh or the clip."""
    std, mean, square = answer.log_std.exp(), 0.0, 0.0
    for x, weight in zip(_NODES.tolist(), (_WEIGHTS / _WEIGHTS.sum()).tolist(), strict=True):
        action = actor.canonical(answer.mean + x * std)
        mean, square = mean + weight * action, square + weight * action.square()
    assert isinstance(mean, Tensor)
    return mean, (square - mean.square()).clamp_min(0)


def feature_importance(actor: PolicyBody, seen: Tensor, alive: Tensor | None = None) -> Tensor:
    """`(A, O)` shares of normalised features `seen (P, A, O)` in how answers vary; with memory, those of first steps.

    One pass for all outputs: observation p is asked how output p modulo their number depends on it. Where there are
    more than 2,048 shares, the largest over agents, `(O,)`, or if they are still too many over all features, `()`.
    """
    seen, alive = seen[::2], None if alive is None else alive[::2]  # the dearest signal; half of a probe will do
    with torch.enable_grad():
        x = seen.detach().requires_grad_()
        outputs = _outputs(actor(x))  # (P, A, K)
        index = torch.arange(len(x), device=x.device).remainder(outputs.shape[-1])
        told = outputs.gather(-1, index.reshape(-1, 1, 1).expand(-1, outputs.shape[1], 1))
        (slope,) = torch.autograd.grad(told.sum(), x)
    shares = actions.feature_importance(slope, seen, alive)
    if shares.numel() > MOST_COLUMNS:
        shares = _largest(shares)
    return _largest(shares) if shares.numel() > MOST_COLUMNS else shares


def _largest(shares: Tensor) -> Tensor:
    """Over the first axis; NaN where all are."""
    return torch.where(shares.isnan().all(0), torch.nan, shares.nan_to_num().amax(0))


def _outputs(answer: Answer) -> Tensor:
    """What the answers are made of: actions before the tanh, which has no slope at its ends, or probabilities."""
    if isinstance(answer, Categorical | MultiCategorical):
        return torch.cat([_softened(x) for x in _parts(answer)], dim=-1)
    if isinstance(answer, Deterministic):
        return answer.pre
    assert isinstance(answer, Gaussian)
    return answer.mean


def _softened(choice: Categorical) -> Tensor:
    """`(P, A, n)` probabilities, at a temperature where one is so likely that they would have no slope; 0 where there
    is no choice."""
    n = choice.logits.shape[-1]
    if n == 1:
        return choice.logits * 0.0
    best, second = choice.logits.detach().topk(2, dim=-1).values.unbind(-1)
    has_choice = torch.ones_like(best, dtype=torch.bool) if choice.legal is None else choice.legal.sum(-1) > 1
    temperature = torch.where(has_choice, ((best - second) / LARGEST_GAP).clamp_min(1), 1.0)
    probs = torch.softmax(choice.logits / temperature.unsqueeze(-1), dim=-1)
    return torch.where(has_choice.unsqueeze(-1), probs, 0.0)


def sameness(spec: ActionSpec, action: Tensor, alive: Tensor | None = None) -> Tensor:
    """`(A,)` how alike canonical actions `(T, E, A)` or `(T, E, A, D)` are, of agents that acted: `alive (T, E, A)`."""
    if isinstance(spec, Box):
        return actions.continuous_sameness(action, alive)
    parts = _choices(spec, action)
    return torch.stack([actions.discrete_sameness(part, n, alive) for part, n in parts]).nanmean(0)


def action_counts(group: Group, action: Tensor, alive: Tensor | None = None) -> dict[str, Tensor]:
    """Counts of canonical actions of agents that acted, `agent/dimension -> (bins,)`."""
    if isinstance(group.action, Box):
        dimensions = list(actions.action_counts(action, None, alive=alive).unbind(1))
    else:
        dimensions = [actions.action_counts(part, n, alive=alive) for part, n in _choices(group.action, action)]
    return {f"{agent}/{d}": counts[a] for a, agent in enumerate(group.agents) for d, counts in enumerate(dimensions)}


def _choices(spec: ActionSpec, action: Tensor) -> list[tuple[Tensor, int]]:
    """Each choice's actions `(T, E, A)` with the number of its options."""
    if isinstance(spec, Discrete):
        return [(action, spec.n)]
    assert not isinstance(spec, Box)
    return list(zip(action.unbind(-1), spec.n, strict=True))
