"""What a trained policy is truly worth: greedy return without the faults of the reward, beside play without learning.

    score = clip((G - low) / (reference - low), 0, 1)

`low` is the better of random play and the best constant action on the environment that scores. An interval over seeds
comes from a bootstrap that draws anew within every stratum, a task with an algorithm.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import trim_mean

from marl_stable.acting import by_agent
from marl_stable.config import EnvConfig
from marl_stable.envs import catalog
from marl_stable.evaluation import play
from marl_stable.investigate import baselines
from marl_stable.policy import load_agent
from marl_stable.validation import Mended

EPISODES, COPIES = 400, 100
MAX_STEPS = 1_000
SEED = 2_000_003  # of episodes that neither training nor its evaluations play
DRAWS = 2_000
CPU = torch.device("cpu")


class Worth(NamedTuple):
    """What a policy is worth on an environment, and what can be had there without learning."""

    value: float  # mean return, the episodes that broke counting as `low`
    low: float
    broken: float  # share of episodes whose return is no number
    error: float  # standard error of `value`


def worth(run: Path, env: EnvConfig, mends: bool) -> Worth:
    """The last policy of `run`, played greedily on `env`; `mends`: it sees observations as a guarded run sees them."""
    act = by_agent(load_agent(run, "last").agent)
    made = catalog.make(
        env, CPU, EPISODES
    )  # one episode each: what drifts on is played no longer than it was trained on
    returns = play(made, Mended(act) if mends else act, EPISODES, SEED, MAX_STEPS).mean_returns()
    made.close()
    low = without_learning(env.id, json.dumps(env.kwargs))
    fine = np.isfinite(returns)
    counted = np.where(fine, returns, low)
    return Worth(float(counted.mean()), low, float(1 - fine.mean()), float(counted.std() / math.sqrt(len(counted))))


@lru_cache
def without_learning(env_id: str, kwargs: str) -> float:
    """The better of random play and the best constant action; `kwargs` as JSON."""
    env = catalog.make(EnvConfig(id=env_id, kwargs=json.loads(kwargs)), CPU, COPIES)
    found = baselines.measure(env, baselines.random_play(env, 0), 0, budget=10**9)
    env.close()
    return float(max(part["return"] for part in found.values()))


def score(value: float, low: float, reference: float) -> float:
    """From 0 (no better than without learning) to 1 (the reference, or better); NaN where that is no better itself."""
    if not reference > low:
        return math.nan
    return min(1.0, max(0.0, (value - low) / (reference - low)))


def iqm(values: Sequence[float] | NDArray[np.float64]) -> float:
    """Interquartile mean (Agarwal et al. 2021)."""
    return float(trim_mean(np.asarray(values, dtype=np.float64), 0.25))


def stratified_interval(strata: Iterable[Sequence[float]]) -> tuple[float, float]:
    """95% bootstrap interval of the interquartile mean over all strata, seeds drawn anew within each."""
    random = np.random.default_rng(0)
    drawn = np.concatenate([random.choice(np.asarray(part), (DRAWS, len(part))) for part in strata], axis=1)
    low, high = np.percentile(trim_mean(drawn, 0.25, axis=1), [2.5, 97.5])
    return float(low), float(high)


def latest(entries: Iterable[dict[str, Any]], key: Callable[[dict[str, Any]], Any]) -> list[dict[str, Any]]:
    """The last entry of every key: what crashed is done again, once it is mended."""
    return list({key(entry): entry for entry in entries}.values())


def same_figures(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    """Whether two tables of metrics are equal in all but time and speed."""

    def bare(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{tag: value for tag, value in row.items() if "second" not in tag} for row in rows]

    return bare(one) == bare(other)
