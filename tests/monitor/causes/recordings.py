"""Cases made by hand: series by signal and place, at equally spaced steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from marl_stable.monitor.case import CAUSES, Case, Finding, can_look, findings
from marl_stable.monitor.causes import ROOMS
from marl_stable.monitor.recording import Recording
from marl_stable.monitor.table import Column

N, EVERY = 40, 1_000
AGENT = {"group": "agent", "agent": "agent_0"}
WHOLE: Mapping[str, Any] = {}  # the place of what is told of the run
DISCRETE: Mapping[str, Any] = {"n": 5, "start": 0}
CONTINUOUS: Mapping[str, Any] = {"low": [-1.0, -1.0], "high": [1.0, 1.0], "shape": [2]}
NOISE = np.random.default_rng(0).standard_normal(N)
assert ROOMS  # importing them registers the causes


def spec(action: Mapping[str, Any] = DISCRETE, agents: Sequence[str] = ("agent_0", "agent_1")) -> dict[str, Any]:
    """One group, one team."""
    group = {"name": "agent", "agents": list(agents), "obs_size": 4, "action": dict(action), "team": "team"}
    return {"id": "game", "agents": list(agents), "groups": [group], "turn_based": False}


def recorded(*series: tuple[str, Mapping[str, Any], ArrayLike]) -> Recording:
    """Signal, place, and its values: one for all readings, or one each (NaN where there was none)."""
    columns = {
        Column(signal, tuple(where.items())): np.broadcast_to(np.asarray(values, np.float64), (N,)).copy()
        for signal, where, values in series
    }
    return Recording(EVERY * np.arange(1, N + 1, dtype=np.int64), columns)


def case(*series: tuple[str, Mapping[str, Any], ArrayLike], config: Any = None, **facts: Any) -> Case:
    """A case of `recorded`, with facts; the game is discrete unless told otherwise."""
    return Case(recorded(*series), config or {}, {"spec": spec(), "total_steps": N * EVERY} | facts)


def found(name: str, of: Case) -> list[Finding]:
    """What the cause finds; nothing where it cannot look."""
    return findings(of, CAUSES[name]) if can_look(of, CAUSES[name].needs) else []


def stuck(level: float = 0.001) -> tuple[tuple[str, Mapping[str, Any], ArrayLike], ...]:
    """An agent that repeats one action in a run that gets nowhere."""
    flat = ("charts/return", WHOLE, 0.01 * NOISE)
    return flat, ("sameness", AGENT, 1.0), ("actions/responsiveness", AGENT, level)


def stepped(before: float, after: float, at: int = N // 2) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A leap at a reading."""
    return np.where(np.arange(N) < at, before, after).astype(np.float64)
