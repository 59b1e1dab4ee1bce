"""Faults inside networks: weights too large, units that say nothing, agents that are all alike, a BatchNorm gone wrong.

Shapes: N rows, A agents, U units.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.sabotage.reach import BOTH, TARGETS, after, learners, networks
from marl_stable.networks.batchnorm import EPS, BatchNorm
from marl_stable.networks.body import ACTIVATIONS
from marl_stable.training import Training
from marl_stable.types import UsageError


@torch.no_grad()
def large_final_layer(training: Training, dose: float) -> None:
    """The actor's last layer, once the dose times as large."""
    for network in networks(training, ("actor",)):
        network.final.weight.mul_(dose)
        network.final.bias.mul_(dose)


@torch.no_grad()
def large_weights(training: Training, dose: float) -> None:
    """All weight matrices, once the dose times as large: what an initial gain far too high does."""
    for network in networks(training, BOTH):
        for name, parameter in network.named_parameters():
            if name.endswith("weight"):
                parameter.mul_(dose)


def killed_units(training: Training, dose: float) -> None:
    """The dose as the share of hidden units that say 0 for ever."""
    for network in networks(training, (*BOTH, *TARGETS)):
        for module in network.modules():
            if isinstance(module, tuple(ACTIVATIONS.values())):
                module.register_forward_hook(lambda _, __, out: _silenced(out, dose))


def _silenced(out: Tensor, share: float) -> Tensor:
    width = out.shape[-1]
    return out * (torch.arange(width, device=out.device) >= round(share * width))


@torch.no_grad()
def identical_agents(training: Training, dose: float) -> None:
    """Agents that share a network do not know who they are; those that do not, all have the first one's parameters."""
    for learner in learners(training):
        for name in ("actor", "target_actor"):
            if hasattr(learner, name):
                getattr(learner, name).body.identity.zero_()
        if learner.actor_optimizer.rows > 1:
            as_the_first = _as_the_first(learner.actor_optimizer.flat)
            as_the_first()
            after(learner.actor_optimizer, "move", as_the_first)


def _as_the_first(flat: Tensor) -> Callable[[], Tensor]:
    """Gives all rows of `(R, P)` the first one's values; the copy is for PyTorch, which may not read what it writes."""
    return lambda: flat.copy_(flat[:1].clone())


@torch.no_grad()
def large_recurrent_weights(training: Training, dose: float) -> None:
    """What is remembered counts the dose times as much, once."""
    cells = [network.recurrent for network in networks(training, BOTH) if network.recurrent is not None]
    if not cells:
        raise UsageError("the fault large_recurrent_weights needs memory; set algo.network.recurrent to gru or lstm.")
    for cell in cells:
        cell.remembered.weight.mul_(dose)


def batchnorm_mode(training: Training, dose: float) -> None:
    """BatchNorm learns on the statistics of the minibatch, and acts on running ones."""
    modules = [module for network in networks(training, BOTH) for module in network.modules()]
    layers: list[Any] = [module for module in modules if isinstance(module, BatchNorm)]
    if not layers:
        raise UsageError("the fault batchnorm_mode needs BatchNorm; set algo.network.norm to batch.")
    for layer in layers:
        layer.forward = _plain(layer)


def _plain(layer: BatchNorm) -> Callable[[Tensor], Tensor]:
    forward = layer.forward

    def plain(x: Tensor) -> Tensor:
        """`(N, U)` or `(A, N, U)`."""
        if layer.alive is None or layer.rate is not None:  # acting, or taking statistics in
            return forward(x)
        var, mean = torch.var_mean(x, dim=-2, keepdim=True, correction=0)
        return (x - mean) * torch.rsqrt(var + EPS) * layer.gain + layer.bias

    return plain


def as_configured(training: Training, dose: float) -> None:
    """Nothing: the flags are the fault."""
