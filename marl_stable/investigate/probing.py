"""Games with known answers: what an agent that has learned one gets for it, and what its critic says of it.

Shapes: E copies, A agents, S features of the joint observation.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from marl_stable.acting import by_agent
from marl_stable.agents import algorithm as algorithm_class
from marl_stable.agents.config import default_config
from marl_stable.agents.ppo_learner import PPOLearner
from marl_stable.envs.probe import GAMES, Probe
from marl_stable.evaluation import play as play_episodes
from marl_stable.investigate.questions import (
    GAMMA,
    ITERATIONS,
    QUESTIONS,
    SEEDS,
    Check,
    Question,
    answered,
    on_policy,
    settings_of,
)
from marl_stable.types import PerGroup

COPIES, CPU = 64, torch.device("cpu")
EPISODES_SEED = 99


class Trained(NamedTuple):
    """An agent that has learned a game."""

    agent: Any
    env: Probe
    lowest: float  # reward paid in any step
    non_finite: float  # largest share of an update's optimiser steps whose gradient was not finite


def play(game: str, algorithm: str) -> list[Check]:
    """Learn the probe game called `game`, with another seed where the first fails, and answer its questions."""
    began = time.perf_counter()
    checks: list[Check] = []
    for seed in SEEDS:
        trained = train(game, algorithm, seed)
        checks = [_answer(algorithm, trained, question) for question in QUESTIONS if question.game == game]
        if all(check.ok for check in checks):
            break
    each = (time.perf_counter() - began) / len(checks)
    return [check._replace(seconds=each) for check in checks]


def train(game: str, algorithm: str, seed: int) -> Trained:
    """An agent after the game's iterations of 320 steps in 64 copies."""
    agent, env, obs = begin(game, algorithm, seed)
    lowest, non_finite = math.inf, 0.0
    for _ in range(ITERATIONS[game][not on_policy(algorithm)]):
        obs, low = collect(agent, env, obs)
        stats = agent.update(0.0, lambda: False)
        shares = [float(x["agent"].max()) for tag, x in stats.items() if tag.startswith("non_finite/")]
        lowest, non_finite = min(lowest, low), max([non_finite, *shares])
    return Trained(agent, env, lowest, non_finite)


def _answer(algorithm: str, trained: Trained, question: Question) -> Check:
    agent, env, lowest, non_finite = trained
    if question.measure == "return":
        played = play_episodes(env, by_agent(agent), COPIES, EPISODES_SEED)
        expected, found = env.best_return, float(played.mean_returns().mean())
    elif question.measure == "value":
        expected, found = env.value(GAMMA), _first_value(agent, env)
    else:  # in the game of masks only what is forbidden costs
        expected, found = 0.0, float(lowest < 0) if question.measure == "forbidden" else non_finite
    figures = (expected, found, question.tolerance)
    return answered(question.game, question.measure, algorithm, figures, 0.0, question.meaning, question.cause)


@torch.no_grad()
def _first_value(agent: Any, env: Probe) -> float:
    """What the critic says of first observations and greedy actions, in units of reward, of those who move first."""
    learner, obs = agent.learners["agent"], env.reset(EPISODES_SEED)
    seen = learner.normalized(obs["agent"])
    if isinstance(learner, PPOLearner):
        value = learner.critic(seen.flatten(1) if learner.central else seen)
        value = learner.value_norm.inverse(value) if learner.config.normalize_value else value  # (E, A)
    else:
        action = learner.actor.encoded(agent.policy(obs)["agent"].mode())
        parts = [seen.flatten(1), action.flatten(1)] if learner.central else [seen, action]
        value = learner.critic(torch.cat(parts, dim=-1)).amin(0)  # (E, A)
    return float((value[:, 0] if env.turn_based else value).mean())


def begin(game: str, algorithm: str, seed: int, **settings: Any) -> tuple[Any, Probe, PerGroup]:
    """An agent, its copies of the game, and what it sees first."""
    env = GAMES[game](COPIES, CPU)
    config = replace(default_config(algorithm), **settings_of(game, algorithm) | settings)
    agent = algorithm_class(algorithm)(env.spec, config, COPIES, CPU, seed)
    obs = env.reset(seed)
    agent.initialize_statistics(obs)
    return agent, env, obs


def collect(agent: Any, env: Probe, obs: PerGroup) -> tuple[PerGroup, float]:
    """Act until it is time to learn; what to act on next, and the lowest reward."""
    lowest = math.inf
    while not agent.ready():
        step = env.step(agent.act(obs))
        agent.observe(step)
        obs, lowest = step.obs, min(lowest, float(step.reward["agent"].min()))
    return obs, lowest
