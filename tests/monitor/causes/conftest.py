"""Fixtures of trainings in which a cause is to be named."""

from __future__ import annotations

import pytest

from marl_stable.agents.maddpg import MADDPG
from marl_stable.agents.mappo import MAPPO
from marl_stable.investigate import contributions


@pytest.fixture
def always_probing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short runs would see their networks once or twice, which is too little to say anything."""
    for algorithm in (MAPPO, MADDPG):
        monkeypatch.setattr(algorithm, "probe_every", property(lambda self: 1))


@pytest.fixture
def few_contributions(monkeypatch: pytest.MonkeyPatch) -> None:
    """What each agent contributes is told from as few episodes as are enough, not from as many as there may be."""
    monkeypatch.setattr(contributions, "EPISODES", contributions.FEWEST_EPISODES)
