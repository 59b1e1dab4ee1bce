"""Actors and critics of one group of agents.

Shapes: B batch, A agents of the group, O observation features, D action features, U encoded ones (one-hot where
discrete), S features of the joint observation, K critics (two for twins); L steps of E copies, M features of memory.

What may be recurrent has two forms: called, it stands where episodes begin; `sequence` takes what was remembered before
the first step, and `begins (L, E)`, where it is forgotten.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from marl_stable.config import NetworkConfig
from marl_stable.networks.body import Network
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
from marl_stable.types import ActionSpec, Box, Discrete, Group, MultiDiscrete

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
        return self.network(self._introduced(x).flatten(0, 1)).unflatten(0, (batch, agents))  # type: ignore[no-any-return]

    def features(self, x: Tensor) -> list[Tensor]:
        """`(B, A, I)` to the activations of each layer, `(B, A, H)`: see :meth:`Network.features`."""
        if not self.share:
            return [h.transpose(0, 1) for h in self.network.features(x.transpose(0, 1))]
        return [h.unflatten(0, x.shape[:2]) for h in self.network.features(self._introduced(x).flatten(0, 1))]

    def _introduced(self, x: Tensor) -> Tensor:
        """`(..., A, I)` with who is asking, where that is not clear."""
        agents = x.shape[-2]
        return torch.cat([x, self.identity.expand(*x.shape[:-1], agents)], dim=-1) if agents > 1 else x

    def no_memory(self, copies: int) -> Tensor:
        """`(E, A, M)` what there is to remember where episodes begin."""
        return self.identity.new_zeros(copies, len(self.identity), self.network.memory_size)

    def sequence(self, x: Tensor, memory: Tensor, begins: Tensor) -> tuple[Tensor, Tensor]:
        """`(L, E, A, I)` with memory `(E, A, M)` to `(L, E, A, U)`, and the memory after each step, `(L, E, A, M)`."""
        steps, copies, agents, _ = x.shape
        if not self.share:
            apart = x.permute(2, 0, 1, 3).flatten(1, 2)  # (A, L * E, I)
            out, memories = self.network.sequence(apart, memory.transpose(0, 1), begins.unsqueeze(-1))
            return out.unflatten(1, (steps, copies)).permute(1, 2, 0, 3), memories.permute(1, 2, 0, 3)
        rows = begins.unsqueeze(-1).expand(-1, -1, agents).reshape(steps, -1, 1)  # (L, E * A, 1)
        out, memories = self.network.sequence(self._introduced(x).flatten(0, 2), memory.flatten(0, 1), rows)
        return out.unflatten(0, (steps, copies, agents)), memories.unflatten(1, (copies, agents))


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
        self, group: Group, config: NetworkConfig, share: bool, squash: bool, generator: torch.Generator
    ) -> None:
        super().__init__(group, config, share, generator)
        self.squash = squash
        if isinstance(group.action, Box):
            # optimiser rows are agents, so that private deviations have their axis
            lead = () if share else (len(group.agents),)
            self.free_log_std = nn.Parameter(torch.full((*lead, self.outputs), free_log_std(INITIAL_LOG_STD)))

    def forward(self, obs: Tensor) -> Distribution:
        """`(B, A, O)` normalised observations to distributions of `(B, A)`."""
        return self._policy(self.body(obs), obs)

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
    """Policies through which a critic's gradient flows: tanh actions, or for discrete ones the Gumbel-softmax."""

    def forward(self, obs: Tensor, noise: float = 0.0) -> Differentiable:
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


class CentralCritic(nn.Module):
    """One value per agent of the group from what all agents of all groups see: one network, evaluated once a state."""

    def __init__(self, agents: int, inputs: int, config: NetworkConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.network = Network(inputs, agents, config, None, generator)

    def forward(self, joint: Tensor) -> Tensor:
        """`(B, S)` to `(B, A)`."""
        return self.network(joint)  # type: ignore[no-any-return]

    def features(self, joint: Tensor) -> list[Tensor]:
        """`(B, S)` to the activations of each layer, `(B, 1, H)`: one network sees for all."""
        return [h.unsqueeze(1) for h in self.network.features(joint)]

    def no_memory(self, copies: int) -> Tensor:
        """`(E, M)` what there is to remember where episodes begin."""
        return self.network.final.weight.new_zeros(copies, self.network.memory_size)

    def sequence(self, joint: Tensor, memory: Tensor, begins: Tensor) -> tuple[Tensor, Tensor]:
        """`(L, E, S)` with memory `(E, M)` to `(L, E, A)`, and the memory after each step, `(L, E, M)`."""
        value, memories = self.network.sequence(joint.flatten(0, 1), memory, begins.unsqueeze(-1))
        return value.unflatten(0, begins.shape), memories


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

    def features(self, obs: Tensor) -> list[Tensor]:
        """`(B, A, O)` to the activations of each layer, `(B, A, H)`."""
        return self.body.features(obs)

    def no_memory(self, copies: int) -> Tensor:
        """`(E, A, M)` what there is to remember where episodes begin."""
        return self.body.no_memory(copies)

    def sequence(self, obs: Tensor, memory: Tensor, begins: Tensor) -> tuple[Tensor, Tensor]:
        """`(L, E, A, O)` with memory `(E, A, M)` to `(L, E, A)`, and the memory after each step, `(L, E, A, M)`."""
        value, memories = self.body.sequence(obs, memory, begins)
        return value.squeeze(-1), memories


class JointQ(nn.Module):
    """Action values from what all agents of all groups see and do: K networks, each with one output per agent."""

    def __init__(self, count: int, agents: int, inputs: int, config: NetworkConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.networks = nn.ModuleList(Network(inputs, agents, config, None, generator) for _ in range(count))

    def forward(self, joint: Tensor) -> Tensor:
        """`(B, S + U)` to `(K, B, A)`."""
        return torch.stack([network(joint) for network in self.networks])

    def features(self, joint: Tensor) -> list[Tensor]:
        """`(B, S + U)` to the activations of each layer of the first network, `(B, 1, H)`."""
        first: Network = self.networks[0]  # type: ignore[assignment]
        return [h.unsqueeze(1) for h in first.features(joint)]


class LocalQ(nn.Module):
    """Each agent's action value from what it sees and does itself: K networks."""

    def __init__(
        self, count: int, agents: int, inputs: int, config: NetworkConfig, share: bool, generator: torch.Generator
    ) -> None:
        super().__init__()
        made = (PerAgent(agents, inputs, 1, config, share, generator) for _ in range(count))
        self.networks = nn.ModuleList(made)

    def forward(self, own: Tensor) -> Tensor:
        """`(B, A, O + U)` to `(K, B, A)`."""
        return torch.stack([network(own).squeeze(-1) for network in self.networks])

    def features(self, own: Tensor) -> list[Tensor]:
        """`(B, A, O + U)` to the activations of each layer of the first network, `(B, A, H)`."""
        first: PerAgent = self.networks[0]  # type: ignore[assignment]
        return first.features(own)


Critic = CentralCritic | LocalCritic | JointQ | LocalQ
