"""How fast networks move, row by row of their optimisers, against how fast they do where learning goes well.

Shapes: R rows of an optimiser, L weight matrices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from marl_stable.monitor.table import NETWORKS, Host

# Runs that learned stayed below 0.02; 0.2, but for first batches at 77; 0.3, and 0.73 at ten times the usual rate.
LONGEST_STEP = 0.1  # of the weights, rms to rms
LARGEST_KL = 0.5  # nats per update
LARGEST_CHANGE = 0.85  # of the weights within an iteration, rms to rms, in the matrix that changed least
# Of all weights, by Adam's first step, which moves each by the rate: the defaults give 0.02 at a width of 128 and still
# less than 0.1 at one of 2,048; at thirty times MADDPG's rate (0.7) two trainings of three were lost in a few updates.
LONGEST_FIRST, USUAL_FIRST = 0.1, 0.03

FIRST_STEP = "the first update could throw the actor's outputs to their ends"
LONG_FIRST = "the first update could change the weights too far"
TOO_LONG = "steps are too long for the weights"
TOO_FAR = "the policy changes too much in an update"
REPLACED = "a network became another one within an iteration"


class FirstStep(NamedTuple):
    """How long the first step of a row would be, by whichever of its measures is farthest beyond what is usual."""

    value: float
    usual: float
    limit: float
    reason: str


def first_step(share: float, reach: Mapping[str, float | None]) -> FirstStep:
    """`share`: of the weights, rms to rms; `reach`: how far it can move an output (`value`), with what is usual
    (`warn`) and what is too far (`alarm`), as far as that is known."""
    value, usual, limit = (reach.get(name) for name in ("value", "warn", "alarm"))
    found = [FirstStep(share, USUAL_FIRST, LONGEST_FIRST, LONG_FIRST)]
    if value is not None and usual is not None and limit is not None:
        found.append(FirstStep(value, usual, limit, FIRST_STEP))
    beyond = [first for first in found if first.value > first.limit] or found
    return max(beyond, key=lambda first: first.value / first.usual)


class Reading(NamedTuple):
    """How fast one row of an optimiser moves: of what is beyond its limit, or nearest to it."""

    group: str
    network: str
    row: int
    rows: int
    value: float
    limit: float
    reason: str
    stunned: bool

    @property
    def haste(self) -> float:
        """In units of the limit; 0 where it is no number."""
        return self.value / self.limit if self.value == self.value else 0.0


def readings(found: Host) -> Iterator[Reading]:
    """Every row of every network's optimiser."""
    for network in NETWORKS:
        for group, ratios in found.get(f"stability/update_ratio/{network}", {}).items():
            rows = len(ratios)
            still = np.zeros(rows)
            changes = found.get(f"stability/layer_change/{network}", {}).get(group, still[:, None]).min(axis=1)
            stunned = found.get(f"stunned/{network}", {}).get(group, still)
            kl = found.get("losses/approx_kl", {}).get(group, still) if network == "actor" else still
            for row in range(rows):
                choices = (
                    (float(changes[row]), LARGEST_CHANGE, REPLACED),
                    (float(ratios[row]), LONGEST_STEP, TOO_LONG),
                    (float(np.max(kl)), LARGEST_KL, TOO_FAR),
                )
                found_here = [Reading(group, network, row, rows, *choice, bool(stunned[row])) for choice in choices]
                first = found_here[0]
                yield first if first.haste > 1 else max(found_here, key=lambda reading: reading.haste)
