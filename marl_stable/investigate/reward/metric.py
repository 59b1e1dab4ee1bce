"""What the user wants to see rise, from `infos[agent][NAME]`: played on single copies, for infos are not batched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from marl_stable.conversion import unknown
from marl_stable.envs import catalog, factory
from marl_stable.investigate.reward.play import Choose, Floats
from marl_stable.types import UsageError

EPISODES = 20
MOST_STEPS = 6_000


class Measured(NamedTuple):
    """By candidate, the metric and the return of the same episodes, `(M,)` each."""

    name: str
    metric: dict[str, Floats]
    returns: dict[str, Floats]

    def joined(self, other: Measured | None) -> Measured:
        """With other candidates."""
        if other is None:
            return self
        return Measured(self.name, self.metric | other.metric, self.returns | other.returns)


def measure(
    env_id: str, kwargs: dict[str, Any], name: str, players: Mapping[str, Choose], longest: int, seed: int
) -> Measured:
    """Play each of `players` on one copy; an episode's metric is the mean over agents of the last value reported.

    Raises UsageError where the environment has no infos, or no such metric in them.
    """
    try:
        made = catalog.make_single(env_id, kwargs)
    except UsageError as error:
        raise UsageError(f"metric {name!r} cannot be read: {error}") from error
    copy = factory.copy_of(made, env_id)
    metric, returns = {}, {}
    try:
        for player, choose in players.items():
            metric[player], returns[player] = _episodes(copy, name, choose, longest, seed)
    finally:
        made.close()
    return Measured(name, metric, returns)


def _episodes(copy: Any, name: str, choose: Choose, longest: int, seed: int) -> tuple[Floats, Floats]:
    values: list[float] = []
    returns: list[float] = []
    steps = 0
    while len(values) < EPISODES and (steps < MOST_STEPS or len(values) < 2):
        value, paid, length = _episode(copy, name, choose, longest, seed + len(values))
        values.append(value)
        returns.append(paid)
        steps += length
    return np.array(values), np.array(returns)


def _episode(copy: Any, name: str, choose: Choose, longest: int, seed: int) -> tuple[float, float, int]:
    obs, last, total = copy.reset(seed), None, 0.0
    known: set[str] = set()
    for t in range(longest):
        action = choose({group: torch.from_numpy(rows.copy()).unsqueeze(0) for group, rows in obs.items()}, t)
        step = copy.step({group: rows[0].numpy() for group, rows in action.items()})
        paid = np.concatenate([np.asarray(rows, dtype=np.float64) for rows in step.reward.values()])
        total += float(paid.mean())
        infos = copy.infos()
        found, names = _reported(infos, name)
        known |= names
        last = last if found is None else found
        obs = step.obs
        if step.done:
            break
    if last is None:
        raise unknown("metric", name, sorted(known), _remedy(known))
    return last, total, t + 1


def _remedy(known: set[str]) -> str:
    names = ", ".join(sorted(known))
    return f"The infos hold: {names}." if known else "The environment's infos hold no numbers; report it in infos."


def _reported(infos: Any, name: str) -> tuple[float | None, set[str]]:
    """The mean over agents of a number in infos, and the names of all numbers there."""
    values: list[float] = []
    names: set[str] = set()
    for info in infos.values() if isinstance(infos, Mapping) else ():
        if isinstance(info, Mapping):
            names |= {str(key) for key, value in info.items() if _number(value) is not None}
            value = _number(info.get(name))
            values += [] if value is None else [value]
    return (float(np.mean(values)) if values else None), names


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, str | Mapping) or value is None else float(value)
    except (TypeError, ValueError):
        return None
