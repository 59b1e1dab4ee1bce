"""The run folder: who may have it, what is refused, and files that survive crashes and full disks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from marl_stable.folder import IncidentFile, RunFolder, read_incidents
from marl_stable.types import UsageError
from tests.runs import ROOT

ENTRY = {"steps": 10, "kind": "repeated_action", "where": {"agent": "agent_0"}, "value": 1.0}


def begun(path: Path) -> RunFolder:
    folder = RunFolder.create(path)
    folder.begin("seed: 1\n", steps=0)
    return folder


def test_a_new_run_gets_its_folder_and_the_parents_of_that(tmp_path: Path) -> None:
    folder = begun(tmp_path / "a" / "b c" / "größe")
    assert sorted(file.name for file in folder.path.iterdir()) == ["config.yaml", "metadata.json"]
    assert folder.config.read_text() == "seed: 1\n"
    found = json.loads((folder.path / "metadata.json").read_text())
    assert (found["status"], found["pid"], found["steps"]) == ("running", os.getpid(), 0)
    folder.end("finished", steps=5)
    again = RunFolder.open(folder.path)
    assert (again.metadata["status"], again.metadata["steps"]) == ("finished", 5)
    assert again.metadata["started"] == found["started"]


def test_an_existing_empty_folder_is_taken_and_what_is_in_it_stays(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    begun(tmp_path).end("finished")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_folder_that_holds_a_run_is_refused_and_untouched(tmp_path: Path) -> None:
    begun(tmp_path / "run").end("finished")
    (tmp_path / "old" / "checkpoints").mkdir(parents=True)
    for path in (tmp_path / "run", tmp_path / "old"):
        before = sorted(path.rglob("*"))
        with pytest.raises(UsageError, match=r"holds a run; go on with it by `train --resume .*`, or name another"):
            RunFolder.create(path)
        assert sorted(path.rglob("*")) == before


@pytest.mark.parametrize("name", ["config.yaml", "metrics.csv", "incidents.jsonl", "recording", "diagnosis.json"])
def test_a_folder_in_which_a_run_would_write_over_something_is_refused_and_untouched(tmp_path: Path, name: str) -> None:
    file = tmp_path / name / "000.bin" if name == "recording" else tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    with pytest.raises(UsageError, match=rf"run folder '.*' holds {name}, which a run would write over; name another"):
        RunFolder.create(tmp_path)
    assert file.read_text() == "mine"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


def test_only_what_was_written_for_nothing_is_taken_back(tmp_path: Path) -> None:
    begun(tmp_path / "run").end("interrupted")
    before = sorted(tmp_path.rglob("*"))
    folder = RunFolder.open(tmp_path / "run")
    folder.lock()
    folder.begin("seed: 2\n")
    folder.discard()
    assert sorted(tmp_path.rglob("*")) == before


def test_what_cannot_be_a_run_folder_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"run folder '.*file' is a file; name another with --run-dir\."):
        RunFolder.create(tmp_path / "file")
    with pytest.raises(UsageError, match=r"file/run' cannot be written \(Not a directory\); name another"):
        RunFolder.create(tmp_path / "file" / "run")
    for place in (tmp_path, tmp_path / "new"):
        with pytest.raises(UsageError, match=r"cannot be written \(File name too long\)"):
            RunFolder.create(place / ("x" * 300))
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a place that even root cannot write")
def test_a_place_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"run folder '/proc/run' cannot be written \(.*\); name another with --run-dir\."
    ):
        RunFolder.create(Path("/proc/run"))


def test_what_was_made_for_nothing_is_taken_back_and_nothing_else(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "a" / "b" / "run").discard()
    assert list(tmp_path.iterdir()) == []
    begun(tmp_path / "a" / "run").discard()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    RunFolder.create(tmp_path / "mine").discard()
    folder = begun(tmp_path / "mine" / "run")
    (tmp_path / "mine" / "run" / "notes.txt").touch()
    folder.discard()
    assert sorted(tmp_path.rglob("*")) == [tmp_path / path for path in ("mine", "mine/run", "mine/run/notes.txt")]


def test_one_run_is_run_by_one_at_a_time(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    with pytest.raises(UsageError, match=rf"run '.*' is running \(process {os.getpid()}\); end that first\."):
        RunFolder.open(tmp_path).lock()
    folder.end("interrupted")
    other = RunFolder.open(tmp_path)
    other.lock()
    other.release()


def test_two_that_begin_one_run_at_the_same_time_do_not_both_get_it(tmp_path: Path) -> None:
    first = RunFolder.create(tmp_path / "run")  # has written nothing yet
    with pytest.raises(UsageError, match=r"is running \(process another process\)|is running"):
        RunFolder.create(tmp_path / "run")
    first.begin("seed: 1\n")
    assert (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize("alive", [True, False])
def test_a_run_whose_process_was_killed_may_go_on_whoever_has_its_id_now(tmp_path: Path, alive: bool) -> None:
    code = f"""
import os, signal
from pathlib import Path
from marl_stable.folder import RunFolder
RunFolder.create(Path({str(tmp_path / "run")!r})).begin("seed: 1")
os.kill(os.getpid(), signal.SIGKILL)
"""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == -9
    folder = RunFolder.open(tmp_path / "run")
    assert folder.metadata["status"] == "running"
    if alive:
        folder.metadata["pid"] = os.getppid()  # ids are used again, in containers at once
        folder.write_metadata()
    folder.lock()
    folder.begin("seed: 1")
    assert json.loads((tmp_path / "run" / "metadata.json").read_text())["pid"] == os.getpid()


def test_a_folder_without_a_run_or_with_broken_metadata_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(UsageError, match=r"is not a run folder: it has no metadata\.json"):
            RunFolder.open(path)
    for content in (b"", b"{", b"[1]", b"[]", b"[[1, 2]]", b"\xff\xfe", b"3"):
        (tmp_path / "metadata.json").write_bytes(content)
        with pytest.raises(UsageError, match=r"metadata\.json' cannot be read \(.*\); restore it from a copy"):
            RunFolder.open(tmp_path)


def test_metadata_is_json_for_strict_readers_too(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    folder.write_metadata(returns=[[10, float("nan")], [20, -1.5]])

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = (tmp_path / "metadata.json").read_text()
    assert json.loads(text, parse_constant=refuse)["returns"] == [[10, None], [20, -1.5]]


def test_incidents_are_kept_up_to_the_checkpoint_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "incidents.jsonl"
    file = IncidentFile(path)
    for steps in (10, 20, 30):
        file.write(ENTRY | {"steps": steps, "value": float("nan")})
    assert file.counts == {"repeated_action": 3}
    with path.open("a") as torn:
        torn.write('{"steps": 40, "ki')
    assert [entry["steps"] for entry in read_incidents(path)] == [10, 20, 30]
    resumed = IncidentFile(path, keep_until=20)
    assert resumed.counts == {"repeated_action": 2}
    resumed.write(ENTRY | {"steps": 21})
    assert [entry["steps"] for entry in read_incidents(path)] == [10, 20, 21]
    assert read_incidents(path)[0]["value"] is None
    assert IncidentFile(path).counts == {}
    assert read_incidents(path) == read_incidents(tmp_path / "missing") == []


def test_lines_that_tell_of_no_incident_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "incidents.jsonl"
    strange = [[1], "x", {}, ENTRY | {"steps": "9"}, ENTRY | {"kind": [1]}, ENTRY | {"where": [1]}]
    lines = [json.dumps(entry).encode() for entry in (ENTRY, *strange, ENTRY | {"steps": 20})]
    path.write_bytes(b"\n".join([*lines, b"\xff"]))
    assert [entry["steps"] for entry in read_incidents(path)] == [10, 20]
    assert IncidentFile(path, keep_until=30).counts == {"repeated_action": 2}
    assert [entry["steps"] for entry in read_incidents(path)] == [10, 20]


def test_a_full_disk_costs_a_line_of_incidents_and_no_other(tmp_path: Path, small_files) -> None:
    path = tmp_path / "incidents.jsonl"
    file = IncidentFile(path)
    file.write(ENTRY)
    with small_files(path.stat().st_size + 5), pytest.raises(OSError, match="too large"):
        file.write(ENTRY | {"steps": 20})
    file.write(ENTRY | {"steps": 30})
    assert [entry["steps"] for entry in read_incidents(path)] == [10, 30]
    assert path.read_text().count("\n") == 2
    assert file.counts == {"repeated_action": 3}
    with small_files(0):  # a full disk at the moment of resuming
        resumed = IncidentFile(path, keep_until=10)
    assert resumed.counts == {"repeated_action": 1}


def test_a_full_disk_at_the_beginning_is_said_in_one_sentence_and_destroys_nothing(tmp_path: Path, small_files) -> None:
    with small_files(0), pytest.raises(UsageError, match=r"cannot be written \(File too large\)"):
        begun(tmp_path / "new")
    begun(tmp_path / "run").end("interrupted")
    folder = RunFolder.open(tmp_path / "run")
    folder.lock()
    with small_files(0):
        with pytest.raises(UsageError, match=r"cannot be written \(File too large\); let it be written\."):
            folder.begin("seed: 2\n")
        folder.end("interrupted")  # and this is no error
    assert folder.config.read_text() == "seed: 1\n"
    assert RunFolder.open(tmp_path / "run").metadata["status"] == "interrupted"
