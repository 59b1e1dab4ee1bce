"""The page on rewards: its environment pays for going round in circles, and `reward` says so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from marl_stable.cli.train import train_config
from marl_stable.investigate.reward import arena, searching
from marl_stable.investigate.reward.debugging import examine

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "is_it_my_reward.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^marl-stable (\w+) (.*)$", PAGE, re.MULTILINE)


@pytest.fixture
def courier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment of the page as a file in the working directory, and its id; the search for greed is brief."""
    pytest.importorskip("mpe2")
    (source,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("courier.py").write_text(source, encoding="utf-8")
    monkeypatch.setattr(arena, "SECONDS", 1e6)
    monkeypatch.setattr(searching, "GENERATIONS", 1)
    monkeypatch.setattr(searching, "MOST_TERMS", 0)
    return "courier.py:Courier"


def causes(found: dict[str, Any]) -> list[tuple[str, str | None]]:
    return [(finding["cause"], finding["where"].get("term")) for finding in found["findings"]]


def test_the_reward_that_pays_for_circles_is_named_first(courier: str) -> None:
    found = examine(courier)
    assert causes(found) == [("shaping_changes_task", "nearer")]
    pays, loops = (found["findings"][0]["evidence"][key] for key in ("loop_gain_per_step", "loops"))
    assert f"{loops:.0f} loops" in PAGE
    assert f"pays {pays:.3g} a step" in PAGE


def test_the_fair_one_is_accused_of_nothing_of_the_kind(courier: str) -> None:
    assert causes(examine(courier, {"fair": True})) == [("reward_term_dominates", "nearer")]


def test_the_commands_of_the_page_are_understood() -> None:
    assert {name for name, _ in COMMANDS} == {"reward", "train"}
    for words in (words for name, words in COMMANDS if name == "train"):
        config = train_config(words.replace("'", "").replace('{"fair": true}', '{"fair":true}').split())
        assert config.env.id == "courier.py:Courier"
        assert config.env.kwargs == ({"fair": True} if "fair" in words else {})
