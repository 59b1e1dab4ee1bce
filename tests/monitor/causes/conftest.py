"""Fixtures of trainings in which a cause is to be named."""

from __future__ import annotations

import pytest

from marl_stable.agents.maddpg import MADDPG
from marl_stable.agents.mappo import MAPPO


@pytest.fixture
def always_probing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short runs would see their networks once or twice, which is too little to say anything."""
    for algorithm in (MAPPO, MADDPG):
        monkeypatch.setattr(algorithm, "probe_every", property(lambda self: 1))
