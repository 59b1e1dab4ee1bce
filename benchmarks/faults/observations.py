"""Faults of observations. Features that say which actions are legal stay as they are, and last.

Shapes: E copies, A agents of a group, F measured features, K added ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from benchmarks.faults.distortion import Distortion, measured_features
from marl_stable.conversion import require
from marl_stable.types import EnvSpec, PerGroup


class Features(Distortion):
    """What faults of single features have in common: the `features` they hit; unset, the first ones."""

    OPTIONS: ClassVar[dict[str, Any]] = {"features": None}

    def declared(self, spec: EnvSpec) -> EnvSpec:
        """As it is; UsageError for a feature that some agent of those who are hit does not have."""
        given = self.options["features"]
        self.columns: dict[str, Tensor] = {}  # (F,) bool
        for group in spec.groups:
            count = measured_features(group)
            wanted = range(self.count(count)) if given is None else given
            if bool(self.chosen[group.name].any()):
                fits = all(0 <= feature < count for feature in wanted)
                require(fits, f"features of {self.kind}", list(wanted), f"from 0 to {count - 1} for {group.name}")
            self.columns[group.name] = torch.tensor([f in wanted for f in range(count)], device=self.device)
        return spec

    def count(self, every: int) -> int:
        """How many features are hit of `every` where none are named."""
        return 1

    def changed(self, obs: PerGroup, change: Callable[[str, Tensor], Tensor]) -> PerGroup:
        """`obs` with `change(group, features (E, A, F))` in the columns and for the agents that are hit."""
        found = {}
        for name, x in obs.items():
            columns = self.columns[name]
            seen = x[..., : len(columns)]
            seen = torch.where(self.chosen[name].unsqueeze(-1) & columns, change(name, seen), seen)
            found[name] = torch.cat([seen, x[..., len(columns) :]], dim=-1)
        return found


class ObsScale(Features):
    """Features times the dose; one, unless more are named."""

    DOSE = 1e5

    def observed(self, obs: PerGroup) -> PerGroup:
        """Some features alone."""
        return self.changed(obs, lambda _, seen: seen * self.dose)


class ObsFrozen(Features):
    """Features stuck at a value; as many as the dose says, unless they are named."""

    OPTIONS: ClassVar[dict[str, Any]] = {"features": None, "value": 0.0}

    def count(self, every: int) -> int:
        """The dose."""
        return int(self.dose)

    def observed(self, obs: PerGroup) -> PerGroup:
        """Some features alone."""
        return self.changed(obs, lambda _, seen: torch.full_like(seen, self.options["value"]))


class ObsNaNSensor(Features):
    """Features that are no number any more; as many as the dose says, unless they are named."""

    def count(self, every: int) -> int:
        """The dose."""
        return int(self.dose)

    def observed(self, obs: PerGroup) -> PerGroup:
        """Some features alone."""
        return self.changed(obs, lambda _, seen: torch.full_like(seen, math.nan))


class ObsNaN(Features):
    """One entry that is no number, in a rare step of a copy, the dose being its probability."""

    DOSE = 1e-4

    def count(self, every: int) -> int:
        """All."""
        return every

    def declared(self, spec: EnvSpec) -> EnvSpec:
        """As it is."""
        super().declared(spec)
        hit = [(self.chosen[g.name].unsqueeze(1) & self.columns[g.name]).flatten() for g in spec.groups]
        self.entries = torch.cat(hit).nonzero().squeeze(1)  # among those of all agents of all groups
        self.sizes = {group.name: len(part) for group, part in zip(spec.groups, hit, strict=True)}
        return spec

    def observed(self, obs: PerGroup) -> PerGroup:
        """One entry of a copy at most."""
        drawn = torch.randint(len(self.entries), (self.num_envs,), generator=self.generator, device=self.device)
        place = torch.where(self.rare(self.dose), self.entries[drawn], -1).unsqueeze(1)
        first, bad = 0, {}
        for name, size in self.sizes.items():
            bad[name] = place == torch.arange(first, first + size, device=self.device)
            first += size
        return self.changed(obs, lambda name, seen: seen.masked_fill(bad[name].view_as(seen), math.nan))


class ObsDrift(Features):
    """Features whose mean moves by the dose, in deviations under random actions, every `period` steps of a copy."""

    OPTIONS: ClassVar[dict[str, Any]] = {"features": None, "period": 1_000}

    def count(self, every: int) -> int:
        """All."""
        return every

    def observed(self, obs: PerGroup) -> PerGroup:
        """A shift that grows."""
        moved = self.dose * (self.steps - self.onset) / self.options["period"]
        std = self.clean.obs_std
        return self.changed(obs, lambda name, seen: seen + moved * std[name][: seen.shape[-1]])


class AddedFeatures(Distortion):
    """Features that say nothing, as many as the dose says: all `value`, or where that is none, normal noise."""

    DECLARED, DOSE = True, 20.0
    OPTIONS: ClassVar[dict[str, Any]] = {"value": 1.0}

    def declared(self, spec: EnvSpec) -> EnvSpec:
        """With more features."""
        self.added = int(self.dose)
        self.places = {group.name: measured_features(group) for group in spec.groups}
        groups = tuple(group._replace(obs_size=group.obs_size + self.added) for group in spec.groups)
        return spec._replace(groups=groups)

    def observed(self, obs: PerGroup) -> PerGroup:
        """With more features; those of agents who are not hit are 0."""
        found = {}
        for name, x in obs.items():
            new = self.filled(*x.shape[:2]) * self.chosen[name].unsqueeze(-1)
            at = self.places[name]
            found[name] = torch.cat([x[..., :at], new, x[..., at:]], dim=-1)
        return found

    def filled(self, copies: int, agents: int) -> Tensor:
        """`(E, A, K)`."""
        return torch.full((copies, agents, self.added), float(self.options["value"]), device=self.device)


class ObsNoise(AddedFeatures):
    """Features of normal noise, as many as the dose says."""

    DOSE = 200.0
    OPTIONS: ClassVar[dict[str, Any]] = {"std": 1.0}

    def filled(self, copies: int, agents: int) -> Tensor:
        """`(E, A, K)`."""
        return float(self.options["std"]) * self.normal(copies, agents, self.added)


class TwinAgents(Distortion):
    """Everyone of a group sees what its first agent sees."""

    def observed(self, obs: PerGroup) -> PerGroup:
        """The first agent's, legal actions aside."""
        found = {}
        for name, x in obs.items():
            at = measured_features(self.group(name))
            same = torch.where(self.chosen[name].unsqueeze(-1), x[:, :1, :at], x[..., :at])
            found[name] = torch.cat([same, x[..., at:]], dim=-1)
        return found


KINDS: dict[str, type[Distortion]] = {
    "obs_scale": ObsScale,
    "obs_frozen": ObsFrozen,
    "obs_nan_sensor": ObsNaNSensor,
    "obs_nan": ObsNaN,
    "obs_drift": ObsDrift,
    "obs_constant": AddedFeatures,
    "obs_noise": ObsNoise,
    "twin_agents": TwinAgents,
}
