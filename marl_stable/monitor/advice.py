"""What a remedy's settings come to for a run: in the direction of the remedy's sentence, from what the run has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

UNSET = ("algo.clip_value", "algo.target_kl", "algo.network.final_init", "env.time_limit_as")
"""What a run's configuration leaves out where it is not set; what else it leaves out the algorithm does not have."""
UNKNOWN = object()


class Turned(NamedTuple):
    """A setting with a direction: to `start`, or to `factor` times what the run has where that is further; no further
    than `limit`."""

    factor: float  # above 1: to larger values
    start: float  # counts are int
    limit: float

    def of(self, present: Any) -> float:
        """The setting for a run that has `present`, which is given back where it lies at the limit or beyond."""
        if isinstance(present, bool) or not isinstance(present, int | float):
            return self.start
        further, nearer = (max, min) if self.factor > 1 else (min, max)
        if further(present, self.limit) == present:
            return present
        turned = present * self.factor
        turned = int(turned) if isinstance(self.start, int) else float(f"{turned:.0e}")  # one digit
        return nearer(further(turned, self.start), self.limit)


LARGER_PENALTY = Turned(10.0, 1e-2, 1.0)  # on actions before the tanh
SMALL_START = Turned(0.0, 3e-3, 3e-3)  # of the last layer: at once to what is usual, from larger values only


def slower(config: Mapping[str, Any], network: str) -> dict[str, Any]:
    """A third of the step size of the actor or critic; nothing where that is not known."""
    own = f"algo.{network}_lr"
    key = own if isinstance(config.get(own), float) else "algo.lr"
    return {key: Turned(0.3, math.inf, 0.0)} if isinstance(config.get(key), float) else {}


def settings(config: Mapping[str, Any], wanted: Mapping[str, Any], network: str | None = None) -> dict[str, Any]:
    """Of what a remedy wants that which changes a run of `config`: dotted keys, without what it has or cannot have.

    `network`: the one that is at fault; where it has a setting of its own, that is the one to change. A loop of which
    next to nothing is known is advised as if it had nothing.
    """
    advised: dict[str, Any] = {}
    for common, want in wanted.items():
        key = _own(config, common, network)
        present = _present(config, key)
        if present is UNKNOWN and "algo.name" in config:
            continue
        value = want.of(present) if isinstance(want, Turned) else want
        if present is UNKNOWN or value != present:
            advised[key] = value
    return advised


def _own(config: Mapping[str, Any], key: str, network: str | None) -> str:
    own = key.replace("algo.network.", f"algo.{network}_network.")
    return key if config.get(own) is None else own


def _present(config: Mapping[str, Any], key: str) -> Any:
    """What the run has; a network without a setting of its own has the common one."""
    common = key.replace("algo.actor_network.", "algo.network.").replace("algo.critic_network.", "algo.network.")
    for name in (key, common):
        if config.get(name) is not None:
            return config[name]
    return None if key in config or ("algo.name" in config and common in UNSET) else UNKNOWN
