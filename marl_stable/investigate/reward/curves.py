"""How each term is paid in the course of an episode, by everyone who played the same episodes.

Shapes: T steps, E copies, A agents of a group, M episodes of single agents.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from marl_stable.investigate.reward.candidates import Candidate
from marl_stable.investigate.reward.play import Played, Roster, known, members, named
from marl_stable.types import EnvSpec, Group

PLAYERS = ("random", "best_constant", "policy", "expert")
FEWEST = 5  # episodes of single agents that must still go on
BAND = (10, 90)  # percentiles


def curves(spec: EnvSpec, who: Roster, candidates: Iterable[Candidate]) -> list[dict[str, Any]]:
    """By group, term and player: mean and band over episodes, step by step, as long as enough episodes go on."""
    players = [candidate for candidate in candidates if candidate.name in PLAYERS]
    return [
        {"group": group.name, "term": term, "player": player.name, **_course(player.play, who, group, term)}
        for group in spec.groups
        for term in named(group)
        for player in players
    ]


def _course(play: Played, who: Roster, group: Group, term: str) -> dict[str, Any]:
    columns = members(who, group)
    values = known(play.terms[:, :, columns, who.terms.index(term)])  # (T, E, A)
    rows = [values[t][live] for t, live in enumerate(play.live) if live.sum() * len(columns) >= FEWEST]
    low, high = (
        [float(np.percentile(row, part)) for row in rows] for part in BAND
    )  # of single agents' episodes, not of their mean
    return {
        "mean": [float(row.mean()) for row in rows],
        "low": low,
        "high": high,
        "episodes": int(play.live.shape[1]),
        "agents": len(columns),
    }
