"""The reward that agents learn from where their team shares it (`env.reward mean`).

Shapes: E copies, A agents of a group, M agents of a team.
"""

from __future__ import annotations

import torch

from marl_stable.types import EnvSpec, PerGroup, Step


def team_mean(step: Step, spec: EnvSpec, unpaid: PerGroup | None = None) -> Step:
    """`step` with the mean over its team as each agent's reward; nothing else changes.

    The mean is over those of the team, whatever their groups, that acted in the step, and they are who gets it. In a
    turn-based environment, where one agent acts and all may be rewarded, it is over the whole team and for all of it.
    Who is `unpaid (E, A)`, its own reward not known, does not count in the mean.
    """
    shared = dict(step.reward)
    for team in spec.teams:
        names = [group.name for group in spec.groups if group.team == team]
        counted = {name: torch.ones_like(step.alive[name]) if spec.turn_based else step.alive[name] for name in names}
        known = counted if unpaid is None else {name: counted[name] & ~unpaid[name] for name in names}
        member = torch.cat([known[name] for name in names], dim=1)  # (E, M)
        reward = torch.cat([step.reward[name] for name in names], dim=1)  # (E, M)
        total = reward.masked_fill(~member, 0.0).sum(dim=1, keepdim=True)  # (E, 1)
        mean = total / member.sum(dim=1, keepdim=True).clamp_min(1)
        shared |= {name: torch.where(counted[name], mean, 0.0) for name in names}  # (E, A)
    return step._replace(reward=shared)
