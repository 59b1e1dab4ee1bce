"""What the table of precisions measures: updates that are alike but for how hidden layers multiply."""

from __future__ import annotations

import pytest
import torch

from benchmarks import precision


@pytest.mark.parametrize("algo", ["mappo", "maddpg"])
def test_a_line_has_both_times_and_their_ratio(algo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "COPIES", 8)
    monkeypatch.setattr(precision, "PAIRS", 1)
    made: list[bool] = []
    update = precision.update

    def seen(name: str, width: int, device: torch.device, bf16: bool) -> object:
        made.append(bf16)
        return update(name, width, device, bf16)

    monkeypatch.setattr(precision, "update", seen)
    cells = [cell.strip() for cell in precision.line(algo, 16, torch.device("cpu")).split("|")[1:-1]]
    assert cells[:2] == [algo, "16-16"]
    assert [cell.endswith(" ms") for cell in cells[2:4]] == [True, True]
    assert float(cells[4]) > 0
    assert made == [False, True]
