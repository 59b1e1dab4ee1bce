"""Faults of the reward, and two tasks that look like faults: one constant action is best, or only the bounds are.

Shapes: E copies, A agents of a group, D action features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from benchmarks.faults.distortion import Distortion, require_box
from marl_stable.conversion import require
from marl_stable.envs.base import BatchedEnv
from marl_stable.envs.particle.simple_spread import SimpleSpread
from marl_stable.types import ActionSpec, Box, EnvSpec, PerGroup, Step


class RewardScale(Distortion):
    """Rewards times the dose."""

    REWARD = True

    def outcome(self, step: Step, action: PerGroup) -> Step:
        """Rewards alone."""
        return self.repaid(step, lambda _, reward: reward * self.dose)


class RewardOffset(Distortion):
    """Rewards plus the dose, step by step."""

    REWARD = True

    def outcome(self, step: Step, action: PerGroup) -> Step:
        """Rewards alone."""
        return self.repaid(step, lambda _, reward: reward + self.dose)


class RewardSpike(Distortion):
    """Rewards of the dose in place of the true ones, in a rare step of a copy."""

    REWARD, DOSE = True, 1e6
    OPTIONS: ClassVar[dict[str, Any]] = {"probability": 1e-5}

    def outcome(self, step: Step, action: PerGroup) -> Step:
        """Rewards alone."""
        hit = self.rare(self.options["probability"]).unsqueeze(1)
        return self.repaid(step, lambda _, reward: torch.where(hit, self.dose, reward))


class RewardNoise(Distortion):
    """Normal noise, the dose times as wide as rewards are under random actions."""

    REWARD, DOSE = True, 5.0

    def outcome(self, step: Step, action: PerGroup) -> Step:
        """Rewards alone."""
        std = self.clean.reward_std
        return self.repaid(step, lambda name, reward: reward + self.dose * std[name] * self.normal(*reward.shape))


class RewardDelay(Distortion):
    """Nothing until an agent's episode ends, and then all at once (times the dose)."""

    REWARD = True
    MEMORY: ClassVar[dict[str, torch.dtype]] = {"owed": torch.float32}

    def outcome(self, step: Step, action: PerGroup) -> Step:
        """Rewards alone."""
        owed = {name: debt + step.reward[name] for name, debt in self.memory["owed"].items()}
        ends = {name: step.terminated[name] | step.truncated[name] | step.done.unsqueeze(1) for name in owed}
        self.memory["owed"] = {name: debt.masked_fill(ends[name], 0.0) for name, debt in owed.items()}
        return self.repaid(step, lambda name, _: torch.where(ends[name], self.dose * owed[name], 0.0))


class RewardSparse(Distortion):
    """The dose where the true reward is above `threshold`, else nothing; unset: above its 99% quantile at random."""

    REWARD = True
    OPTIONS: ClassVar[dict[str, Any]] = {"threshold": None}

    def outcome(self, step: Step, action: PerGroup) -> Step:
        """Rewards alone."""
        given = self.options["threshold"]

        def pay(name: str, reward: Tensor) -> Tensor:
            return self.dose * (reward > (self.clean.reward_high[name] if given is None else given)).to(reward.dtype)

        return self.repaid(step, pay)


class RewardFlip(Distortion):
    """What was good is bad (times the dose); `term`: of simple_spread, collisions alone, which are then sought."""

    REWARD = True
    OPTIONS: ClassVar[dict[str, Any]] = {"term": None}

    def __init__(self, env: BatchedEnv, fault: Mapping[str, Any], measure: Any) -> None:
        """UsageError for a term that the environment's reward does not have."""
        super().__init__(env, fault, measure)
        self.cost = env.local_ratio if isinstance(env, SimpleSpread) else None  # of a collision
        term = self.options["term"]
        known = term is None or (term == "collisions" and self.cost is not None)
        require(known, f"term of {self.kind}", term, "unset, or collisions in simple_spread")

    def outcome(self, step: Step, action: PerGroup) -> Step:
        """Rewards alone."""
        if self.options["term"] is None or self.cost is None:
            return self.repaid(step, lambda _, reward: -self.dose * reward)
        swing = (1 + self.dose) * self.cost
        return self.repaid(step, lambda name, reward: reward + swing * collisions(step.next_obs[name]))


class RewardZero(Distortion):
    """No reward at all."""

    REWARD = True

    def outcome(self, step: Step, action: PerGroup) -> Step:
        """Rewards alone."""
        return self.repaid(step, lambda _, reward: torch.zeros_like(reward))


class RewardNaN(Distortion):
    """Rewards that are no number in a rare step of a copy, the dose being its probability."""

    REWARD, DOSE, VALUE = True, 1e-5, math.nan

    def outcome(self, step: Step, action: PerGroup) -> Step:
        """Rewards alone."""
        hit = self.rare(self.dose).unsqueeze(1)
        return self.repaid(step, lambda _, reward: torch.where(hit, self.VALUE, reward))


class RewardInf(RewardNaN):
    """Infinite rewards in a rare step of a copy, the dose being its probability."""

    VALUE = math.inf


class RewardFromChance(Distortion):
    """Rewards that nothing the agents do can change: as under random actions, the dose times as wide."""

    REWARD = True

    def outcome(self, step: Step, action: PerGroup) -> Step:
        """Rewards alone."""
        mean, std = self.clean.reward_mean, self.clean.reward_std
        return self.repaid(step, lambda name, r: mean[name] + self.dose * std[name] * self.normal(*r.shape))


class ConstantActionOptimal(Distortion):
    """Another task, on which the same action is always best: `action`, as a choice or as a place in [-1, 1]."""

    OPTIONS: ClassVar[dict[str, Any]] = {"choice": 1, "place": 0.5}

    def outcome(self, step: Step, action: PerGroup) -> Step:
        """Minus the distance to the best action, or 1 for the best choice and else 0."""

        def pay(name: str, reward: Tensor) -> Tensor:
            kind = self.group(name).action
            if isinstance(kind, Box):
                off: Tensor = (canonical(kind, action[name]) - float(self.options["place"])).abs()
                return -self.dose * off.mean(-1)
            hits = torch.eq(action[name], self.options["choice"]).to(reward.dtype)
            return self.dose * (hits if hits.dim() == reward.dim() else hits.mean(-1))

        return self.repaid(step, pay)


class BangBangOptimal(Distortion):
    """Another task, on which only the bounds are best: dimension d follows the sign of feature d (cyclically)."""

    def declared(self, spec: EnvSpec) -> EnvSpec:
        """As it is."""
        require_box(spec, self.kind)
        return spec

    def outcome(self, step: Step, action: PerGroup) -> Step:
        """The mean over dimensions of the action in [-1, 1] times the sign that it should have."""

        def pay(name: str, reward: Tensor) -> Tensor:
            kind = self.group(name).action
            if not isinstance(kind, Box):
                return reward
            wanted = torch.arange(len(kind.low), device=self.device) % self.obs[name].shape[-1]
            signs = self.obs[name].index_select(-1, wanted).sign()
            return self.dose * (canonical(kind, action[name]) * signs).mean(-1)

        return self.repaid(step, pay)


def collisions(obs: Tensor) -> Tensor:
    """How many others each agent of simple_spread touches, by what it sees `(E, A, O)`; `(E, A)`."""
    agents = obs.shape[1]
    others = obs[..., 4 + 2 * agents : 2 + 4 * agents].unflatten(-1, (agents - 1, 2))  # relative to itself
    touches: Tensor = others.norm(dim=-1) < 2 * SimpleSpread.RADIUS
    return touches.sum(-1).to(obs.dtype)


def canonical(kind: ActionSpec, action: Tensor) -> Tensor:
    """Box actions `(E, A, D)` with their bounds at -1 and 1."""
    assert isinstance(kind, Box)
    low, high = torch.tensor(kind.low, device=action.device), torch.tensor(kind.high, device=action.device)
    return 2 * (action - low) / (high - low) - 1


KINDS: dict[str, type[Distortion]] = {
    "reward_scale": RewardScale,
    "reward_offset": RewardOffset,
    "reward_spike": RewardSpike,
    "reward_noise": RewardNoise,
    "reward_delay": RewardDelay,
    "reward_sparse": RewardSparse,
    "reward_flip": RewardFlip,
    "reward_zero": RewardZero,
    "reward_nan": RewardNaN,
    "reward_inf": RewardInf,
    "reward_from_chance": RewardFromChance,
    "constant_action_optimal": ConstantActionOptimal,
    "bang_bang_optimal": BangBangOptimal,
}
