"""Faults between an agent's action and the environment.

Shapes: E copies, A agents of a group, D action features, K choices at once, n choices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from benchmarks.faults.distortion import Distortion, require_box
from marl_stable.conversion import require
from marl_stable.envs.base import BatchedEnv
from marl_stable.types import ActionSpec, Box, Discrete, EnvSpec, Group, PerGroup, legal_features


class ActionRange(Distortion):
    """Continuous actions are asked for in [-dose, dose], and scaled to what the environment takes."""

    DECLARED, DOSE = True, 0.01

    def declared(self, spec: EnvSpec) -> EnvSpec:
        """With other bounds."""
        require_box(spec, self.kind)
        return spec._replace(groups=tuple(group._replace(action=self.bounds(group.action)) for group in spec.groups))

    def bounds(self, action: ActionSpec) -> ActionSpec:
        """The bounds that are declared."""
        if not isinstance(action, Box):
            return action
        return action._replace(low=(-self.dose,) * len(action.low), high=(self.dose,) * len(action.low))

    def acted(self, action: PerGroup) -> PerGroup:
        """From the declared bounds to the true ones."""
        return {name: self.obeyed(self.group(name).action, x) for name, x in action.items()}

    def obeyed(self, kind: ActionSpec, x: Tensor) -> Tensor:
        """What is done of `x (E, A, D)`."""
        if not isinstance(kind, Box):
            return x
        low, high = _bounds(kind, x)
        return torch.lerp(low, high, (0.5 * (x / self.dose + 1)).clamp(0, 1))


class ActionClipped(ActionRange):
    """The environment declares a range the dose times as wide as the one it obeys, and cuts off what is beyond."""

    DOSE = 10.0

    def bounds(self, action: ActionSpec) -> ActionSpec:
        """The true ones, spread about their middle."""
        if not isinstance(action, Box):
            return action
        pairs = list(zip(action.low, action.high, strict=True))
        low = tuple((1 + self.dose) / 2 * a + (1 - self.dose) / 2 * b for a, b in pairs)
        high = tuple((1 - self.dose) / 2 * a + (1 + self.dose) / 2 * b for a, b in pairs)
        return action._replace(low=low, high=high)

    def obeyed(self, kind: ActionSpec, x: Tensor) -> Tensor:
        """What is done of `x (E, A, D)`."""
        if not isinstance(kind, Box):
            return x
        low, high = _bounds(kind, x)
        return torch.minimum(torch.maximum(x, low), high)


class ActionDead(Distortion):
    """Dimensions, or choices, that do nothing: as many of the last ones as the dose says, unless they are named."""

    OPTIONS: ClassVar[dict[str, Any]] = {"dimensions": None}

    def __init__(self, env: BatchedEnv, fault: Mapping[str, Any], measure: Any) -> None:
        """UsageError for a dimension that some agent of those who are hit does not have."""
        super().__init__(env, fault, measure)
        given = self.options["dimensions"]
        self.dead: dict[str, Tensor] = {}  # (D,), (K,) or (n,) bool
        for group in env.spec.groups:
            count = group.action.n if isinstance(group.action, Discrete) else len(group.action[0])
            wanted = range(max(0, count - int(self.dose)), count) if given is None else given
            fits = all(0 <= dimension < count for dimension in wanted)
            require(fits, f"dimensions of {self.kind}", list(wanted), f"from 0 to {count - 1} for {group.name}")
            self.dead[group.name] = torch.tensor([d in wanted for d in range(count)], device=self.device)

    def acted(self, action: PerGroup) -> PerGroup:
        """Nothing in place of what has no effect."""
        found = {}
        for name, x in action.items():
            group, dead = self.group(name), self.dead[name]
            if isinstance(group.action, Discrete):
                hit = dead[x] & self.chosen[name]
            else:
                hit = dead & self.chosen[name].unsqueeze(-1)
            found[name] = torch.where(hit, idle(group, x, self.obs[name]), x)
        return found


class LazyAgent(Distortion):
    """Agents whose actions are ignored; the first one, unless others are named."""

    def __init__(self, env: BatchedEnv, fault: Mapping[str, Any], measure: Any) -> None:
        super().__init__(env, {"agents": [env.spec.agents[0]], **fault}, measure)

    def acted(self, action: PerGroup) -> PerGroup:
        """Nothing in place of what they chose."""
        found = {}
        for name, x in action.items():
            hit = self.chosen[name] if x.dim() == 2 else self.chosen[name].unsqueeze(-1)
            found[name] = torch.where(hit, idle(self.group(name), x, self.obs[name]), x)
        return found


def idle(group: Group, like: Tensor, obs: Tensor) -> Tensor:
    """To do nothing, `like` actions are: the first choice (the first legal one), or 0 (the bound nearest to it)."""
    if isinstance(group.action, Box):
        low, high = _bounds(group.action, like)
        return torch.zeros_like(low).clamp(low, high).expand_as(like)
    legal = legal_features(group)
    return obs[..., -legal:].argmax(-1) if legal else torch.zeros_like(like)


def _bounds(kind: Box, like: Tensor) -> tuple[Tensor, Tensor]:
    return torch.tensor(kind.low, device=like.device), torch.tensor(kind.high, device=like.device)


KINDS: dict[str, type[Distortion]] = {
    "action_range": ActionRange,
    "action_clipped": ActionClipped,
    "action_dead": ActionDead,
    "lazy_agent": LazyAgent,
}
