"""What the table of overhead says is the cost beside the same turns without."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.overhead import held, lines_of


def test_costs_are_ratios_within_a_turn() -> None:
    slow_turns = np.array([1.0, 5.0, 2.0])
    found = {
        "off": np.stack([slow_turns, [100.0, 100.0, 100.0], [50.0, 50.0, 50.0]], axis=1),
        "monitor": np.stack([slow_turns * 1.01, [100.0, 100.0, 101.0], [50.0, 50.0, 50.0]], axis=1),
        "guard": np.stack([slow_turns * 1.02, [100.0, 100.0, 100.0], [50.0, 50.0, 51.0]], axis=1),
    }
    monitor, guard = lines_of("mappo", found)
    assert monitor.startswith("| mappo | monitor | 2000 ms | +1.0% (+1.0 to +1.0) | +1.0% | +0.0% of")
    assert guard.startswith("| mappo | guard | 2000 ms | +2.0% (+2.0 to +2.0) | +0.0% | +2.0% of")


def test_tensors_that_share_memory_count_once() -> None:
    before = held()
    whole = torch.zeros(1_000_000)
    part = whole[10:]
    assert held() - before == 4_000_000
    assert part.shape == (999_990,)
