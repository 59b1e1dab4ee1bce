"""Every planted bug is found and named, by its id and its place and nothing else; in the sound twins nothing is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from marl_stable.investigate.doctor import checkup, rewards
from marl_stable.investigate.doctor.findings import IDS, Finding, Notebook
from tests.investigate.doctor.hurry import hurry
from tests.investigate.doctor.planted import PLANTED
from tests.investigate.doctor.planted.sound import SOUND

HERE = Path(__file__).with_name("planted")


@pytest.fixture(autouse=True)
def _briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a process of its own for each of these."""
    hurry(monkeypatch, 3.0)
    monkeypatch.setattr(checkup, "check_import", lambda env_id, kwargs, notes: None)


def found_in(name: str) -> list[Finding]:
    """What is found in the environment of a file and class of `planted`, as `sound.py:Sound`."""
    return checkup.examine(f"{HERE}/{name}", {}).findings


@pytest.mark.parametrize("name", SOUND)
def test_nothing_is_found_in_a_sound_environment(name: str) -> None:
    assert found_in(f"sound.py:{name}") == []


@pytest.mark.parametrize("name", [name for name in PLANTED if name != "actions.py:Sluggish"])
def test_a_planted_bug_is_named(name: str) -> None:
    id, severity, where = PLANTED[name]
    found = found_in(name)
    assert {finding.id for finding in found} == {id}
    named = [finding for finding in found if where.items() <= finding.where.items()]
    assert severity in {finding.severity for finding in named}
    for finding in found:
        assert finding.explanation.endswith(".")
        assert finding.remedy.endswith(".")
        assert "\n" not in finding.explanation + finding.remedy


def test_a_slow_step_is_named_with_the_function_that_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch, 0.4)
    (finding,) = found_in("actions.py:Sluggish")
    assert (finding.id, finding.severity, finding.where) == ("slow_step", "warning", {"call": "step"})
    assert finding.value > 0.03
    assert "time.sleep" in finding.explanation


def test_at_least_thirty_bugs_of_all_ids_but_those_of_imports() -> None:
    assert len(PLANTED) >= 30
    assert set(IDS) - {id for id, _, _ in PLANTED.values()} == {"not_importable"}


def test_the_rest_of_a_team_is_told_with_the_first() -> None:
    (finding,) = found_in("observations.py:ConstantFeature")
    assert finding.where == {"agent": "agent_0", "feature": 3}
    assert finding.explanation.endswith("The same holds for agent_1.")
    assert finding.value == 0.5


def test_a_shared_generator_is_told_from_no_seed_at_all() -> None:
    assert "share a global generator" in found_in("seeding.py:GlobalGenerator")[0].explanation
    assert "share" not in found_in("seeding.py:Unseeded")[0].explanation


def test_the_doctor_leaves_the_global_generator_alone() -> None:
    np.random.seed(3)
    before = np.random.get_state()[1].tolist()  # type: ignore[index]
    found_in("sound.py:Sound")
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index]


def test_two_examinations_agree() -> None:
    assert found_in("observations.py:OutOfBounds") == found_in("observations.py:OutOfBounds")


def test_rare_large_rewards_at_an_end_are_goals_and_no_outliers() -> None:
    judge = rewards.Rewards(notes := Notebook())
    usual = np.random.default_rng(0).normal(0, 1, 1_000)
    usual[500] = 1e6
    last = np.zeros(1_000, bool)
    last[500] = True
    judge._judge_shape("agent_0", usual, last)
    assert notes.findings() == []
    judge._judge_shape("agent_0", usual, ~last)
    assert [finding.id for finding in notes.findings()] == ["reward_outliers"]
