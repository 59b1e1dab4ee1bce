"""Playing whole episodes without learning, and what they say.

Shapes: E copies, N episodes, A agents of a group. Returns are per agent, undiscounted, from the environment's rewards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marl_stable.envs.base import BatchedEnv, lost
from marl_stable.statistics import BOOTSTRAP_SAMPLES, interquartile_mean
from marl_stable.types import EnvSpec, PerGroup

UNIT = "per-agent mean, undiscounted"
MAX_STEPS = 100_000  # of one copy; episodes that never end must not make an evaluation that never ends

Act = Callable[[PerGroup], PerGroup]
"""Observations `(E, A, O)` to actions in the environment's units. One that has a memory is a :class:`Remembering`."""


@runtime_checkable
class Remembering(Protocol):
    """An :data:`Act` that is told where episodes end."""

    def ended(self, done: Tensor) -> None:
        """The episodes of the copies `done (E,)` are over."""


class Episodes(NamedTuple):
    """What N episodes brought."""

    returns: NDArray[np.float64]  # (N, agents of the environment, in its order)
    lengths: NDArray[np.int64]  # (N,)

    def mean_returns(self) -> NDArray[np.float64]:
        """`(N,)` the mean over agents: the figure called return."""
        means: NDArray[np.float64] = self.returns.mean(axis=1)
        return means


def never() -> bool:
    """Nobody asks for an end."""
    return False


def play(env: BatchedEnv, act: Act, episodes: int, seed: int, max_steps: int = MAX_STEPS) -> Episodes:
    """:func:`play_unless`, to the end."""
    played = play_unless(never, env, act, episodes, seed, max_steps)
    assert played is not None
    return played


def play_unless(
    interrupted: Callable[[], bool], env: BatchedEnv, act: Act, episodes: int, seed: int, max_steps: int = MAX_STEPS
) -> Episodes | None:
    """Play `episodes` from `seed`, the same number in every copy (one more in the first ones).

    A fixed quota per copy, since taking the first N that end would prefer short episodes. A copy's first episode counts
    as it stands after `max_steps`, where nobody knows whether it would ever end; a later one that is cut off then does
    not count. One that was given up because its environment failed does not count either, and another is played for
    it. None where `interrupted` said so. `act` must not remember other episodes.
    """
    spec, copies = env.spec, env.num_envs
    quota = [episodes // copies + (copy < episodes % copies) for copy in range(copies)]
    wanted = list(quota)
    tally = _Tally(spec, copies, env.device)
    returns, lengths = [], []
    obs = env.reset(seed)
    for t in range(max_steps):
        if interrupted():
            return None
        action = act(obs)
        step = env.step(action)
        tally.add(step.reward)
        last = t == max_steps - 1
        if step.next_obs is not step.obs and isinstance(act, Remembering):
            act.ended(step.done)
        if last or step.next_obs is not step.obs:
            given_up = lost(step).tolist()
            for copy, over in enumerate(step.done.tolist()):
                as_it_stands = last and quota[copy] == wanted[copy]
                if not over and not as_it_stands:
                    continue
                total, length = tally.take(copy)
                if quota[copy] > 0 and (as_it_stands or not given_up[copy]):
                    quota[copy] -= 1
                    returns.append(total)
                    lengths.append(length)
            if not any(quota):
                break
        obs = step.obs
    return Episodes(np.array(returns), np.array(lengths))


class _Tally:
    """Running sums of each copy's episode."""

    def __init__(self, spec: EnvSpec, copies: int, device: torch.device) -> None:
        order = [agent for group in spec.groups for agent in group.agents]
        self.names = [group.name for group in spec.groups]
        self.column = [order.index(agent) for agent in spec.agents]
        self.total = torch.zeros(copies, len(order), dtype=torch.float64, device=device)
        self.length = [0] * copies

    def add(self, reward: PerGroup) -> None:
        self.total += torch.cat([reward[name] for name in self.names], dim=1)
        self.length = [length + 1 for length in self.length]

    def take(self, copy: int) -> tuple[list[float], int]:
        """The sums of `copy` in the environment's order of agents, and start anew."""
        total, length = self.total[copy].tolist(), self.length[copy]
        self.total[copy], self.length[copy] = 0.0, 0
        return [total[column] for column in self.column], length


def summarize(episodes: Episodes, spec: EnvSpec) -> dict[str, Any]:
    """The figures of `eval --json` that come from the episodes themselves."""
    per_agent = dict(zip(spec.agents, episodes.returns.mean(axis=0).tolist(), strict=True))
    per_group = {g.name: float(np.mean([per_agent[agent] for agent in g.agents])) for g in spec.groups}
    return {
        "return": describe(episodes.mean_returns()),
        "per_agent": per_agent,
        "per_group": per_group,
        "episode_length": float(episodes.lengths.mean()),
        "unit": UNIT,
    }


def describe(values: NDArray[np.float64]) -> dict[str, Any]:
    """Mean, deviation, interquartile mean (Agarwal et al. 2021) and the 95% bootstrap interval of the mean."""
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "iqm": float(interquartile_mean(values)),
        "ci95": list(bootstrap_interval(values)),
    }


def bootstrap_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """95% percentile interval of the mean over resampled values; the same values give the same interval."""
    draws = np.random.default_rng(0).choice(values, (BOOTSTRAP_SAMPLES, len(values)))
    low, high = np.percentile(draws.mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
