"""What learners of all algorithms share: how a group's observations are seen, its optimisers, and its state.

Shapes: N rows, A agents, O observation features, S features of the joint observation, R optimiser rows (1 where agents
share, else A).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from marl_stable.agents.config import ActorCriticConfig
from marl_stable.normalize import ObservationNorm, RunningNorm
from marl_stable.optim import GuardedAdam, StepStats
from marl_stable.types import Group, legal_features

OBS_CLIP, REWARD_CLIP = 5.0, 10.0  # deviations


class GroupLearner:
    """Everything of one group that has a state; `PARTS` names what is saved of it."""

    PARTS: ClassVar[tuple[str, ...]]

    def __init__(self, group: Group, config: ActorCriticConfig, central: bool, device: torch.device) -> None:
        """`central`: the critic sees all agents of all groups at once."""
        agents, share = len(group.agents), config.share
        self.group, self.central, self._normalize_obs = group, central, config.normalize_obs
        self.obs_norm = ObservationNorm(agents, group.obs_size, legal_features(group), share, OBS_CLIP).to(device)
        self.reward_norm = RunningNorm((agents,), REWARD_CLIP).to(device)

    def _add_optimizers(self, actor: nn.Module, critic: nn.Module, c: ActorCriticConfig, refuse: bool) -> None:
        """One for each network, with a row for each agent that has parameters of its own."""
        rows = 1 if c.share else len(self.group.agents)
        settings = (c.adam_betas, c.adam_eps, c.max_grad_norm, c.weight_decay, c.l1, refuse)
        self.actor_optimizer = GuardedAdam(actor, rows, *settings)
        self.critic_optimizer = GuardedAdam(critic, 1 if self.central else rows, *settings)

    def normalized(self, obs: Tensor) -> Tensor:
        """What networks see of raw observations `(..., A, O)`."""
        return self.obs_norm(obs) if self._normalize_obs else obs

    def take_in(self, obs: Tensor, alive: Tensor | None) -> None:
        """Let raw observations `(N, A, O)` of living agents `(N, A)` into the statistics."""
        if self._normalize_obs:
            self.obs_norm.take_in(obs, alive)

    def _critic_rows(self, alive: Tensor) -> Tensor:
        """Which rows the critic learns from: `(N, A)`, or `(N,)` where one row is for all agents."""
        return alive.amax(1) if self.central else alive

    def weight_norm(self) -> Tensor:
        """L2 norm of all learned parameters."""
        norms = torch.cat([self.actor_optimizer.weight_norm(), self.critic_optimizer.weight_norm()])
        return norms.square().sum().sqrt()

    def state_dict(self) -> dict[str, Any]:
        """Everything but what was collected."""
        return {name: dict(getattr(self, name).state_dict()) for name in self.PARTS}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        for name in self.PARTS:
            getattr(self, name).load_state_dict(state[name])


def step_stats(name: str, step: StepStats) -> dict[str, Tensor]:
    """Gradient norm, clipped and non-finite shares of a step, `(R,)`: by row, to name the agent."""
    return {
        f"grad_norm/{name}": step.norm,
        f"grad_norm/{name}_clipped_fraction": step.clipped,
        f"non_finite/{name}": step.non_finite,
    }
