"""Faults of what is learned from: targets, values, old data, log-probabilities, exploration."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.sabotage.reach import after, learners, restore
from marl_stable.agents.maddpg import MADDPG
from marl_stable.training import Training
from marl_stable.types import PerGroup, UsageError


def targets_stand_still(training: Training, dose: float) -> None:
    """Target networks never follow what is learned."""
    for learner in learners(training):
        learner.follow = lambda: None


def targets_are_current(training: Training, dose: float) -> None:
    """Target networks are what is learned, so that values chase themselves."""
    for learner in learners(training):
        after(learner, "follow", _catching_up(learner))


def _catching_up(learner: Any) -> Callable[[], None]:
    def catch_up() -> None:
        for target, learned in ((learner.target_actor, learner.actor), (learner.target_critic, learner.critic)):
            restore(list(target.parameters()), list(learned.parameters()))

    return catch_up


def value_normaliser(training: Training, dose: float) -> None:
    """Values come back from their normal units with a mean that is the dose too high, in deviations."""
    for learner in learners(training):
        learner.value_norm.inverse = _raised(learner.value_norm.inverse, dose)


def _raised(inverse: Callable[[Tensor], Tensor], dose: float) -> Callable[[Tensor], Tensor]:
    return lambda x: inverse(x + dose)


def log_prob_mismatch(training: Training, dose: float) -> None:
    """Log-probabilities are remembered with normal noise, the dose wide in nats."""
    generator = torch.Generator(training.envs.device).manual_seed(training.config.seed)
    for learner in learners(training):
        learner.batch = _misremembered(learner.batch, dose, generator)


def _misremembered(batch: Callable[..., Any], dose: float, generator: torch.Generator) -> Callable[..., Any]:
    def misremembered(*seen: Tensor) -> Any:
        rows, stats = batch(*seen)
        noise = torch.empty_like(rows.log_prob).normal_(generator=generator)
        return rows._replace(log_prob=rows.log_prob + dose * noise), stats

    return misremembered


def moved_observations(training: Training, dose: float) -> None:
    """What is learned from is the dose, in deviations, beside what was acted on."""
    learning: list[bool] = []  # holds something while an update runs
    for learner in learners(training):
        learner.normalized = _moved(learner.normalized, learner.obs_norm.features, dose, learning)
    agent: Any = training.agent
    update = agent.update

    def within(*given: Any) -> Any:
        learning.append(True)
        try:
            return update(*given)
        finally:
            learning.clear()

    agent.update = within


def _moved(
    normalized: Callable[[Tensor], Tensor], features: int, dose: float, learning: list[bool]
) -> Callable[[Tensor], Tensor]:
    def moved(obs: Tensor) -> Tensor:
        seen = normalized(obs)
        return torch.cat([seen[..., :features] + dose, seen[..., features:]], dim=-1) if learning else seen

    return moved


def stale_replay(training: Training, dose: float) -> None:
    """What is drawn from the replay is what was in it at the onset, for ever."""
    agent = training.agent
    assert isinstance(agent, MADDPG)
    for learner in learners(training):
        filled = min(agent.t, learner.replay.slots)
        if filled == 0:
            raise UsageError("the fault stale_replay has nothing to keep before the first step; let it begin later.")
        old = copy.copy(learner.replay)
        for name, tensor in learner.replay.tensors().items():
            setattr(old, name, tensor[:filled].clone())
        learner.draw = _from(learner, old, filled * agent.num_envs)


def _from(learner: Any, old: Any, count: int) -> Callable[[Tensor], Any]:
    draw = learner.draw

    def drawn(rows: Tensor) -> Any:
        current, learner.replay = learner.replay, old
        try:
            return draw(rows % count)
        finally:
            learner.replay = current

    return drawn


def entropy_coefficient(training: Training, dose: float) -> None:
    """The dose as the weight of the entropy bonus."""
    for learner in learners(training):
        changed = copy.copy(learner.config)
        object.__setattr__(changed, "entropy_coef", dose)  # past its checks: no configuration has a negative one
        learner.config = changed


def no_exploration(training: Training, dose: float) -> None:
    """Agents do what they think best and nothing else, without a warm-up too."""
    agent: Any = training.agent

    @torch.no_grad()
    def act(obs: PerGroup) -> Any:
        agent.seen = obs
        agent.raw = {name: answer.mode() for name, answer in agent.policy(obs).items()}
        return agent.to_env(agent.raw)

    agent.act = act
