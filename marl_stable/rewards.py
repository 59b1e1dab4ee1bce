"""The reward that agents learn from where their team shares it (`env.reward mean`).

Shapes: E copies, A agents of a group, M agents of a team, K reward terms.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from marl_stable.types import EnvSpec, PerGroup, Step


def team_mean(step: Step, spec: EnvSpec, unpaid: PerGroup | None = None) -> Step:
    """`step` with the mean over its team as each agent's reward; nothing else changes.

    The mean is over those of the team, whatever their groups, that acted in the step, and they are who gets it. In a
    turn-based environment, where one agent acts and all may be rewarded, it is over the whole team and for all of it.
    Who is `unpaid (E, A)`, its own reward not known, does not count in the mean.

    The terms become means just so, in the columns of :func:`shared_terms`.
    """
    shared, shared_parts, columns = dict(step.reward), dict(step.terms), shared_terms(spec)
    for team in spec.teams:
        names = [group.name for group in spec.groups if group.team == team]
        counted = {name: torch.ones_like(step.alive[name]) if spec.turn_based else step.alive[name] for name in names}
        known = counted if unpaid is None else {name: counted[name] & ~unpaid[name] for name in names}
        member = torch.cat([known[name] for name in names], dim=1)  # (E, M)
        reward = torch.cat([step.reward[name] for name in names], dim=1)  # (E, M)
        total = reward.masked_fill(~member, 0.0).sum(dim=1, keepdim=True)  # (E, 1)
        mean = total / member.sum(dim=1, keepdim=True).clamp_min(1)
        shared |= {name: torch.where(counted[name], mean, 0.0) for name in names}  # (E, A)
        if step.terms and (wanted := columns[names[0]]):
            terms = torch.cat([in_columns(step, spec, name, wanted) for name in names], dim=1)  # (E, M, K)
            sums = terms.masked_fill(~member.unsqueeze(2), 0.0).sum(dim=1, keepdim=True)  # (E, 1, K)
            means = sums / member.sum(dim=1, keepdim=True).clamp_min(1).unsqueeze(2)
            shared_parts |= {name: torch.where(counted[name].unsqueeze(2), means, 0.0) for name in names}  # (E, A, K)
    return step._replace(reward=shared, terms=shared_parts)


def shared_terms(spec: EnvSpec) -> dict[str, tuple[str, ...]]:
    """Names of the terms of each group's reward where teams share it: those of its whole team."""
    team = {
        team: tuple(dict.fromkeys(term for group in spec.groups if group.team == team for term in group.terms))
        for team in spec.teams
    }
    return {group.name: team[group.team] for group in spec.groups}


def in_columns(step: Step, spec: EnvSpec, name: str, wanted: Sequence[str]) -> Tensor:
    """The terms of the group `name` in the columns `wanted`, `(E, A, K)`; zeros for those that it does not have."""
    has = next(group.terms for group in spec.groups if group.name == name)
    if has == tuple(wanted):
        return step.terms[name]
    none = torch.zeros_like(step.reward[name])
    return torch.stack([step.terms[name][..., has.index(term)] if term in has else none for term in wanted], dim=-1)
