"""Critics of one group of agents: of states or of actions, from what all agents see or from each one's own.

Those that see all are given it side by side, or each agent's own and means over everybody (`pooling.py`).

Shapes: B batch, A agents of the group, O observation features, U features of an encoded action, S features of the joint
observation, J features of a pooled joint input, H hidden units, K critics (two for twins); L steps of E copies, M
features of memory.

What may be recurrent has two forms: called, it stands where episodes begin; `sequence` takes what was remembered before
the first step, and `begins (L, E)`, where it is forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from marl_stable.config import NetworkConfig
from marl_stable.networks.body import Network
from marl_stable.networks.per_agent import PerAgent
from marl_stable.networks.pooling import Members, PooledNetwork


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


class PooledCritic(nn.Module):
    """One value per agent of the group numbered `own` from what it sees itself and means over all agents."""

    def __init__(self, groups: Sequence[Members], own: int, config: NetworkConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.network = PooledNetwork(groups, own, config, generator)

    def forward(self, joint: Tensor) -> Tensor:
        """`(B, J)` to `(B, A)`."""
        return self.network(joint)  # type: ignore[no-any-return]

    def features(self, joint: Tensor) -> list[Tensor]:
        """`(B, J)` to the activations of each layer, `(B, A, H)`."""
        return [h.unflatten(0, (len(joint), -1)) for h in self.network.features(joint)]

    def no_memory(self, copies: int) -> Tensor:
        """`(E, A, M)` what there is to remember where episodes begin."""
        return self.network.no_memory(copies)

    def sequence(self, joint: Tensor, memory: Tensor, begins: Tensor) -> tuple[Tensor, Tensor]:
        """`(L, E, J)` with memory `(E, A, M)` to `(L, E, A)`, and the memory after each step, `(L, E, A, M)`."""
        return self.network.sequence(joint, memory, begins)


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


class PooledQ(nn.Module):
    """Action values from what each agent sees and does itself and means over all agents: K networks."""

    def __init__(
        self, count: int, groups: Sequence[Members], own: int, config: NetworkConfig, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList(PooledNetwork(groups, own, config, generator) for _ in range(count))

    def forward(self, joint: Tensor) -> Tensor:
        """`(B, J)` to `(K, B, A)`."""
        return torch.stack([network(joint) for network in self.networks])

    def features(self, joint: Tensor) -> list[Tensor]:
        """`(B, J)` to the activations of each layer of the first network, `(B, A, H)`."""
        first: PooledNetwork = self.networks[0]  # type: ignore[assignment]
        return [h.unflatten(0, (len(joint), -1)) for h in first.features(joint)]


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


Critic = CentralCritic | PooledCritic | LocalCritic | JointQ | PooledQ | LocalQ
