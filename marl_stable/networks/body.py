"""From input features to outputs: plain layers or residual blocks, then one linear layer.

Shapes: L steps, N rows, A agents, I inputs, H hidden width, U outputs, M features of memory; with agents apart every
tensor has a leading A.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from marl_stable.config import Activation, NetworkConfig, Norm
from marl_stable.networks.batchnorm import BatchNorm
from marl_stable.networks.init import init_final, init_hidden
from marl_stable.networks.layers import LayerNorm, Linear, Tanh
from marl_stable.networks.recurrent import Recurrent

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "tanh": Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}
UNITS = tuple(ACTIVATIONS.values())
NORMS: dict[Norm, type[LayerNorm | BatchNorm]] = {"layer": LayerNorm, "batch": BatchNorm}


class ResidualBlock(nn.Module):
    """x + W2 act(W1 norm(x)), the inner layer twice as wide (after SimBa, Lee et al. 2025, eq. 5)."""

    def __init__(self, width: int, config: NetworkConfig, agents: int | None) -> None:
        super().__init__()
        self.norm = NORMS[config.norm](width, agents) if config.norm in NORMS else nn.Identity()
        self.expand = Linear(width, 2 * width, agents)
        self.activation = ACTIVATIONS[config.activation]()
        self.contract = Linear(2 * width, width, agents)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, H)` to `(N, H)`."""
        return torch.add(x, self.contract(self.inner(x)))

    def inner(self, x: Tensor) -> Tensor:
        """`(N, H)` to the activations of the inner layer, `(N, 2H)`."""
        return self.activation(self.expand(self.norm(x)))  # type: ignore[no-any-return]


class Network(nn.Module):
    """A stack of hidden layers, a recurrent cell where there is to be one, and a linear last layer."""

    def __init__(
        self,
        inputs: int | list[nn.Module],
        outputs: int,
        config: NetworkConfig,
        agents: int | None,
        generator: torch.Generator,
    ) -> None:
        """`inputs`: I, or the layers that stand for the first linear one where inputs are not rows of features."""
        super().__init__()
        build = _plain if config.block == "plain" else _residual
        first: list[nn.Module] = [Linear(inputs, config.hidden[0], agents)] if isinstance(inputs, int) else inputs
        self.hidden = nn.Sequential(*build(first, config, agents))
        width = config.hidden[-1] if config.block == "plain" else config.hidden[0]
        self.final = Linear(width, outputs, agents)
        for module in self.modules():
            if isinstance(module, Linear):
                init_hidden(module.weight, config.init, config.activation, generator)
        if config.final_init is not None:
            init_final(self.final.weight, config.final_init, generator)
            init_final(self.final.bias, config.final_init, generator)
        self.recurrent = None
        if config.recurrent != "none":
            self.recurrent = Recurrent(config.recurrent, width, config.norm == "layer", agents, generator)

    @property
    def memory_size(self) -> int:
        """M; 0 for a network without memory."""
        return self.recurrent.memory_size if self.recurrent else 0

    def forward(self, x: Tensor) -> Tensor:
        """`(N, I)` to `(N, U)`, or with agents apart `(A, N, I)` to `(A, N, U)`; with a cell, where episodes begin."""
        hidden = self.hidden(x)
        if self.recurrent is not None:
            hidden = self.recurrent(hidden, *self._beginning(hidden))[0]
        return self.last(hidden)

    def last(self, hidden: Tensor) -> Tensor:
        """What the last layer makes of hidden features: `(N, H)` to `(N, U)`."""
        return self.final(hidden)  # type: ignore[no-any-return]

    def _beginning(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What a cell is told where the rows `x` begin episodes: no memory, and none to be forgotten."""
        memory = x.new_zeros(*x.shape[:-1], self.memory_size)
        return memory, torch.zeros(1, x.shape[-2], 1, dtype=torch.bool, device=x.device)

    def sequence(self, x: Tensor, memory: Tensor, begins: Tensor) -> tuple[Tensor, Tensor]:
        """`(L * N, I)`, step after step, to `(L * N, U)`, and the memory after each step, `(L, N, M)`.

        `memory (N, M)` is from before the first step, and forgotten where `begins (L, N, 1)`.
        """
        hidden = self.hidden(x)
        if self.recurrent is None:
            return self.last(hidden), hidden.new_zeros(*hidden.shape[:-2], *begins.shape[:2], 0)
        remembered, memories = self.recurrent(hidden, memory, begins)
        return self.last(remembered), memories

    # ---- being watched

    def features(self, x: Tensor) -> list[Tensor]:
        """Activations of the layers `unit_layers`, `(N, H)` or with agents apart `(A, N, H)` each, at `(N, I)`.

        The last is what `final` sees. With a cell they are those where episodes begin.
        """
        found: list[Tensor] = []
        for layer in self.hidden:
            if isinstance(layer, ResidualBlock):
                found.append(layer.inner(x))
                x = torch.add(x, layer.contract(found[-1]))
            else:
                x = layer(x)
                if isinstance(layer, UNITS):
                    found.append(x)
        if self.recurrent is not None:
            x = self.recurrent(x, *self._beginning(x))[0]
        return found if found[-1] is x else [*found, x]

    def unit_layers(self) -> list[str]:
        """Names of the layers of units, from input to output: those of :meth:`features`."""
        blocks = any(isinstance(layer, ResidualBlock) for layer in self.hidden)
        count = sum(isinstance(layer, (*UNITS, ResidualBlock)) for layer in self.hidden)
        names = [f"{'block' if blocks else 'hidden'}.{i}" for i in range(count)]
        if self.recurrent is not None:
            return [*names, "recurrent"]
        return [*names, "residual"] if blocks else names

    def weight_matrices(self) -> dict[str, nn.Parameter]:
        """Every weight matrix by its layer's name, from input to output."""
        plain = [layer for layer in self.hidden if isinstance(layer, Linear)]
        blocks = [layer for layer in self.hidden if isinstance(layer, ResidualBlock)]
        linears = {f"hidden.{i}": layer for i, layer in enumerate(plain)}
        for i, block in enumerate(blocks):
            linears |= {f"block.{i}.expand": block.expand, f"block.{i}.contract": block.contract}
        if self.recurrent is not None:
            linears |= {"recurrent.input": self.recurrent.seen, "recurrent.memory": self.recurrent.remembered}
        return {name: layer.weight for name, layer in (linears | {"final": self.final}).items()}


def multiply_in_bf16(module: nn.Module) -> None:
    """From now on, hidden layers of all networks in `module` multiply in bfloat16.

    Last layers stay as they are, for a log-probability or a value with a precision of 0.4% is noise in every ratio, and
    so do cells, which would hand rounding on from step to step: neither is where the time goes.
    """
    for network in module.modules():
        if isinstance(network, Network):
            for layer in network.hidden.modules():
                if isinstance(layer, Linear):
                    layer.bf16 = True


def _plain(first: list[nn.Module], config: NetworkConfig, agents: int | None) -> list[nn.Module]:
    layers = [*first]
    for i, width in enumerate(config.hidden):
        if i:
            layers.append(Linear(config.hidden[i - 1], width, agents))
        if config.norm in NORMS:
            layers.append(NORMS[config.norm](width, agents))
        layers.append(ACTIVATIONS[config.activation]())
    return layers


def _residual(first: list[nn.Module], config: NetworkConfig, agents: int | None) -> list[nn.Module]:
    width = config.hidden[0]
    layers = [*first, *(ResidualBlock(width, config, agents) for _ in config.hidden)]
    if config.norm in NORMS:
        layers.append(NORMS[config.norm](width, agents))
    return layers
