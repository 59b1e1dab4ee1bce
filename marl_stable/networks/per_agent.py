"""One network for each agent of a group, or one for all who are told apart.

Shapes: B batch, A agents of the group, I inputs, U outputs, H hidden units; L steps of E copies, M features of memory.

What may be recurrent has two forms: called, it stands where episodes begin; `sequence` takes what was remembered before
the first step, and `begins (L, E)`, where it is forgotten.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from marl_stable.config import NetworkConfig
from marl_stable.networks.body import Network


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

    def alone(self, agent: int) -> dict[str, Tensor]:
        """The weights of a network for that agent alone, which needs not be told who is asking."""
        state = self.network.state_dict()
        if not self.share:
            return {name: value[agent] for name, value in state.items()}
        if len(self.identity) > 1:  # its index is the same in every row: a part of the bias
            weight, bias = state["hidden.0.weight"], state["hidden.0.bias"]
            inputs = len(weight) - len(self.identity)
            state |= {"hidden.0.weight": weight[:inputs], "hidden.0.bias": bias + weight[inputs + agent]}
        return dict(state)

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
