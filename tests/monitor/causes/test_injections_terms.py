"""Real trainings on courts whose reward terms have a fault: it is named first, and its sound twin is not accused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from marl_stable.monitor.case import CAUSES
from marl_stable.monitor.diagnosis import diagnose
from tests.monitor.causes import courts
from tests.monitor.causes.test_injections import Run, trained
from tests.monitor.causes.trainings import OFF, ON


class Pair(NamedTuple):
    """A court with a fault, the same one without, and what is said of the first."""

    cause: str
    faulty: str
    sound: str
    term: str
    flags: Mapping[str, Any] = ON
    where: Mapping[str, Any] = {}


WIDE = ON | {"env__num_envs": 32, "seed": 3}
SHORT = WIDE | {"algo__batch_size": 320, "algo__lr": 2e-3, "total_steps": 12_800}
LONG = WIDE | {"algo__batch_size": 480, "algo__lr": 2e-3, "total_steps": 19_200}

PAIRS = {
    "a cost that rules, on": Pair("reward_term_dominates", "dear_effort", "effort", "effort"),
    "a cost that rules, off": Pair("reward_term_dominates", "dear_effort", "effort", "effort", OFF),
    "taken back": Pair("reward_terms_conflict", "undone", "opposed", "approach"),
    "noise, on": Pair("reward_uncontrollable", "storm", "weather", "weather"),
    "paid to live": Pair("episode_length_incentive", "lingering", "alive", "alive", LONG),
    "paid to die": Pair("episode_length_incentive", "suicide", "cliff", "time", ON | {"total_steps": 6_000}),
    "loops": Pair("shaping_changes_task", "loops", "hints", "progress", LONG | {"algo__lr": 4e-3}),
    "lured": Pair("reward_hacking", "lure", "wall", "wall", SHORT),
}


def run(court: str, flags: Mapping[str, Any]) -> Run:
    return Run("", flags, f"{courts.__name__}:{court}")


@pytest.mark.usefixtures("always_probing", "few_contributions")
@pytest.mark.parametrize("name", PAIRS)
def test_a_fault_of_terms_is_named_first_and_not_without_its_function(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = PAIRS[name]
    case = trained(tmp_path, run(pair.faulty, pair.flags))
    found = diagnose(case)["findings"]
    assert [entry["cause"] for entry in found][:1] == [pair.cause]
    assert found[0]["where"]["term"] == pair.term
    assert found[0]["where"]["agent"] in case.facts["spec"]["agents"]
    assert found[0]["onset_steps"] <= 0.25 * case.recording.steps[-1]
    assert pair.term in found[0]["explanation"]
    monkeypatch.delitem(CAUSES, pair.cause)
    assert all(entry["cause"] != pair.cause for entry in diagnose(case)["findings"])


@pytest.mark.usefixtures("always_probing", "few_contributions")
@pytest.mark.parametrize("name", PAIRS)
def test_its_sound_twin_is_not_accused(name: str, tmp_path: Path) -> None:
    pair = PAIRS[name]
    found = diagnose(trained(tmp_path, run(pair.sound, pair.flags)))["findings"]
    assert [entry["cause"] for entry in found if entry["cause"] != "unknown"] == []  # the shortest have learned little
