"""`marl-stable check`: what it prints and where, what it refuses, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from marl_stable.cli import main
from marl_stable.investigate.doctor import checkup
from marl_stable.investigate.doctor.findings import IDS, Notebook
from marl_stable.report.checkup_page import page
from tests.investigate.doctor.hurry import hurry
from tests.runs import ROOT

PLANTED = ROOT / "tests/investigate/doctor/planted"
SOUND = PLANTED / "sound.py"
KEYS = ["id", "severity", "where", "value", "explanation", "remedy"]

MISTAKES = [
    ("check", "ENV is missing; check needs an environment, and `marl-stable envs` lists them."),
    ("check a/b c", "'c' is one word too many; the usage is: marl-stable check ENV [--env.kwargs JSON] [--json]"),
    ("check mpe2/simple_spred_v3", "Did you mean mpe2/simple_spread_v3"),
    ("check gymnasium/CartPol-v1", "Did you mean gymnasium/CartPole-v1"),
    ("check mpe2/simple_spread_v3 --jsn", "unknown flag '--jsn'. Did you mean --json?"),
    ("check mpe2/simple_spread_v3 --env.kwargs {N:3}", "--env.kwargs is '{N:3}'; it must be JSON"),
    (
        'check mpe2/simple_spread_v3 --env.kwargs {"M":3}',
        "unknown argument of mpe2/simple_spread_v3 in env.kwargs: 'M'",
    ),
    ("check no/file.py:make", "there is no file no/file.py"),
    ("check nowhere:make", "there is no module nowhere"),
    ("chekc mpe2/simple_v3", "unknown command 'chekc'. Did you mean check?"),
]


@pytest.fixture(autouse=True)
def _briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch, 3.0)


@pytest.mark.parametrize(("line", "said"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_one_sentence_and_exit_code_2(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1


def test_a_sound_environment_passes_and_its_prints_do_not_spoil_the_json(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check", f"{SOUND}:Talkative", "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {
        "env": f"{SOUND}:Talkative",
        "passed": True,
        "findings": [],
    }


def test_an_error_is_exit_code_1_and_has_the_keys_of_the_interface(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", f"{PLANTED}/observations.py:NaNObservation", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["env", "passed", "findings"]
    assert found["passed"] is False
    (finding,) = found["findings"]
    assert list(finding) == KEYS
    assert (finding["id"], finding["severity"]) == ("observation_non_finite", "error")
    assert finding["where"] == {"agent": "agent_0", "feature": 1}
    assert finding["value"] == "nan"  # JSON has no number for it


def test_warnings_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "mpe2/simple_spread_v3", "--env.kwargs", '{"N": 2}', "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] is True
    assert [finding["severity"] for finding in found["findings"]] == ["warning"]
    assert found["findings"][0]["where"] == {"agent": "agent_0", "feature": [10, 11]}


def test_the_page_says_what_where_the_value_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", f"{PLANTED}/actions.py:DeadDimension"]) == 0
    first, blank, head, *text = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{PLANTED}/actions.py:DeadDimension: passed, 1 warning (")
    assert first.endswith(" s)")
    assert blank == ""
    assert head == "warning  action_has_no_effect in agent agent_0, dimension 1: 0"
    told = " ".join(line.strip() for line in text)
    assert "changed no observation, reward or end of anybody" in told
    assert "leave it out of the action space." in told
    assert all(len(line) <= 100 for line in text)


def test_the_verdict_of_the_page() -> None:
    notes = Notebook()
    assert page(_as_dict(notes), "1 s") == "mine: passed, nothing is wrong (1 s)"
    notes.note("slow_step", "warning", {}, 0.5, "It takes long.", "Be quick.")
    notes.note("reward_type", "error", {"agent": "a"}, None, "It is none.", "Be a number.")
    notes.note("reward_type", "error", {"agent": "b"}, None, "It is none.", "Be a number.")
    notes.note("reward_type", "error", {"agent": "b", "part": "x"}, None, "It is none.", "Be a number.")
    lines = page(_as_dict(notes), "1 s").splitlines()
    assert lines[0] == "mine: failed, 2 errors and 1 warning (1 s)"
    assert lines[2:5] == [
        "error    reward_type in agent a: None",
        "         It is none. The same holds for b.",
        "         Be a number.",
    ]
    assert lines[-3] == "warning  slow_step: 0.5"


def test_only_ids_of_the_interface_are_taken_down() -> None:
    assert len(set(IDS)) == len(IDS)
    with pytest.raises(ValueError, match="is no id of a finding"):
        Notebook().note("strange", "error", {}, 0, "", "")


def test_the_command_loads_no_torch_and_leaves_nothing_behind(tmp_path: Path) -> None:
    code = (
        "import sys; from marl_stable.cli import main\n"
        f"code = main(['check', {f'{SOUND}:Single'!r}, '--json']); sys.exit(5 if 'torch' in sys.modules else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["passed"] is True
    assert list(tmp_path.iterdir()) == []


def _as_dict(notes: Notebook) -> dict[str, object]:
    return checkup.Checkup("mine", notes.findings(), 0, 0, 0.0).as_dict()
