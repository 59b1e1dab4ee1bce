"""Agents in the teams that the user names (`env.teams`), whatever teams the environment has them in.

Shapes: E copies, A agents of a group, K reward terms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from marl_stable.envs.base import BatchedEnv
from marl_stable.envs.groups import checked_teams, regrouped
from marl_stable.rewards import in_columns
from marl_stable.types import Group, PerGroup, Step

Routes: TypeAlias = "dict[str, tuple[tuple[str, ...], Tensor]]"
"""group -> groups its agents come from, and their places `(A,)` among those groups' agents"""


def with_teams(env: BatchedEnv, teams: Mapping[str, Any]) -> BatchedEnv:
    """`env` with its agents in `teams`, {"team": ["agent", ...]}; UsageError unless every agent is in exactly one."""
    team_of = checked_teams(teams, env.spec.agents, "env.teams")
    if all(team_of[agent] == group.team for group in env.spec.groups for agent in group.agents):
        return env
    return Regrouped(env, team_of)


class Regrouped:
    """A batched environment whose agents form other groups: tensors are divided and joined along the agent axis."""

    def __init__(self, env: BatchedEnv, teams: Mapping[str, str]) -> None:
        """`teams`: agent to team."""
        self.env = env
        self.spec = regrouped(env.spec, teams)
        self.num_envs = env.num_envs
        self.device: torch.device = env.device
        self.replay_differs: tuple[int, ...] = ()
        self._outward = _routes(env.spec.groups, self.spec.groups, env.device)
        self._inward = _routes(self.spec.groups, env.spec.groups, env.device)

    def reset(self, seed: int) -> PerGroup:
        """Begin the first episode of every copy."""
        return _along(self._outward, self.env.reset(seed))

    def step(self, action: PerGroup) -> Step:
        """Advance every copy by one step."""
        inner = self.env.step(_along(self._inward, action))
        obs = _along(self._outward, inner.obs)
        next_obs = obs if inner.next_obs is inner.obs else _along(self._outward, inner.next_obs)
        return inner._replace(
            obs=obs,
            next_obs=next_obs,
            reward=_along(self._outward, inner.reward),
            terminated=_along(self._outward, inner.terminated),
            truncated=_along(self._outward, inner.truncated),
            alive=_along(self._outward, inner.alive),
            terms=self._terms(inner) if inner.terms else {},
        )

    def _terms(self, inner: Step) -> PerGroup:
        """`(E, A, K)` of the groups that have terms, by the names that each of them has here."""
        found = {}
        for group in self.spec.groups:
            if group.terms:
                origins, places = self._outward[group.name]
                parts = [in_columns(inner, self.env.spec, origin, group.terms) for origin in origins]
                found[group.name] = torch.cat(parts, dim=1).index_select(1, places)
        return found

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly."""
        return self.env.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> PerGroup:
        """Go on where `state_dict` was taken."""
        obs = _along(self._outward, self.env.load_state_dict(state))
        self.replay_differs = self.env.replay_differs
        return obs

    def close(self) -> None:
        """Release what the copies hold."""
        self.env.close()


def _routes(sources: Sequence[Group], targets: Sequence[Group], device: torch.device) -> Routes:
    routes = {}
    for target in targets:
        origins = [group for group in sources if set(group.agents) & set(target.agents)]
        agents = [agent for group in origins for agent in group.agents]
        places = torch.tensor([agents.index(agent) for agent in target.agents], device=device)
        routes[target.name] = (tuple(group.name for group in origins), places)
    return routes


def _along(routes: Routes, tensors: PerGroup) -> PerGroup:
    """`(E, A, ...)` per group, taken from the groups at the other end."""
    return {
        name: torch.cat([tensors[origin] for origin in origins], dim=1).index_select(1, places)
        for name, (origins, places) in routes.items()
    }
