"""Actors and critics of one group of agents.

Shapes: B batch, A agents of the group, O observation features, D action features, S inputs of a critic.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from marl_stable.config import NetworkConfig
from marl_stable.networks.body import Network
from marl_stable.networks.heads import (
    Categorical,
    Distribution,
    Gaussian,
    SquashedGaussian,
    bounded_log_std,
    free_log_std,
)
from marl_stable.types import ActionSpec, Discrete, Group

INITIAL_LOG_STD = -0.5  # of the normal before the tanh: actions cover most of the range, few are at its ends


class PerAgent(nn.Module):
    """A network applied to each agent's own input: shared and told who is asking, or one network per agent."""

    identity: Tensor  # (A, A) one-hot indices of agents

    def __init__(
        self, agents: int, inputs: int, outputs: int, config: NetworkConfig, share: bool, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.share = share
        width = inputs + agents if share and agents > 1 else inputs
        self.network = Network(width, outputs, config, None if share else agents, generator)
        self.register_buffer("identity", torch.eye(agents), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, A, I)` to `(B, A, U)`."""
        batch, agents, _ = x.shape
        if not self.share:
            return self.network(x.transpose(0, 1)).transpose(0, 1)  # type: ignore[no-any-return]
        if agents > 1:
            x = torch.cat([x, self.identity.expand(batch, -1, -1)], dim=-1)
        return self.network(x.flatten(0, 1)).unflatten(0, (batch, agents))  # type: ignore[no-any-return]


class Actor(nn.Module):
    """Policies of a group: observations to a distribution over actions, and raw actions to the environment's units."""

    low: Tensor  # (D,) bounds of Box actions
    high: Tensor

    def __init__(
        self, group: Group, config: NetworkConfig, share: bool, squash: bool, generator: torch.Generator
    ) -> None:
        super().__init__()
        agents = len(group.agents)
        self.action: ActionSpec = group.action
        self.squash = squash
        outputs = group.action.n if isinstance(group.action, Discrete) else len(group.action.low)
        self.body = PerAgent(agents, group.obs_size, outputs, config, share, generator)
        if not isinstance(group.action, Discrete):
            low, high = torch.tensor(group.action.low), torch.tensor(group.action.high)
            self.register_buffer("low", low, persistent=False)
            self.register_buffer("high", high, persistent=False)
            lead = () if share else (agents,)  # optimiser rows are agents, so a private deviation has their axis
            self.free_log_std = nn.Parameter(torch.full((*lead, outputs), free_log_std(INITIAL_LOG_STD)))

    def forward(self, obs: Tensor) -> Distribution:
        """`(B, A, O)` normalised observations to distributions of `(B, A)`."""
        out = self.body(obs)
        if isinstance(self.action, Discrete):
            return Categorical(out)
        log_std = bounded_log_std(self.free_log_std)
        return SquashedGaussian(out, log_std) if self.squash else Gaussian(out, log_std)

    def to_env(self, raw: Tensor) -> Tensor:
        """Raw actions in the environment's units: the tanh and the scaling layer, or for the plain head the clip."""
        if isinstance(self.action, Discrete):
            return raw
        if self.squash:
            return torch.lerp(self.low, self.high, 0.5 * (torch.tanh(raw) + 1))  # exact at both ends, and never beyond
        return torch.minimum(torch.maximum(raw, self.low), self.high)

    def canonical(self, raw: Tensor) -> Tensor:
        """Raw actions with the bounds at -1 and 1; discrete ones as they are."""
        if isinstance(self.action, Discrete):
            return raw
        if self.squash:
            return torch.tanh(raw)
        return 2 * (self.to_env(raw) - self.low) / (self.high - self.low) - 1


class CentralCritic(nn.Module):
    """One value per agent of the group from what all agents of all groups see: one network, evaluated once a state."""

    def __init__(self, agents: int, inputs: int, config: NetworkConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.network = Network(inputs, agents, config, None, generator)

    def forward(self, joint: Tensor) -> Tensor:
        """`(B, S)` to `(B, A)`."""
        return self.network(joint)  # type: ignore[no-any-return]


class LocalCritic(nn.Module):
    """Each agent's value from what it sees itself."""

    def __init__(
        self, agents: int, inputs: int, config: NetworkConfig, share: bool, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.body = PerAgent(agents, inputs, 1, config, share, generator)

    def forward(self, obs: Tensor) -> Tensor:
        """`(B, A, O)` to `(B, A)`."""
        return self.body(obs).squeeze(-1)  # type: ignore[no-any-return]
