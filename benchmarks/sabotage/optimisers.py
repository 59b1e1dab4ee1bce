"""Faults of how weights are moved: steps too long or too short, a spike, weights that never move."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.sabotage.reach import Which, after, learners, optimizers, restore
from marl_stable.training import Training


def learning_rate(which: tuple[Which, ...]) -> Callable[[Training, float], None]:
    """Steps the dose times as long."""

    def apply(training: Training, dose: float) -> None:
        for optimizer in optimizers(training, which):
            optimizer.move = _lengthened(optimizer.move, dose)

    return apply


def _lengthened(step: Callable[..., Any], dose: float) -> Callable[..., Any]:
    return lambda loss, lr, *rest: step(loss, lr * dose, *rest)


def gradient_spike(which: tuple[Which, ...]) -> Callable[[Training, float], None]:
    """One gradient, the next, the dose times as long."""

    def apply(training: Training, dose: float) -> None:
        for optimizer in optimizers(training, which):
            optimizer.move = _spiked(optimizer, dose)

    return apply


def _spiked(optimizer: Any, dose: float) -> Callable[..., Any]:
    step = optimizer.move

    def spiked(loss: Tensor, *rest: Any) -> Any:
        optimizer.move = step
        return step(loss * dose, *rest)

    return spiked


def frozen_parameters(training: Training, dose: float) -> None:
    """As many of the actor's weight matrices as the dose says, the largest first, are never updated."""
    for learner in learners(training):
        matrices = [p for name, p in learner.actor.named_parameters() if name.endswith("weight")]
        held = sorted(matrices, key=torch.numel, reverse=True)[: int(dose)]
        after(learner.actor_optimizer, "move", partial(restore, held, [p.detach().clone() for p in held]))
