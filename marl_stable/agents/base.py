"""What the loop asks of an algorithm, and what all algorithms share.

Shapes: T steps, E copies, N rows, A agents of a group, O observation features, D action features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from marl_stable.agents.group_learner import GroupLearner
from marl_stable.monitor.table import Layers
from marl_stable.networks.heads import Answer
from marl_stable.types import EnvSpec, PerGroup, Step

Stats = dict[str, dict[str, Tensor]]
"""tag -> group -> tensor, on the device."""

DRAWS = 2_000_003  # added to the run's seed: environments draw from the seed itself, and actions must not follow them

T = TypeVar("T")


class Player:
    """An agent's answers, step after step, in episodes that it does not learn from; made anew for each play."""

    def __init__(self, policy: Callable[[PerGroup], Mapping[str, Answer]]) -> None:
        self.policy = policy

    def __call__(self, obs: PerGroup) -> Mapping[str, Answer]:
        """Each group's answer, in raw actions, to raw observations `(E, A, O)`."""
        return self.policy(obs)

    def ended(self, done: Tensor) -> None:
        """Episodes of the copies `done (E,)` are over. Agents without memory have nothing to forget."""


class Rings(NamedTuple):
    """A replay as it is stored: by group and name `(slots, E, ...)`, step t in slot t modulo slots."""

    groups: dict[str, PerGroup]
    steps: int  # written so far
    settled: int  # steps before this one will not change any more


class Agent(Protocol):
    """Acts for all groups, keeps what happened, and learns from it once `rollout_steps` steps of every copy are in."""

    spec: EnvSpec
    config: Any
    generator: torch.Generator
    rollout_steps: int

    def compile(self) -> None:
        """From now on, update as fast as the device allows, with the same results."""

    def policy(self, obs: PerGroup) -> Mapping[str, Answer]:
        """Each group's answer, in raw actions, to raw observations `(E, A, O)`; with memory, to an episode's first."""

    def player(self) -> Player:
        """Who answers as the policy does, and remembers what it must from step to step."""

    def to_env(self, raw: PerGroup) -> PerGroup:
        """Raw actions in the environment's units."""

    def act(self, obs: PerGroup) -> PerGroup:
        """This step's actions, explored; `(E, A)` or `(E, A, D)` in the environment's units."""

    def observe(self, step: Step) -> None:
        """Keep what the actions led to."""

    def ready(self) -> bool:
        """Whether it is time to update."""

    def initialize_statistics(self, obs: PerGroup, alive: PerGroup | None = None) -> None:
        """Start the observation statistics from a short random play, `(N, A, O)` per group; of those `alive (N, A)`."""

    def update(self, progress: float, interrupted: Callable[[], bool]) -> Stats | None:
        """Learn, `progress` (0 to 1) into the run.

        None where `interrupted` said so in mid-update: then nothing has changed, and the update can be repeated.
        """

    @property
    def probe_every(self) -> int:
        """Every how many iterations `signals` may be asked for the probe, for half a percent of an update's passes."""

    def signals(self, probe: bool) -> Stats:
        """Figures of the last iteration, by tag: how actions behaved, and "stability/NAME" or "stability/NAME/NETWORK".

        With `probe` also those that take forward passes of their own. To be asked once an iteration, after the update:
        some are changes since they were last asked for.
        """

    @property
    def learners(self) -> Mapping[str, GroupLearner]:
        """How each group learns: its networks, optimisers and statistics."""

    def layer_names(self) -> dict[str, dict[str, Layers]]:
        """What the layers of each group's networks are called in their signals, `group -> network -> names`."""

    def sameness(self, raw: PerGroup) -> Stats:
        """How alike the raw actions `(T, E, A)` or `(T, E, A, D)` are, `{"sameness": group -> (A,)}`."""

    def action_counts(self) -> PerGroup:
        """Counts of executed actions since the last update, keyed by `agent/dimension`."""

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly, unfinished batches included."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""

    def begin_anew(self, copies: Tensor, obs: PerGroup) -> None:
        """The running episodes of `copies (E,)` are lost; new ones begin there with `obs (E, A, O)`.

        The step before counts as cut off where it had led to. To be told of copies in which an episode is under way.
        """

    def rings(self) -> Rings:
        """What is too large to be written anew with each checkpoint; empty for algorithms without a replay."""

    def policy_state(self) -> dict[str, Any]:
        """Everything needed to act and to be diagnosed."""

    def load_policy_state(self, state: dict[str, Any]) -> None:
        """Act as when `policy_state` was taken."""


def decay(schedule: str, progress: float) -> float:
    """Factor of the step size, `progress` (0 to 1) into the run: 1 at its beginning, and under decays 0 at its end."""
    falling = {"linear": 1 - progress, "cosine": 0.5 * (1 + math.cos(math.pi * progress))}
    return max(falling.get(schedule, 1.0), 0.0)


def merge(stats: Stats, group: str, found: Mapping[str, Tensor]) -> None:
    """Put one group's tensors, by tag, into `stats`."""
    for tag, value in found.items():
        stats.setdefault(tag, {})[group] = value


def copied(state: T) -> T:
    """A deep copy of nested dictionaries of tensors and plain values."""
    if isinstance(state, dict):
        return {key: copied(value) for key, value in state.items()}  # type: ignore[return-value]
    return state.clone() if isinstance(state, Tensor) else state  # type: ignore[return-value]


def mean_of(steps: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Means over an update's optimiser steps, and of `_peak` tags the largest; a tag counts the steps that have it."""
    found = {}
    for tag in dict.fromkeys(tag for step in steps for tag in step):
        values = torch.stack([step[tag] for step in steps if tag in step]).float()
        found[tag] = values.amax(0) if "_peak" in tag else values.mean(0)
    return found
