"""Networks that judge each agent of a group by what it sees itself and by means over everybody.

Every agent's input passes its group's encoder, and the mean over the agents of each group stands for all of them: the
permutation-equivariant layer of Deep Sets (Zaheer et al. 2017, eq. 4), with a mean as in the critics of PIC (Liu et al.
2019). So there are as many parameters for few agents as for many, but for a column of the last layer each.

Shapes: B batch, A agents of a group (N of all groups, G of them), O observation features, U features of an encoded
action, I = O + U, H hidden units; L steps of E copies, M features of memory. A row of the joint input, J wide, has the
observations of all groups side by side, then their actions, then 1 for each agent that counts and 0 for others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from marl_stable.config import NetworkConfig
from marl_stable.networks.batchnorm import counting
from marl_stable.networks.body import ACTIVATIONS, NORMS, Network
from marl_stable.networks.layers import Linear


class Members(NamedTuple):
    """One group in the joint input."""

    name: str
    agents: int  # A
    obs_size: int  # O
    action_size: int = 0  # U; 0 where no actions are judged


class Embedded(NamedTuple):
    """What encoders make of a joint input, as one group's agents are judged by it."""

    own: Tensor  # (B, A, H) of each agent itself
    means: Tensor  # (B, G * H) over the agents of each group
    moved: Tensor | None = None  # (B, A, H) what each agent's other action alone adds to the mean of its group


class Encoders(nn.Module):
    """e = encoder_g(x) for the agents of every group g, and its means over those that count.

    What others see and do, alive or not, has no part in anything. Group number `own` is the one to be judged.
    """

    def __init__(self, groups: Sequence[Members], own: int, config: NetworkConfig) -> None:
        """Each encoder is one hidden layer of `config`, as wide as its first."""
        super().__init__()
        self.groups, self.own = tuple(groups), own
        self.encoders = nn.ModuleList(_encoder(g.obs_size + g.action_size, config) for g in groups)
        sizes = [(g.agents * g.obs_size, g.agents * g.action_size, g.agents) for g in groups]
        self.columns = [columns for kind in zip(*sizes, strict=True) for columns in kind]

    def forward(self, joint: Tensor, action: Tensor | None = None) -> Embedded:
        """Of `(B, J)`; with `action (B, A, U)` each agent is judged as if it alone had done this.

        Nothing but `action` has a gradient then.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and action is None):
            seen = self._by_group(joint)
            embedded = [self._embedded(g, *x) for g, x in enumerate(seen)]
            shares = [counts / counts.sum(1, keepdim=True).clamp_min(1) for _, counts in seen]
            means = [(share.unsqueeze(1) @ e).squeeze(1) for share, e in zip(shares, embedded, strict=True)]
        own, together = embedded[self.own], torch.cat(means, dim=1)
        if action is None:
            return Embedded(own, together)
        x, counts = seen[self.own]
        now = self._embedded(self.own, torch.cat([x[..., : self.groups[self.own].obs_size], action], dim=-1), counts)
        return Embedded(now, together, shares[self.own].unsqueeze(-1) * (now - own))

    def of_own(self, joint: Tensor) -> Tensor:
        """`(B, J)` to what the encoder of the group to be judged makes of its agents, `(B * A, H)`."""
        return self._embedded(self.own, *self._by_group(joint)[self.own]).flatten(0, 1)

    def _by_group(self, joint: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Each group's inputs `(B, A, I)`, and who of it counts, `(B, A)`."""
        parts, g = joint.split(self.columns, dim=1), len(self.groups)
        found = []
        for group, obs, action, counts in zip(self.groups, parts[:g], parts[g : 2 * g], parts[2 * g :], strict=True):
            kinds = [kind.unflatten(1, (group.agents, -1)) for kind in (obs, action) if kind.shape[1]]
            found.append((torch.cat(kinds, dim=-1), counts))
        return found

    def _embedded(self, group: int, x: Tensor, counts: Tensor) -> Tensor:
        """`(B, A, I)` to `(B, A, H)`; of agents that do not count, whatever they left behind, zeros are seen."""
        rows = torch.where(counts.unsqueeze(-1) > 0, x, 0.0).flatten(0, 1)  # times 0 would let a NaN through
        encoder = self.encoders[group]
        with counting(encoder, counts):
            return encoder(rows).unflatten(0, x.shape[:2])  # type: ignore[no-any-return]


class Joining(Linear):
    """y_i = e_i W + sum_g mean_g W_g + b for each agent i of a group; what all have in common is multiplied once."""

    def __init__(self, width: int, groups: int, own: int, outputs: int) -> None:
        """`width`: H; `own`: the number of the agents' group among the G `groups`."""
        super().__init__(width * (1 + groups), outputs, None)
        self.parts = (width, width * groups)  # rows of the weight: W, all W_g
        self.of_own = slice(own * width, (own + 1) * width)  # the group's W_g among all

    def forward(self, seen: Embedded) -> Tensor:  # type: ignore[override]  # inputs come in parts
        """`(B * A, U)`."""
        for_own, for_means = self.weight.split(self.parts)
        y = (self.product(seen.means, for_means) + self.bias).unsqueeze(1)
        if seen.moved is not None:
            y = y + self.product(seen.moved, for_means[self.of_own])
        return (self.product(seen.own, for_own) + y).flatten(0, 1)


class PooledNetwork(Network):
    """One output for each agent of a group: encoders and means first, then the layers that the configuration has.

    Its first hidden layer is the encoders'; where it has no other, what judges is as wide. The last layer has weights
    for each agent: they alone tell agents apart who see and do the same.
    """

    def __init__(self, groups: Sequence[Members], own: int, config: NetworkConfig, generator: torch.Generator) -> None:
        judge = replace(config, hidden=config.hidden[1:] or config.hidden)
        agents, encoders = groups[own].agents, Encoders(groups, own, config)
        joining = Joining(config.hidden[0], len(groups), own, judge.hidden[0])
        super().__init__([encoders, joining], agents, judge, None, generator)
        self.agents = agents

    def last(self, hidden: Tensor) -> Tensor:
        """`(B * A, H)` to `(B, A)`: each agent's hidden features with its own column of weights alone."""
        own: Tensor = (hidden.unflatten(0, (-1, self.agents)) * self.final.weight.T).sum(-1)
        return own + self.final.bias

    def of_own(self, joint: Tensor, action: Tensor) -> Tensor:
        """`(B, A)` what each agent gets for its own `action (B, A, U)`, all other actions being those of `joint`."""
        encoders, *layers = self.hidden
        y = encoders(joint, action)
        for layer in layers:
            y = layer(y)
        return self.last(y)

    def no_memory(self, copies: int) -> Tensor:
        """`(E, A, M)` what there is to remember where episodes begin."""
        return self.final.weight.new_zeros(copies, self.agents, self.memory_size)

    def sequence(self, joint: Tensor, memory: Tensor, begins: Tensor) -> tuple[Tensor, Tensor]:
        """`(L, E, J)` with memory `(E, A, M)` to `(L, E, A)`, and the memory after each step, `(L, E, A, M)`."""
        rows = begins.unsqueeze(-1).expand(-1, -1, self.agents).flatten(1).unsqueeze(-1)  # (L, E * A, 1)
        value, memories = super().sequence(joint.flatten(0, 1), memory.flatten(0, 1), rows)
        return value.view(*begins.shape, self.agents), memories.unflatten(1, memory.shape[:2])

    # ---- being watched

    def features(self, joint: Tensor) -> list[Tensor]:
        """Activations of the layers `unit_layers` at `(B, J)`, `(B * A, H)` each: of encoders, the own group's."""
        return [self._encoders.of_own(joint), *super().features(joint)]

    def unit_layers(self) -> list[str]:
        """Names of the layers of units, from input to output: those of :meth:`features`."""
        return ["encoder", *super().unit_layers()]

    def weight_matrices(self) -> dict[str, nn.Parameter]:
        """Every weight matrix by its layer's name, from input to output: `encoder.GROUP` for each group first."""
        groups, encoders = self._encoders.groups, self._encoders.encoders
        weights = {f"encoder.{g.name}": e[0].weight for g, e in zip(groups, encoders, strict=True)}  # type: ignore[index]
        return weights | super().weight_matrices()

    @property
    def _encoders(self) -> Encoders:
        return self.hidden[0]  # type: ignore[return-value]


def _encoder(inputs: int, config: NetworkConfig) -> nn.Sequential:
    """A hidden layer as in a plain network: what means are taken of must not be linear."""
    width = config.hidden[0]
    norm = [NORMS[config.norm](width, None)] if config.norm in NORMS else []
    return nn.Sequential(Linear(inputs, width, None), *norm, ACTIVATIONS[config.activation]())
