"""How a group's actions behave, for every kind of action: the monitor's signals, asked in the right way.

Shapes: T steps, E copies, P probe observations, A agents, D action features or K choices. Every signal is `(A,)`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marl_stable.monitor import signals
from marl_stable.networks.actor_critic import PolicyBody
from marl_stable.networks.heads import Answer, Categorical, MultiCategorical
from marl_stable.types import ActionSpec, Box, Discrete, Group

PROBE = 256  # observations at which the policy is asked how it responds


def stride(rows: int) -> int:
    """Every how many-th of `rows` observations is a probe."""
    return max(1, rows // PROBE)


def action_signals(actor: PolicyBody, probe: Answer, raw: Tensor, ended: Tensor) -> dict[str, Tensor]:
    """From the policy's answers at P observations, and raw actions with where episodes `ended (T, E, A)`."""
    action = actor.canonical(raw)
    if isinstance(probe, Categorical | MultiCategorical):
        choices = [probe] if isinstance(probe, Categorical) else probe.choices
        probs = [choice.log_probs.exp() for choice in choices]
        responds = torch.stack([signals.discrete_responsiveness(p) for p in probs]).mean(0)
        saturated = torch.stack([signals.discrete_saturation(p) for p in probs]).mean(0)
    else:
        mode = actor.canonical(probe.mode())
        responds, saturated = signals.continuous_responsiveness(mode), signals.continuous_saturation(mode)
    return {
        "actions/saturation": saturated,
        "actions/repeat_ratio": signals.repeat_ratio(action, ended),
        "actions/responsiveness": responds,
        "sameness": sameness(actor.action, action),
    }


def sameness(spec: ActionSpec, action: Tensor) -> Tensor:
    """`(A,)` how alike canonical actions `(T, E, A)` or `(T, E, A, D)` are."""
    if isinstance(spec, Box):
        return signals.continuous_sameness(action)
    parts = _choices(spec, action)
    return torch.stack([signals.discrete_sameness(part, n) for part, n in parts]).mean(0)


def action_counts(group: Group, action: Tensor) -> dict[str, Tensor]:
    """Counts of canonical actions, `agent/dimension -> (bins,)`."""
    if isinstance(group.action, Box):
        dimensions = list(signals.action_counts(action, None).unbind(1))
    else:
        dimensions = [signals.action_counts(part, n) for part, n in _choices(group.action, action)]
    return {f"{agent}/{d}": counts[a] for a, agent in enumerate(group.agents) for d, counts in enumerate(dimensions)}


def _choices(spec: ActionSpec, action: Tensor) -> list[tuple[Tensor, int]]:
    """Each choice's actions `(T, E, A)` with the number of its options."""
    if isinstance(spec, Discrete):
        return [(action, spec.n)]
    assert not isinstance(spec, Box)
    return list(zip(action.unbind(-1), spec.n, strict=True))
