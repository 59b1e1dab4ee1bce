"""The whole examination: of well-known environments, of factories that only this process has, of calls that hang."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import pytest

from marl_stable.envs import factory
from marl_stable.investigate.doctor import checkup, patience
from marl_stable.investigate.doctor.checkup import examine
from marl_stable.types import UsageError
from tests.investigate.doctor.hurry import hurry
from tests.investigate.doctor.planted.sound import Sound

HERE = Path(__file__).with_name("planted")

CONTINUOUS = {"continuous_actions": True}
SILENT = ("observation_constant", {"agent": "agent_0", "feature": [14, 15, 16, 17]})  # what silent agents say
UNUSED = ("action_has_no_effect", {"agent": "agent_0", "dimension": 0})  # of mpe2's continuous actions, by design
KNOWN: list[tuple[str, dict[str, Any], list[tuple[str, dict[str, Any]]]]] = [
    # environment, arguments, all that is true of it
    ("mpe2/simple_spread_v3", {}, [SILENT]),
    ("mpe2/simple_spread_v3", CONTINUOUS, [UNUSED, SILENT]),
    ("mpe2/simple_speaker_listener_v4", {}, []),
    ("particle/simple_speaker_listener_v4", {}, []),
    ("classic/rps_v2", {}, []),
    ("classic/tictactoe_v3", {}, []),
    ("gymnasium/CartPole-v1", {}, []),
]


@pytest.mark.parametrize(("env_id", "kwargs", "known"), KNOWN, ids=[f"{env} {kwargs}" for env, kwargs, _ in KNOWN])
def test_nothing_false_is_found(
    env_id: str,
    kwargs: dict[str, Any],
    known: list[tuple[str, dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hurry(monkeypatch, 5.0)
    found = examine(env_id, kwargs)
    assert [(finding.id, finding.where) for finding in found.findings] == known
    assert found.as_dict()["passed"]


def test_what_knights_archers_zombies_keeps_through_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch, 5.0)
    leaks = examine("butterfly/knights_archers_zombies_v11", {}).findings
    assert [finding.id for finding in leaks if finding.severity == "error"] == ["reset_leak"]
    assert "After 1 steps of another episode" in leaks[0].explanation
    assert leaks[0].value == 19


def test_the_limit_that_multiwalker_reports_as_termination(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch, 5.0)
    found = examine("sisl/multiwalker_v9", {})
    assert found.as_dict()["passed"]
    (limit,) = [finding for finding in found.findings if finding.id == "time_limit_as_termination"]
    assert limit.where == {"argument": "max_cycles"}
    assert "--env.time-limit-as truncation" in limit.remedy


def make_here() -> Sound:
    return Sound()


def test_a_factory_of_the_running_script_is_not_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch, 3.0)
    monkeypatch.setattr(sys.modules["__main__"], "make_here", make_here, raising=False)
    (finding,) = examine("__main__:make_here", {}).findings
    assert (finding.id, finding.severity) == ("not_importable", "error")
    assert "make_here" in finding.explanation


def test_a_module_that_only_this_process_has_is_not_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch, 3.0)
    cell = types.ModuleType("notebook_cell")
    cell.__dict__["make"] = make_here
    monkeypatch.setitem(sys.modules, "notebook_cell", cell)
    (finding,) = examine("notebook_cell:make", {}).findings
    assert (finding.id, finding.where) == ("not_importable", {"factory": "notebook_cell:make"})
    assert "there is no module notebook_cell" in finding.explanation


def test_a_factory_that_counts_on_what_the_script_did_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hurry(monkeypatch, 3.0)
    (tmp_path / "mine.py").write_text(
        f"import sys\nsys.path.insert(0, {str(HERE.parents[3])!r})\n"
        "from tests.investigate.doctor.planted.sound import Sound\n"
        "LIMIT = {}\n"
        "def make():\n    return Sound(LIMIT['steps'])\n",
        encoding="utf-8",
    )
    factory.load(f"{tmp_path}/mine.py:make").__globals__["LIMIT"]["steps"] = 16
    (finding,) = examine(f"{tmp_path}/mine.py:make", {}).findings
    assert finding.id == "not_importable"
    assert "KeyError: 'steps'" in finding.explanation


def test_a_sound_factory_in_a_file_is_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch, 3.0)
    assert examine(f"{HERE}/sound.py:Talkative", {}).findings == []


def test_arguments_that_are_not_json(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch, 3.0)

    (finding,) = examine(f"{HERE}/broken.py:Configured", {"limit": lambda: 16}).findings
    assert (finding.id, finding.where) == ("not_importable", {"argument": "limit"})


def test_what_is_printed_goes_to_standard_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    hurry(monkeypatch, 3.0)
    examine(f"{HERE}/sound.py:Talkative", {})
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "hello from Python" in captured.err
    assert "hello from below" in captured.err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sound.py:Sond", "unknown factory in .*'Sond'. Did you mean Sound"),
        ("broken.py:NeverBegins", "cannot be played: reset raises RuntimeError: no simulator"),
        ("sound.py:LIMIT", "must be a function or class"),
        ("broken.py:CannotBeMade", "FileNotFoundError: no map"),
        ("actions.py:pause", "a factory must return a PettingZoo"),
    ],
)
def test_what_cannot_be_played_is_refused(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        examine(f"{HERE}/{name}", {})


def test_a_call_that_does_not_come_back_is_ended_and_placed(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch, 3.0)
    monkeypatch.setattr(checkup, "WHOLE", 0.5)
    monkeypatch.setattr(checkup, "check_import", lambda env_id, kwargs, notes: None)
    began = time.monotonic()
    found = examine(f"{HERE}/broken.py:Waiting", {})
    assert time.monotonic() - began < 5
    (finding,) = found.findings
    assert (finding.id, finding.severity) == ("slow_step", "error")
    assert "wait_for_ever" in finding.where["place"]


def test_no_alarm_where_python_allows_none() -> None:
    ended = []

    def body() -> None:
        with patience.within(0.01):
            time.sleep(0.05)
        ended.append(True)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert ended == [True]


def test_no_torch_is_loaded() -> None:
    code = "import sys, marl_stable.investigate.doctor.checkup; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=HERE.parents[3], check=False).returncode == 0
