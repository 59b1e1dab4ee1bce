"""Both ways of learning beside workers make the same updates, and only one of them makes some while workers step."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import overlap
from marl_stable.agents.config import MADDPGConfig


def test_the_same_updates_between_steps_and_while_workers_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "COPIES", 16)
    monkeypatch.setattr(overlap, "WORKERS", 1)
    monkeypatch.setattr(overlap, "ROUND", 4 * MADDPGConfig.steps_per_update)
    loop = overlap.made()
    left: list[int] = []
    observe = loop.agent.observe

    def seen(step: Any) -> None:
        left.append(loop.left)
        observe(step)

    monkeypatch.setattr(loop.agent, "observe", seen)
    loop.round(False)
    steps = 4 * MADDPGConfig.steps_per_update // 16
    assert (left, loop.agent.updates) == ([4] * steps, 4)
    left.clear()
    loop.round(True)
    assert left == [3] * (steps // 4) + [2] * (steps // 4) + [1] * (steps // 4) + [0] * (steps // 4)
    assert loop.agent.updates == 8
    loop.envs.close()
