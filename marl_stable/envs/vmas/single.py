"""One copy of a VMAS scenario with the interface of a PettingZoo `ParallelEnv`, as it is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from marl_stable.envs import vmas
from marl_stable.envs.terms import TERMS
from marl_stable.types import Box, Group, PerGroup

Arrays = dict[str, NDArray[np.float32]]


class SingleCopy:
    """A `VmasEnv` of one copy, whose episode stays at its end until it is reset."""

    metadata = {"render_fps": 10, "render_modes": ["rgb_array"]}  # noqa: RUF012 - PettingZoo's way

    def __init__(self, name: str, kwargs: dict[str, Any], render_mode: str | None = None) -> None:
        """Raises UsageError as `vmas.make` does."""
        self.env = vmas.make(name, 1, torch.device("cpu"), **kwargs)
        self.render_mode = render_mode
        self.possible_agents = list(self.env.spec.agents)
        self.teams = {team: self._team(team) for team in self.env.spec.teams}
        self.agents: list[str] = []
        owners = [(agent, group) for group in self.env.spec.groups for agent in group.agents]
        self._observed = {agent: spaces.Box(-np.inf, np.inf, (group.obs_size,)) for agent, group in owners}
        self._acted = {agent: _action_space(group) for agent, group in owners}
        self._seed = 0

    def observation_space(self, agent: str) -> spaces.Box:
        """An unbounded vector."""
        return self._observed[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """The scenario's action space."""
        return self._acted[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Arrays, dict[str, dict[str, Any]]]:
        """Begin an episode; without a seed, one that follows from the last."""
        self._seed = self._seed + 1 if seed is None else seed
        self.agents = list(self.possible_agents)
        return self._by_agent(self.env.reset(self._seed)), {agent: {} for agent in self.agents}

    def step(
        self, actions: dict[str, Any]
    ) -> tuple[Arrays, dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Advance by one step."""
        given = {g.name: _stacked([actions[agent] for agent in g.agents]) for g in self.env.spec.groups}
        obs, reward, terms, terminated, truncated = self.env.advance(given)
        everyone, rewards = self.possible_agents, self._by_agent(reward)
        ended, cut_off = bool(terminated[0]), bool(truncated[0])
        if ended or cut_off:
            self.agents = []
        return (
            self._by_agent(obs),
            {agent: float(rewards[agent]) for agent in everyone},
            dict.fromkeys(everyone, ended),
            dict.fromkeys(everyone, cut_off and not ended),
            {agent: {} for agent in everyone} | self._infos(terms),
        )

    def render(self) -> Any:
        """The world as an RGB array `(height, width, 3)` uint8; None without a render mode."""
        return None if self.render_mode is None else self.env.render()

    def close(self) -> None:
        """Close what was drawn with."""
        self.env.close()

    def _infos(self, terms: PerGroup) -> dict[str, dict[str, Any]]:
        return {
            agent: {TERMS: dict(zip(group.terms, row.tolist(), strict=True))}
            for group in self.env.spec.groups
            if group.terms
            for agent, row in zip(group.agents, terms[group.name][0], strict=True)
        }

    def _team(self, team: str) -> list[str]:
        return [agent for group in self.env.spec.groups if group.team == team for agent in group.agents]

    def _by_agent(self, values: PerGroup) -> Arrays:
        rows = {g.name: values[g.name][0].numpy() for g in self.env.spec.groups}
        return {agent: row for g in self.env.spec.groups for agent, row in zip(g.agents, rows[g.name], strict=True)}


def _action_space(group: Group) -> spaces.Space[Any]:
    action = group.action
    if isinstance(action, Box):
        return spaces.Box(np.array(action.low, np.float32), np.array(action.high, np.float32))
    assert isinstance(action.n, int)
    return spaces.Discrete(action.n)


def _stacked(actions: list[Any]) -> torch.Tensor:
    """One group's actions as a batch of one copy: (1, A) int64 or (1, A, D) float32."""
    return torch.as_tensor(np.stack(actions)).unsqueeze(0)
