"""A run folder to its diagnosis: of whatever is left of a run, without touching it, and without torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from marl_stable.cli import main
from marl_stable.diagnosing import diagnose_run, read_case, write_diagnosis
from marl_stable.folder import RunFolder
from marl_stable.monitor.case import CAUSES
from marl_stable.report.files import to_json
from marl_stable.report.page import page
from marl_stable.run import Run, conducting
from marl_stable.types import UsageError
from tests.runs import ROOT, metadata, train

KEYS = {"verdict", "findings", "symptoms", "actions_taken", "checked", "return", "baselines", "not_judged"}
FINDING = {"cause", "confidence", "onset_steps", "where", "evidence", "explanation", "remedy", "config"}

pytestmark = pytest.mark.usefixtures("quick_measurements")


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of every file, and the times of folders."""
    paths = [folder, *sorted(folder.rglob("*"))]
    return {str(path): (path.read_bytes() if path.is_file() else b"", path.stat().st_mtime_ns) for path in paths}


def edit(run: Path, **changed: Any) -> None:
    """Change entries of metadata.json; None takes them out."""
    found = {name: value for name, value in (metadata(run) | changed).items() if value is not None}
    (run / "metadata.json").write_text(json.dumps(found))


def append(file: Path, data: bytes) -> None:
    with file.open("ab") as stream:
        stream.write(data)


# ---- what may be left of a run: how it came so, and whether its recording can still be read


def crashed(run: Path) -> None:
    """Killed while it wrote: in each file a part of a line, a temporary file, and no last word."""
    edit(run, status="running", pid=2**22 + 1, ended=None)
    append(run / "recording" / "000.bin", b"\x20\x01\x00")
    append(run / "metrics.csv", b"288,0.1,-3.")
    append(run / "incidents.jsonl", b'{"steps": 28')
    (run / "recording" / ".001.json.77.tmp").write_bytes(b'[["x"')
    (run / "diagnosis.json").unlink()


def running(run: Path) -> None:
    edit(run, status="running", pid=os.getpid(), ended=None)


def interrupted(run: Path) -> None:
    edit(run, status="interrupted")


def without_recording(run: Path) -> None:
    shutil.rmtree(run / "recording")


def metrics_alone(run: Path) -> None:
    for path in run.iterdir():
        if path.name != "metrics.csv":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def older_metadata(run: Path) -> None:
    edit(run, spec=None, preflight=None, baselines=None, returns=None)


def torn_metadata(run: Path) -> None:
    (run / "metadata.json").write_bytes((run / "metadata.json").read_bytes()[:40])


def other_metadata(run: Path) -> None:
    (run / "metadata.json").write_text("[1, 2]")


def unknown_keys(run: Path) -> None:
    append(run / "config.yaml", b"stabilty: guard\nfuture: {a: {b_c: [1, 2]}, kwargs: {x: {y: 1}}}\n")


def torn_config(run: Path) -> None:
    (run / "config.yaml").write_bytes(b"algo: {lr: 1.0\n\xff")


def without_config(run: Path) -> None:
    (run / "config.yaml").unlink()


def without_metrics(run: Path) -> None:
    (run / "metrics.csv").unlink()


def empty_metrics(run: Path) -> None:
    (run / "metrics.csv").write_bytes(b"")


def just_begun(run: Path) -> None:
    for name in ("metrics.csv", "incidents.jsonl", "diagnosis.json"):
        (run / name).unlink()
    shutil.rmtree(run / "recording")


def wrong_facts(run: Path) -> None:
    wrong = {"spec": [1], "baselines": [1], "total_steps": "x", "steps": None, "contributions": {"agent_0": [1]}}
    preflight = {part: [[1]] for part in metadata(run)["preflight"]}
    edit(run, **wrong, status=3, preflight=preflight)


def facts_without_parts(run: Path) -> None:
    parts = {"rewards": {"agent_0": [1]}, "untrained": [{"group": "agent"}], "effects": {"without_effect": [{}]}}
    edit(run, spec={"groups": [{"name": "agent"}]}, baselines={"random": {}, "best_constant": 1}, preflight=parts)


def strange_incidents(run: Path) -> None:
    append(
        run / "incidents.jsonl",
        b'[1]\n"x"\n\xff\n{"steps": "1", "kind": "repeated_action"}\n{"steps": 9, "kind": [1]}\n',
    )


LEFT: list[tuple[Callable[[Path], None], bool]] = [
    (crashed, True),
    (running, True),
    (interrupted, True),
    (without_recording, False),
    (metrics_alone, False),
    (older_metadata, True),
    (torn_metadata, True),
    (other_metadata, True),
    (wrong_facts, True),
    (facts_without_parts, True),
    (strange_incidents, True),
    (unknown_keys, True),
    (torn_config, True),
    (without_config, True),
    (without_metrics, True),
    (empty_metrics, True),
    (just_begun, False),
]


@pytest.fixture
def locked(run: Path) -> Iterator[None]:
    folder = RunFolder(run)
    folder.lock()
    yield
    folder.release()


@pytest.mark.parametrize(("leave", "recorded"), LEFT, ids=[leave.__name__ for leave, _ in LEFT])
@pytest.mark.usefixtures("locked")  # as a run under way has it
def test_whatever_is_left_of_a_run_is_diagnosed_and_left_as_it_is(
    run: Path, leave: Callable[[Path], None], recorded: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(run)
    before = state(run)
    assert main(["diagnose", str(run), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert main(["diagnose", str(run)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.startswith(f"{run}: {printed['verdict']}")
    assert state(run) == before
    assert printed.keys() == KEYS
    case = read_case(run)
    layers = {series.where.get("layer") for series in case.recording.series("layer_grad", network="actor")}
    assert layers == ({"hidden.0", "final"} if recorded else {None} if leave is not just_begun else set())
    assert case.recording.steps.tolist() == ([48, 96, 144, 192, 240] if leave is not just_begun else [])
    if leave is not just_begun:
        assert set(printed["checked"]) <= set(CAUSES)
        assert "learning_rate_too_high" in printed["checked"]
        assert isinstance(printed["return"], float)


def test_a_diagnosis_has_the_form_of_the_contract(finished: Path) -> None:
    found = diagnose_run(finished)
    assert found.keys() == KEYS
    assert found["verdict"] in ("healthy", "warning", "failing")
    assert (found["verdict"] == "healthy") == (found["findings"] == [])
    for finding in found["findings"]:
        assert finding.keys() == FINDING
        assert 0 <= finding["confidence"] <= 1
        assert isinstance(finding["onset_steps"], int)
    assert found["checked"]
    assert found["return"] == Run(finished).returns[-1][1] or len(Run(finished).returns) < 5
    assert found["baselines"].keys() == {"random", "best_constant"}


def test_the_run_writes_it_when_it_ends_and_python_hands_it_out(finished: Path) -> None:
    written = (finished / "diagnosis.json").read_text()
    found = Run(finished).diagnose()
    assert written == to_json(found, indent=2) + "\n"
    assert json.loads(written) == json.loads(to_json(diagnose_run(finished)))
    assert page(json.loads(written), "run") == page(found, "run")


def test_a_case_has_settings_by_dotted_key_and_what_is_known_of_the_run(run: Path) -> None:
    unknown_keys(run)
    incident = {"steps": 48, "kind": "gradient_spike", "where": {}, "value": 1.0, "limit": 0.0, "action": "none"}
    append(run / "incidents.jsonl", to_json(incident).encode() + b"\n")
    case = read_case(run)
    assert case.config["algo.network.hidden"] == [8]
    assert case.config["env.kwargs"] == {"max_cycles": 5}
    assert case.config["stabilty"] == "guard"
    assert case.config["future.a.b_c"] == [1, 2]
    assert case.config["future.kwargs"] == {"x": {"y": 1}}
    assert case.facts["incidents"][-1] == incident
    assert (case.facts["status"], case.facts["total_steps"], case.facts["steps"]) == ("finished", 240, 240)
    assert case.facts["preflight"]
    assert case.baseline("random") is not None
    (hidden,) = case.recording.series("dormant", network="actor")
    assert hidden.where["layer"] == "hidden.0"
    assert [s.where for s in case.recording.series("eval/return")] == [{}]  # from metrics.csv


def test_groups_in_metrics_are_told_from_tags(run: Path) -> None:
    (group,) = metadata(run)["spec"]["groups"]
    groups = [group | {"name": "hunters"}, group | {"name": "prey"}]
    (run / "metrics.csv").write_text("steps,seconds,eval/return,eval/return/prey,losses/critic/boss\n9,1,1,2,3\n")
    edit(run, spec={"groups": groups})
    without_recording(run)
    told = read_case(run).recording
    assert [series.where for series in told.series("eval/return")] == [{}, {"group": "prey"}]
    assert [series.where for series in told.series("losses/critic/boss")] == [{}]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none", "is no folder"),
        ("file", "is no folder"),
        ("empty", "holds no metrics.csv"),
        ("csv", "is no metrics.csv"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path: Path, name: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "metrics.csv").write_text("a,b\n1,2\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=said):
        diagnose_run(Path(name))


def test_it_needs_no_torch_and_a_second(finished: Path) -> None:
    resource = pytest.importorskip("resource")
    code = """
import sys
from marl_stable.cli import main
code = main(["diagnose", sys.argv[1]])
assert "torch" not in sys.modules
sys.exit(code)
"""
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        command = [sys.executable, "-W", "error", "-c", code, str(finished)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return float(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before)

    assert any(seconds() < 1.0 for _ in range(4))  # on a busy machine the same work takes twice as long


# ---- written at the end of a run


def test_it_is_written_whole_or_not_at_all(run: Path, small_files) -> None:
    before = (run / "diagnosis.json").read_bytes()
    with small_files(10), pytest.raises(OSError, match="File too large"):
        write_diagnosis(run, diagnose_run(run))
    assert (run / "diagnosis.json").read_bytes() == before
    write_diagnosis(run, {"return": float("nan")})
    assert json.loads((run / "diagnosis.json").read_text()) == {"return": None}


@pytest.mark.parametrize("fault", [ZeroDivisionError("of a cause"), OSError(28, "No space left on device")])
def test_no_fault_of_the_diagnosis_costs_a_run(
    tmp_path: Path, fault: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(path: Path) -> dict[str, Any]:
        raise fault

    monkeypatch.setattr(conducting, "diagnose_run", failing)
    run = tmp_path / "run"
    assert train(run, "--total-steps", "48", "--quiet") == 0
    assert not (run / "diagnosis.json").exists()
    assert f"diagnosis.json could not be written ({type(fault).__name__}: {fault})" in capsys.readouterr().err
    assert metadata(run)["status"] == "finished"


def test_where_nothing_is_watched_nothing_is_recorded_but_the_run_can_be_diagnosed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train(run, "--total-steps", "48", "--quiet", "--stability", "off") == 0
    assert not (run / "recording").exists()
    assert not (run / "diagnosis.json").exists()
    assert main(["diagnose", str(run)]) == 0
    assert capsys.readouterr().out.startswith(f"{run}: ")


def test_losses_that_became_nan_are_seen_in_a_metrics_csv_alone(tmp_path: Path) -> None:
    rows = [f"{100 * i},{i},{'nan' if i > 10 else 0.5},-10.0" for i in range(1, 21)]
    (tmp_path / "metrics.csv").write_text("\n".join(["steps,seconds,losses/critic,charts/return", *rows, ""]))
    found = diagnose_run(tmp_path)
    assert "non_finite" in found["symptoms"]
    assert found["verdict"] == "failing"


def test_a_single_evaluation_is_what_a_run_brings(tmp_path: Path) -> None:
    text = (
        "steps,seconds,charts/return,eval/return,eval/episode_length\n64,1,-31.1,,\n128,2,-29,-26.26,25\n192,3,-30,,\n"
    )
    (tmp_path / "metrics.csv").write_text(text, encoding="utf-8")
    assert diagnose_run(tmp_path)["return"] == -26.26
    (tmp_path / "metrics.csv").write_text("steps,seconds,eval/return\n128,2,-26.26\n", encoding="utf-8")
    assert diagnose_run(tmp_path)["return"] == -26.26


@pytest.mark.parametrize("algo", ["mappo", "matd3"])
def test_who_has_one_action_only_is_neither_stuck_nor_untrained(algo: str, tmp_path: Path) -> None:
    words = ("--env", "tests.envs.fakes:Bystander", "--env.kwargs", "{}", "--algo", algo)
    off_policy = ("--algo.warm-up", "48", "--algo.train-every", "48", "--algo.batch-size", "16")
    own = off_policy if algo == "matd3" else ()
    assert (
        main(
            [
                "train",
                *words,
                *own,
                "--env.num-envs",
                "8",
                "--total-steps",
                "8000",
                "--eval-every",
                "0",
                "--quiet",
                "--run-dir",
                str(tmp_path / "run"),
            ]
        )
        == 0
    )
    preflight = metadata(tmp_path / "run")["preflight"]
    assert preflight["untrained"] == []
    found = diagnose_run(tmp_path / "run")
    told = [finding for finding in found["findings"] if "agent_1" in finding["where"].values()]
    assert told == []
