"""What each agent of a team contributes: the return that the team loses when that agent acts at random.

No signal of the training itself tells: an agent that does nothing useful may well respond to all that it sees.
Shapes: E copies, A agents of a group, O observation features.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from marl_stable.acting import by_agent, random_action
from marl_stable.agents.base import Agent
from marl_stable.envs.base import BatchedEnv
from marl_stable.evaluation import Act, Episodes, Remembering, never, play_unless
from marl_stable.investigate.baselines import ACTIONS, EPISODES, MAX_EPISODE, SEED
from marl_stable.types import EnvSpec, PerGroup

MOST_AGENTS = 8
BUDGET_STEPS = 4_000  # of the environment: some written in Python take a hundredth of a second for each
FEWEST_EPISODES = 10


def measure(
    agent: Agent, env: BatchedEnv, seed: int, interrupted: Callable[[], bool] = never
) -> dict[str, dict[str, float]]:
    """{agent: {"loss": mean return lost when it acts at random, "error": its standard error}}, agents by name.

    Everyone else acts greedily, episodes beginning alike each time. Empty unless there is one team of 2 to 8 agents,
    where 10 episodes of each absence would take more than 4,000 steps, and where `interrupted` said so.
    """
    names = env.spec.agents
    if len(env.spec.teams) != 1 or not 2 <= len(names) <= MOST_AGENTS:
        return {}

    def played(act: Act, count: int) -> Episodes | None:
        return play_unless(interrupted, env, act, count, seed + SEED, MAX_EPISODE)

    first = played(by_agent(agent), FEWEST_EPISODES)
    count = 0 if first is None else int(BUDGET_STEPS / (float(first.lengths.mean()) * (1 + len(names))))
    if count < FEWEST_EPISODES:
        return {}
    together = played(by_agent(agent), min(EPISODES, count))
    found = {}
    for name in names:
        generator = torch.Generator(env.device).manual_seed(seed + ACTIONS)
        without = played(replaced(env.spec, by_agent(agent), name, generator), min(EPISODES, count))
        if together is None or without is None:
            return {}
        found[name] = _loss(together, without)
    return found


def replaced(spec: EnvSpec, act: Act, name: str, generator: torch.Generator) -> Act:
    """`act`, but for the agent `name`, which takes uniformly random legal actions."""
    group = next(group for group in spec.groups if name in group.agents)
    row = group.agents.index(name)

    def without(obs: PerGroup) -> PerGroup:
        chosen = act(obs)
        actions = chosen[group.name].clone()
        actions[:, row] = random_action(group, obs[group.name], generator)[:, row].to(actions.dtype)
        return chosen | {group.name: actions}

    return _Remembering(without, act) if isinstance(act, Remembering) else without


class _Remembering:
    """An act that hands on where episodes end."""

    def __init__(self, act: Act, remembers: Remembering) -> None:
        self.act, self.ended = act, remembers.ended

    def __call__(self, obs: PerGroup) -> PerGroup:
        return self.act(obs)


def _loss(together: Episodes, without: Episodes) -> dict[str, float]:
    """The difference of mean returns and its standard error; episodes of fixed length end in the same order, so that
    each is compared with the one that began alike."""
    one, other = together.mean_returns(), without.mean_returns()
    if np.array_equal(together.lengths, without.lengths):
        variance = float((one - other).var(ddof=1)) / len(one)
    else:
        variance = float(one.var(ddof=1)) / len(one) + float(other.var(ddof=1)) / len(other)
    return {"loss": float(one.mean() - other.mean()), "error": math.sqrt(variance)}
