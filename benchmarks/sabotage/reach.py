"""What sabotage can get hold of in a training: learners, optimisers, networks, and the methods it replaces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from marl_stable.agents.mappo import MAPPO
from marl_stable.networks.body import Network
from marl_stable.training import Training

Which = Literal["actor", "critic"]
BOTH: tuple[Which, ...] = ("actor", "critic")
TARGETS = ("target_actor", "target_critic")
ON_POLICY, OFF_POLICY = ("ppo",), ("ddpg",)
ALL = (*ON_POLICY, *OFF_POLICY)


def family(training: Training) -> str:
    """`ppo` for MAPPO and IPPO, `ddpg` for MADDPG, MATD3 and IDDPG."""
    return "ppo" if isinstance(training.agent, MAPPO) else "ddpg"


def learners(training: Training) -> list[Any]:
    """Those of all groups. Not typed, since methods of theirs are replaced."""
    agent: Any = training.agent
    return list(agent.learners.values())


def optimizers(training: Training, which: tuple[Which, ...]) -> list[Any]:
    """Those of all groups' actors, critics or both."""
    return [getattr(learner, f"{name}_optimizer") for learner in learners(training) for name in which]


def networks(training: Training, owners: tuple[str, ...]) -> list[Network]:
    """The bodies of all groups' actors, critics or targets, as far as there are any."""
    found = [getattr(learner, name, None) for learner in learners(training) for name in owners]
    modules = [module for owner in found if isinstance(owner, nn.Module) for module in owner.modules()]
    return [module for module in modules if isinstance(module, Network)]


def after(owner: Any, method: str, then: Callable[[], object]) -> None:
    """Let `then` follow every call of the method."""
    before = getattr(owner, method)

    def both(*given: Any) -> Any:
        found = before(*given)
        with torch.no_grad():
            then()
        return found

    setattr(owner, method, both)


@torch.no_grad()
def restore(parameters: list[nn.Parameter], values: list[Tensor]) -> None:
    """Write `values` into the parameters."""
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)
