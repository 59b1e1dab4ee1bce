"""Faults of how episodes and lives end. Shapes: E copies, A agents of a group, O observation features."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from benchmarks.faults.actions import idle
from benchmarks.faults.distortion import Distortion, measured_features
from marl_stable.envs.base import lost
from marl_stable.types import EnvSpec, PerGroup, Step, UsageError

GARBAGE = 1e3  # deviation of what the dead seem to see


class TimeLimitAsTermination(Distortion):
    """Time limits are reported as the end of the world; the dose is the share of copies that do so."""

    def outcome(self, step: Step, action: PerGroup) -> Step:
        """Flags alone; episodes that were given up because a copy failed stay truncated."""
        lies = torch.arange(self.num_envs, device=self.device) < self.dose * self.num_envs
        lies = (lies & ~lost(step)).unsqueeze(1)
        ends = step.truncated
        terminated = {name: step.terminated[name] | (end & lies & self.chosen[name]) for name, end in ends.items()}
        truncated = {name: end & ~terminated[name] for name, end in ends.items()}
        return step._replace(terminated=terminated, truncated=truncated)


class DyingAgents(Distortion):
    """Agents die, each with the probability `dose` a step, and the dead seem to see garbage; the last one lives on.

    The dead do nothing and earn nothing until their copy's episode ends.
    """

    DOSE, LEGAL = 0.02, True  # whether all actions of the dead are legal
    MEMORY: ClassVar[dict[str, torch.dtype]] = {"dead": torch.bool}
    OPTIONS: ClassVar[dict[str, Any]] = {"garbage": GARBAGE}

    def declared(self, spec: EnvSpec) -> EnvSpec:
        """As it is; UsageError where agents take turns, for the dead would have theirs."""
        if spec.turn_based:
            raise UsageError(f"the fault {self.kind} needs agents that act at once; {spec.id} is turn-based.")
        return spec

    def acted(self, action: PerGroup) -> PerGroup:
        """Nothing in place of what the dead chose."""
        found = {}
        for name, x in action.items():
            dead = self.memory["dead"][name]
            dead = dead if x.dim() == 2 else dead.unsqueeze(-1)
            found[name] = torch.where(dead, idle(self.group(name), x, self.obs[name]), x)
        return found

    def outcome(self, step: Step, action: PerGroup) -> Step:
        """Who dies in this step has acted in it; its end is no time limit."""
        dead, dying = self.memory["dead"], self.deaths(step)
        self.memory["dead"] = {name: dead[name] | dying[name] for name in dead}
        return step._replace(
            reward={name: x.masked_fill(dead[name], 0.0) for name, x in step.reward.items()},
            terminated={name: (x | dying[name]) & ~dead[name] for name, x in step.terminated.items()},
            truncated={name: x & ~dying[name] & ~dead[name] for name, x in step.truncated.items()},
            alive={name: x & ~dead[name] for name, x in step.alive.items()},
        )

    def deaths(self, step: Step) -> PerGroup:
        """`(E, A)` who dies now; nobody in a copy where nobody would be left."""
        dead, dying = self.memory["dead"], {}
        for name, x in dead.items():
            drawn = torch.rand(x.shape, generator=self.generator, device=self.device) < self.dose
            dying[name] = drawn & self.chosen[name] & step.alive[name] & ~x
        left = [(step.alive[name] & ~dead[name] & ~dying[name]).any(1, keepdim=True) for name in dead]
        goes_on = torch.cat(left, dim=1).any(1, keepdim=True)  # (E, 1)
        return {name: x & goes_on for name, x in dying.items()}

    def observed(self, obs: PerGroup) -> PerGroup:
        """Normal noise in place of what the dead see."""
        found = {}
        for name, x in obs.items():
            seen = self.options["garbage"] * self.normal(*x.shape)
            seen[..., measured_features(self.group(name)) :] = float(self.LEGAL)
            found[name] = torch.where(self.memory["dead"][name].unsqueeze(-1), seen, x)
        return found


class PaddedAgents(DyingAgents):
    """Agents die, but nothing says so: they are reported as living on, seeing zeros, and what they do is in vain."""

    LEGAL = False
    OPTIONS: ClassVar[dict[str, Any]] = {"garbage": 0.0}

    def outcome(self, step: Step, action: PerGroup) -> Step:
        """Without the ends of lives."""
        honest = super().outcome(step, action)
        return step._replace(reward=honest.reward)


KINDS: dict[str, type[Distortion]] = {
    "time_limit_as_termination": TimeLimitAsTermination,
    "dying_agents": DyingAgents,
    "padded_agents": PaddedAgents,
}
