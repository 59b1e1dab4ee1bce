"""Actors of one group of agents: observations to answers, and actions in the units of storage, critics, environments.

Shapes: B batch, A agents of the group, O observation features, D action features, U encoded ones (one-hot where
discrete), H hidden units; L steps of E copies, M features of memory.

What may be recurrent has two forms: called, it stands where episodes begin; `sequence` takes what was remembered before
the first step, and `begins (L, E)`, where it is forgotten.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from marl_stable.config import NetworkConfig
from marl_stable.networks.heads import (
    Categorical,
    Deterministic,
    Differentiable,
    Distribution,
    Gaussian,
    MultiCategorical,
    SquashedGaussian,
    bounded_log_std,
    free_log_std,
    one_hot,
)
from marl_stable.networks.per_agent import PerAgent
from marl_stable.types import ActionSpec, Box, Discrete, Group, MultiDiscrete


class PolicyBody(nn.Module):
    """What all actors of a group share: the network, discrete answers, and actions in three forms.

    Raw actions are what storage keeps, canonical ones have the bounds at -1 and 1, encoded ones are what critics see.
    """

    low: Tensor  # (D,) bounds of Box actions
    high: Tensor

    def __init__(self, group: Group, config: NetworkConfig, share: bool, generator: torch.Generator) -> None:
        super().__init__()
        self.action: ActionSpec = group.action
        self.masked = group.masked
        self.outputs = encoded_size(group.action)
        self.body = PerAgent(len(group.agents), group.obs_size, self.outputs, config, share, generator)
        if isinstance(group.action, Box):
            self.register_buffer("low", torch.tensor(group.action.low), persistent=False)
            self.register_buffer("high", torch.tensor(group.action.high), persistent=False)

    def alone(self, agent: int) -> dict[str, Tensor]:
        """The weights of an actor of a group of that agent alone."""
        return {f"body.network.{name}": value for name, value in self.body.alone(agent).items()}

    def features(self, obs: Tensor) -> list[Tensor]:
        """`(B, A, O)` normalised observations to the activations of each layer, `(B, A, H)`."""
        return self.body.features(obs)

    def _choices(self, out: Tensor, obs: Tensor) -> Categorical | MultiCategorical:
        """The answer of a group with discrete actions."""
        if isinstance(self.action, MultiDiscrete):
            return MultiCategorical(out, self.action.n)
        return Categorical(out, obs[..., -self.outputs :] > 0.5 if self.masked else None)

    def _scaled(self, canonical: Tensor) -> Tensor:
        """The scaling layer: from [-1, 1] to the environment's range."""
        return torch.lerp(self.low, self.high, 0.5 * (canonical + 1))  # exact at both ends, and never beyond

    def encoded(self, raw: Tensor) -> Tensor:
        """`(..., U)` float32: one-hot choices, or canonical Box actions."""
        if isinstance(self.action, Discrete):
            return one_hot(raw, self.action.n)
        if isinstance(self.action, MultiDiscrete):
            return torch.cat([one_hot(part, n) for part, n in zip(raw.unbind(-1), self.action.n, strict=True)], dim=-1)
        return self.canonical(raw)

    def canonical(self, raw: Tensor) -> Tensor:
        """Raw actions with the bounds at -1 and 1: those of deterministic policies, and discrete ones, as they are."""
        return raw


class Actor(PolicyBody):
    """Stochastic policies: observations to a distribution over actions, and raw actions to the environment's units."""

    def __init__(
        self,
        group: Group,
        config: NetworkConfig,
        share: bool,
        squash: bool,
        generator: torch.Generator,
        log_std_init: float = 0.0,
    ) -> None:
        super().__init__(group, config, share, generator)
        self.squash = squash
        if isinstance(group.action, Box):
            # optimiser rows are agents, so that private deviations have their axis
            lead = () if share else (len(group.agents),)
            self.free_log_std = nn.Parameter(torch.full((*lead, self.outputs), free_log_std(log_std_init)))

    def forward(self, obs: Tensor) -> Distribution:
        """`(B, A, O)` normalised observations to distributions of `(B, A)`."""
        return self._policy(self.body(obs), obs)

    def alone(self, agent: int) -> dict[str, Tensor]:
        """The weights of an actor of a group of that agent alone."""
        if not isinstance(self.action, Box):
            return super().alone(agent)
        own = self.free_log_std if self.body.share else self.free_log_std[agent]
        return super().alone(agent) | {"free_log_std": own.detach()}

    def no_memory(self, copies: int) -> Tensor:
        """`(E, A, M)` what there is to remember where episodes begin."""
        return self.body.no_memory(copies)

    def sequence(self, obs: Tensor, memory: Tensor, begins: Tensor) -> tuple[Distribution, Tensor]:
        """`(L, E, A, O)` with memory `(E, A, M)` to distributions of `(L * E, A)`, and memories `(L, E, A, M)`."""
        out, memories = self.body.sequence(obs, memory, begins)
        return self._policy(out.flatten(0, 1), obs.flatten(0, 1)), memories

    def _policy(self, out: Tensor, obs: Tensor) -> Distribution:
        if not isinstance(self.action, Box):
            return self._choices(out, obs)
        log_std = bounded_log_std(self.free_log_std)
        return SquashedGaussian(out, log_std) if self.squash else Gaussian(out, log_std)

    def to_env(self, raw: Tensor) -> Tensor:
        """Raw actions in the environment's units: the tanh and the scaling layer, or for the plain head the clip."""
        if not isinstance(self.action, Box):
            return raw
        if self.squash:
            return self._scaled(torch.tanh(raw))
        return torch.minimum(torch.maximum(raw, self.low), self.high)

    def canonical(self, raw: Tensor) -> Tensor:
        """Raw actions with the bounds at -1 and 1; discrete ones as they are."""
        if not isinstance(self.action, Box):
            return raw
        if self.squash:
            return torch.tanh(raw)
        return 2 * (self.to_env(raw) - self.low) / (self.high - self.low) - 1


class DeterministicActor(PolicyBody):
    """Policies that a critic of actions teaches: tanh actions, through which its gradient flows, or discrete ones."""

    def forward(self, obs: Tensor, noise: float | Tensor = 0.0) -> Differentiable:
        """`(B, A, O)` normalised observations to answers of `(B, A)`; `noise` is the deviation of exploration."""
        out = self.body(obs)
        return Deterministic(out, noise) if isinstance(self.action, Box) else self._choices(out, obs)

    def to_env(self, raw: Tensor) -> Tensor:
        """Raw actions in the environment's units."""
        return self._scaled(raw) if isinstance(self.action, Box) else raw


def encoded_size(action: ActionSpec) -> int:
    """U, the number of features of an encoded action, and of outputs of an actor."""
    if isinstance(action, Discrete):
        return action.n
    return sum(action.n) if isinstance(action, MultiDiscrete) else len(action.low)
