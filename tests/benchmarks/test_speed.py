"""What the tables of speed are made of, and that a hasty look leaves the committed ones alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import speed
from benchmarks.timed import replay, starting
from benchmarks.timed.crowd import CHOICES, LENGTH, Crowd, update_seconds
from benchmarks.timed.rows import Row, table
from benchmarks.timed.turns import in_turn
from marl_stable.types import PerGroup

CPU = torch.device("cpu")
ROWS = [Row("learning", 9_541.4, "floor {}", 13_902.0), Row("an import", 0.5, "target {}", 2.0, digits=2)]


def test_work_takes_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []

    def work(name: str, figures: Iterator[float]) -> float:
        order.append(name)
        return next(figures)

    slow, fast = iter([900.0, 1.0, 3.0, 2.0]), iter([0.0, 10.0, 10.0, 40.0])
    assert in_turn(3, lambda: work("slow", slow), lambda: work("fast", fast)) == [2.0, 10.0]
    assert order == ["slow", "fast"] * 4


def test_a_table_has_figures_and_what_they_are_beside() -> None:
    assert table("work | steps/s | beside | ratio", ROWS, ratios_only=False) == [
        "| work | steps/s | beside | ratio |",
        "|---|---|---|---|",
        "| learning | 9,541 | floor 13,902 | 0.69 |",
        "| an import | 0.50 | target 2.00 | 0.25 |",
    ]


def test_a_table_of_ratios_has_no_figures() -> None:
    assert table("work | steps/s | beside | ratio", ROWS, ratios_only=True) == [
        "| work | beside | ratio |",
        "|---|---|---|",
        "| learning | floor | 0.69 |",
        "| an import | target | 0.25 |",
    ]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Every measurement is a given one, and the table is elsewhere."""
    for name in ("work", "crowds", "critics", "waits"):
        monkeypatch.setattr(speed, name, lambda rounds: [ROWS[0]._replace(figure=100.0 * rounds)])
    monkeypatch.setattr(speed, "memory", lambda: [ROWS[1]])
    monkeypatch.setattr(speed, "seconds_to", lambda goal, seed: (94.2 + seed, 902_400))
    monkeypatch.setattr(speed, "TABLE", tmp_path / "results" / "speed.md")
    return tmp_path / "results" / "speed.md"


def test_the_whole_is_written(
    measured: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["speed"])
    speed.main()
    written = measured.read_text(encoding="utf-8")
    assert written.count("| learning | 700 | floor 13,902 | 0.05 |") == 4
    assert "| an import | 0.50 | target 2.00 | 0.25 |" in written
    assert "seed by seed: 95 s (902,400 steps), 96 s (902,400 steps), 97 s (902,400 steps)." in written
    assert written in capsys.readouterr().out


def test_a_quick_look_shows_ratios_and_writes_nothing(
    measured: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["speed", "--quick"])
    speed.main()
    shown = capsys.readouterr().out
    assert not measured.exists()
    assert shown.count("| learning | floor | 0.01 |") == 4  # fewer rounds
    assert "13,902" not in shown


def test_rows_of_crowds_are_beside_the_fewest_of_their_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "update_seconds", lambda agents, share: lambda: 0.3 / agents * (1 if share else 2))
    lines = [row.line() for row in speed.crowds(1)]
    assert lines[0] == "| 10 agents, shared | 30.00 | 3 agents 100.00 | 0.30 |"
    assert lines[-1] == "| 100 agents, one network each | 6.00 | 3 agents 200.00 | 0.03 |"


def test_rows_of_critics_are_beside_those_of_as_many_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    each = {"pool": 0.2, "concatenate": 0.4}
    monkeypatch.setattr(speed, "update_seconds", lambda agents, algo, critic_input: lambda: each[critic_input] / agents)
    lines = [row.line() for row in speed.critics(1)]
    assert lines[0] == "| 3 agents, mappo | 66.67 | concatenate 133.33 | 0.50 |"
    assert lines[-1] == "| 100 agents, maddpg | 2.00 | concatenate 4.00 | 0.50 |"


def steps_of(crowd: Crowd, actions: list[torch.Tensor]) -> list[tuple[PerGroup, torch.Tensor]]:
    steps = [crowd.step({"agent": action}) for action in actions]
    return [(step.obs, step.reward["agent"]) for step in steps]


def test_a_crowd_is_paid_for_naming_the_largest_it_sees() -> None:
    crowd = Crowd(7, 4, CPU)
    right = crowd.reset(1)["agent"][..., :CHOICES].argmax(dim=-1)
    assert crowd.step({"agent": right}).reward["agent"].eq(1).all()
    wrong = (crowd.seen[..., :CHOICES].argmax(dim=-1) + 1) % CHOICES
    assert crowd.step({"agent": wrong}).reward["agent"].eq(0).all()


def test_a_crowds_episodes_are_cut_off_and_go_on_from_a_saved_state() -> None:
    crowd, fresh = Crowd(3, 2, CPU), Crowd(3, 2, CPU)
    crowd.reset(1)
    still = torch.zeros(2, 3).long()
    ends = [crowd.step({"agent": still}).done.all().item() for _ in range(LENGTH + 3)]
    assert [t for t, over in enumerate(ends) if over] == [LENGTH - 1]
    obs = fresh.load_state_dict(crowd.state_dict())
    assert torch.equal(obs["agent"], crowd.seen)
    for (seen, paid), (again, repaid) in zip(steps_of(crowd, [still] * 30), steps_of(fresh, [still] * 30), strict=True):
        assert torch.equal(seen["agent"], again["agent"])
        assert torch.equal(paid, repaid)


@pytest.mark.parametrize(
    "settings",
    [{}, {"share": False}, *({"algo": algo, "critic_input": "pool"} for algo in ("mappo", "maddpg"))],
    ids=str,
)
def test_updates_of_a_crowd_are_timed_again_and_again(settings: dict[str, Any]) -> None:
    update = update_seconds(2, **settings)
    assert update() > 0
    assert update() > 0


def test_a_replays_bytes_are_those_of_its_tensors_and_are_found_in_a_new_process() -> None:
    per_step = 3 * (2 * 18 * 4 + 8 + 4 + 3)  # observations twice, an action, a reward, three flags
    assert replay.computed(100_000) == 100_000 * per_step
    assert replay.measured(100_000) == pytest.approx(100_000 * per_step, rel=0.1)


def test_a_line_is_timed_in_a_process_of_its_own() -> None:
    assert starting.seconds_of("import time; time.sleep(0.1)") >= 0.1
