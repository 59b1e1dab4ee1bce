"""What learners of all algorithms share: how a group's observations are seen, its optimisers, and its state.

Shapes: N rows, A agents, O observation features, S features of the joint observation, R optimiser rows (1 where agents
share, else A).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from marl_stable.agents.behaviour import feature_importance
from marl_stable.agents.config import ActorCriticConfig
from marl_stable.agents.network_watch import NetworkWatch
from marl_stable.monitor.signals.networks import step_budget
from marl_stable.monitor.table import NETWORKS
from marl_stable.networks.actors import PolicyBody
from marl_stable.networks.body import multiply_in_bf16
from marl_stable.networks.critics import Critic
from marl_stable.normalize import ObservationNorm
from marl_stable.optim import GuardedAdam, StepStats
from marl_stable.types import Group, has_choice, legal_features

OBS_CLIP = 5.0  # deviations


class GroupLearner:
    """Everything of one group that has a state; `PARTS` names what is saved of it."""

    PARTS: ClassVar[tuple[str, ...]]
    config: ActorCriticConfig
    actor: PolicyBody

    def __init__(self, group: Group, config: ActorCriticConfig, central: bool, device: torch.device) -> None:
        """`central`: the critic sees all agents of all groups at once."""
        agents, share = len(group.agents), config.share
        self.group, self.central, self._normalize_obs = group, central, config.normalize_obs
        self.pooled = central and config.critic_input == "pool"
        self.obs_norm = ObservationNorm(agents, group.obs_size, legal_features(group), share, OBS_CLIP).to(device)

    def _add_optimizers(
        self, actor: PolicyBody, critic: Critic, c: ActorCriticConfig, refuse: bool, watch: bool
    ) -> None:
        """One for each network, with a row for each agent that has parameters of its own.

        `refuse`: the guard acts; `watch`: spikes are counted.
        """
        rows = 1 if c.share else len(self.group.agents)
        settings: dict[str, Any] = {
            "betas": c.adam_betas,
            "eps": c.adam_eps,
            "max_grad_norm": c.max_grad_norm,
            "weight_decay": c.weight_decay,
            "l1": c.l1,
            "refuse": refuse,
            "watch": watch,
        }
        self.actor_optimizer = GuardedAdam(actor, rows, **settings)
        self.critic_optimizer = GuardedAdam(critic, 1 if self.central else rows, **settings)
        self._networks = (actor, critic)
        self.watches = {
            "actor": NetworkWatch("actor", actor, self.actor_optimizer),
            "critic": NetworkWatch("critic", critic, self.critic_optimizer),
        }

    def multiply_in_bf16(self) -> None:
        """From now on, hidden layers of networks and their targets multiply in bfloat16; all else stays float32."""
        for name in self.PARTS:
            if isinstance(part := getattr(self, name), nn.Module):
                multiply_in_bf16(part)

    def normalized(self, obs: Tensor) -> Tensor:
        """What networks see of raw observations `(..., A, O)`."""
        return self.obs_norm(obs) if self._normalize_obs else obs

    def take_in(self, obs: Tensor, alive: Tensor | None) -> None:
        """Let raw observations `(N, A, O)` of living agents `(N, A)` into the statistics."""
        if self._normalize_obs:
            self.obs_norm.take_in(obs, alive)

    @property
    def critic_agents(self) -> int:
        """Rows of the critic for each moment: A, or 1 where one row is for all agents."""
        return 1 if self.central and not self.pooled else len(self.group.agents)

    def _critic_rows(self, alive: Tensor) -> Tensor:
        """Which rows the critic learns from: `(N, A)`, or `(N,)` where one row is for all agents."""
        return alive.amax(1) if self.central and not self.pooled else alive

    def optimizer(self, network: str) -> GuardedAdam:
        """That of the `actor` or the `critic`."""
        return {"actor": self.actor_optimizer, "critic": self.critic_optimizer}[network]

    def remember(self, found: Mapping[str, Tensor]) -> None:
        """Let the optimisers that took a step with the figures `found` count it."""
        for network in NETWORKS:
            if (norm := found.get(f"grad_norm/{network}")) is not None:
                self.optimizer(network).remember(norm)

    def weight_norm(self) -> Tensor:
        """L2 norm of all learned parameters."""
        norms = torch.cat([self.actor_optimizer.weight_norm(), self.critic_optimizer.weight_norm()])
        return norms.square().sum().sqrt()

    # ---- being watched

    def layer_names(self, network: str) -> list[str]:
        """What the layers of `network` (actor or critic) are called in its (R, L) signals."""
        return self.watches[network].layer_names

    def unit_names(self, network: str) -> list[str]:
        """The same for layers of units: those of its (L,) signals."""
        return self.watches[network].unit_names

    def network_signals(self, actor_lr: float, critic_lr: float, seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the optimisers' last steps, of these sizes, did; changes are since this was last asked.

        `seen`: the iteration's figures by tag, of which the gradient norms are needed. An actor with one action only
        has nothing to learn, and nothing is said of it.
        """
        found = {f"stunned/{name}": self.optimizer(name).stunned() for name in self.watches}
        if has_choice(self.group.action):
            found |= self.watches["actor"].read(actor_lr, seen)
        return found | self.watches["critic"].read(critic_lr, seen)

    @torch.no_grad()
    def probe_signals(
        self, seen: Tensor, critic_input: Tensor, actor_lr: float, alive: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What networks make of P probe rows: normalised observations `seen (P, A, O)`, and what the critic is given.

        `alive (P, A)`: which rows count. Networks with memory answer as where episodes begin.
        """
        actor, critic = self._networks
        features, apart = actor.features(seen), self.actor_optimizer.rows > 1
        found = {
            "stability/step_budget": step_budget(features[-1], self.watches["actor"].rate(actor_lr), alive),
            "stability/feature_importance": feature_importance(actor, seen, alive),
        }
        found |= self.watches["actor"].probe(features, apart, alive)
        critic_alive = None if alive is None else self._critic_rows(alive).reshape(len(alive), -1)
        critic_apart = apart and not self.pooled
        return found | self.watches["critic"].probe(critic.features(critic_input), critic_apart, critic_alive)

    # ---- state

    def state_dict(self) -> dict[str, Any]:
        """Everything but what was collected."""
        return {name: dict(getattr(self, name).state_dict()) for name in self.PARTS}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        for name in self.PARTS:
            getattr(self, name).load_state_dict(state[name])
        for watch in self.watches.values():
            watch.restart()


def step_stats(name: str, step: StepStats) -> dict[str, Tensor]:
    """Gradient norm, and the shares of what happened to it in a step, `(R,)`: by row, to name the agent."""
    return {
        f"grad_norm/{name}": step.norm,
        f"grad_norm/{name}_clipped_fraction": step.clipped,
        f"non_finite/{name}": step.non_finite,
        f"skipped/{name}": step.skipped,
        f"stability/grad_spike/{name}": step.spike,
        f"stability/grad_norm_peak/{name}": step.norm,
    }
