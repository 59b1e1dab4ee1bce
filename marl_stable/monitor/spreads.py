"""How random policies are, in nats, with what is next to no randomness and what next to all."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from marl_stable.monitor.calibration import Floats
from marl_stable.monitor.case import Case, place

NO_ENTROPY = 0.05  # of the maximum
NO_DEVIATION = -4.0  # log deviation; what PPO here may not go below is -5
UNIFORM = 0.03  # nats below the maximum, per choice or dimension: as random as can be


class Spread(NamedTuple):
    """Nats of a group's policy per choice or dimension, with what is next to none and what next to all."""

    where: dict[str, Any]
    steps: Any
    entropy: Floats  # (n,)
    least: float
    most: float


def spreads(case: Case) -> Iterator[Spread]:
    """Of groups whose actions are known. A squashed action is most random where it is uniform between its bounds."""
    groups = {group["name"]: group for group in (case.facts.get("spec") or {}).get("groups", [])}
    for entropy in case.recording.series("losses/entropy"):
        action = groups.get(entropy.where.get("group"), {}).get("action") or {}
        if "n" in action:
            options = np.atleast_1d(np.asarray(action["n"], dtype=np.float64))
            full = float(np.log(options).mean())
            if full > 0:
                values = entropy.values / len(options)
                yield Spread(place(entropy), entropy.steps, values, NO_ENTROPY * full, full - UNIFORM)
        elif "low" in action:
            squashed = case.config.get("algo.squash", True) is True
            values = entropy.values / max(1, len(action["low"]))
            least = NO_DEVIATION + 0.5 * math.log(2 * math.pi * math.e)
            yield Spread(place(entropy), entropy.steps, values, least, math.log(2) - UNIFORM if squashed else math.inf)
