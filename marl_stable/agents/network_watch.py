"""How one network of a group, its optimiser and its target fare: the monitor's signals, asked in the right way.

Shapes: P probe rows, A agents, H units of a layer, R rows of the optimiser, L layers.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from marl_stable.monitor.signals import networks
from marl_stable.networks.body import Network
from marl_stable.optim import GuardedAdam


class NetworkWatch:
    """Reads a network's health; `name`, actor or critic, is the last part of every tag."""

    def __init__(self, name: str, network: nn.Module, optimizer: GuardedAdam) -> None:
        self.name, self.optimizer = name, optimizer
        parts = [part for part in network.modules() if isinstance(part, Network)]
        self.unit_names = parts[0].unit_layers()
        self.layer_names = _layer_names(parts, network, list(optimizer.matrices))
        self.restart()

    def restart(self) -> None:
        """Compare weights with what they are now, as after every reading.

        They do not move between a reading and a checkpoint, so a resumed run reads what one without a break does.
        """
        self._before = self.optimizer.flat.clone()

    def rate(self, lr: float) -> Tensor:
        """`(R,)` the size of steps where the caller asks for `lr`."""
        return lr * self.optimizer.rates.current.squeeze(1)

    @torch.no_grad()
    def read(self, lr: float, seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the optimiser's last steps, of size `lr`, did: `(R,)`, or `(R, L)` layer by layer. Begins anew.

        `seen` has the mean gradient norm of the iteration, where there was a step.
        """
        optimizer, layers = self.optimizer, self.optimizer.layers()
        change = optimizer.rms_by_matrix(optimizer.flat - self._before)
        found = {
            "update_ratio": networks.ratio(self.rate(lr) * optimizer.direction_rms(), networks.rms(optimizer.flat)),
            "eps_frozen": optimizer.frozen_share(),
            "layer_grad": layers.gradient,
            "layer_weight": layers.weight,
            "layer_change": networks.ratio(change, layers.weight),
        }
        if (norm := seen.get(f"grad_norm/{self.name}")) is not None:
            found["adam_memory"] = norm / optimizer.memory()
        self.restart()
        return {f"stability/{name}/{self.name}": value for name, value in found.items()}

    @torch.no_grad()
    def probe(self, features: list[Tensor], apart: bool, alive: Tensor | None) -> dict[str, Tensor]:
        """From the activations `(P, A, H)` of each layer at a probe: `dormant (L,)`, and the rank of the last, `()`."""
        asleep = torch.stack([networks.dormant(h, apart, alive) for h in features])
        rank = networks.effective_rank(features[-1], apart, alive)
        return {f"stability/dormant/{self.name}": asleep, f"stability/effective_rank/{self.name}": rank}


class TargetWatch:
    """Reads how a target network follows what is learned; `(R, P)` are its parameters and the learned ones."""

    def __init__(self, name: str, target: Tensor, learned: Tensor) -> None:
        """Both are flattened, and read where they lie."""
        self.name, self._target, self._learned = name, target, learned
        self.restart()

    def restart(self) -> None:
        """Compare the target with what it is now."""
        self._before = self._target.clone()

    @torch.no_grad()
    def read(self) -> dict[str, Tensor]:
        """`(R,)` how far the target moved since the last reading, and how far it is behind, over its size."""
        size = networks.rms(self._target)
        moved, behind = networks.rms(self._target - self._before), networks.rms(self._learned - self._target)
        found = {"target_change": networks.ratio(moved, size), "target_gap": networks.ratio(behind, size)}
        self.restart()
        return {f"stability/{name}/{self.name}": value for name, value in found.items()}


def _layer_names(parts: list[Network], network: nn.Module, modules: list[str]) -> list[str]:
    """What the weight matrices of `modules` are called; of twins, one network after the other."""
    names: dict[int, str] = {}
    for i, part in enumerate(parts):
        prefix = f"{i}." if len(parts) > 1 else ""
        names |= {id(weight): f"{prefix}{name}" for name, weight in part.weight_matrices().items()}
    return [names[id(network.get_submodule(module).weight)] for module in modules]
