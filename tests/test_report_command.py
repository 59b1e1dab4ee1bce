"""`report`, and the page that a run leaves: of finished, interrupted and torn runs, and one sentence for a mistake."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from marl_stable import reporting
from marl_stable.cli import main
from tests.runs import Asked, train

pytestmark = pytest.mark.usefixtures("quick_measurements")


def test_a_run_leaves_its_page_and_the_command_writes_the_same(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "page.html"
    assert main(["report", str(run), "-o", str(output)]) == 0
    assert capsys.readouterr().out.strip() == str(output)
    assert output.read_text() == (run / "report.html").read_text()
    for told in ("Critic loss", "What actors chose", "agent_0", "Checked and found well", "batch_size: 48", "finished"):
        assert told in output.read_text()


def test_an_interrupted_run_leaves_its_page_too(tmp_path: Path, asked: Asked) -> None:
    asked.left = 60
    assert train(tmp_path / "run", "--quiet") == 130
    assert "interrupted" in (tmp_path / "run" / "report.html").read_text()


def test_a_run_that_is_not_watched_leaves_its_page_too(tmp_path: Path) -> None:
    assert train(tmp_path / "run", "--quiet", "--stability", "off") == 0
    assert "Critic loss" in (tmp_path / "run" / "report.html").read_text()


def test_trouble_with_the_page_costs_a_warning_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(paths: list[Path]) -> str:
        raise ValueError("no page today")

    monkeypatch.setattr(reporting, "report", fails)
    assert train(tmp_path / "run", "--quiet") == 0
    assert "report.html could not be written (ValueError: no page today)" in capsys.readouterr().err
    assert not (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize("left", [("metrics.csv",), ("metrics.csv", "metadata.json"), ("metadata.json",)])
def test_what_is_left_of_a_run_is_enough(run: Path, left: tuple[str, ...]) -> None:
    for path in run.iterdir():
        if path.name not in left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    found = reporting.report([run])
    assert "<h2>Diagnosis" in found
    assert ("Critic loss" in found) == ("metrics.csv" in left)


def test_damaged_files_are_left_out(run: Path) -> None:
    (run / "config.yaml").write_bytes(b"\xff\xfe")
    (run / "metadata.json").write_text("{")
    (run / "incidents.jsonl").write_text("{\n[]\n")
    assert "Critic loss" in reporting.report([run])


def test_several_runs_go_by_what_tells_their_paths_apart(finished: Path, tmp_path: Path) -> None:
    for folder in ("one", "other"):
        shutil.copytree(finished, tmp_path / folder / "run")
    found = reporting.report([tmp_path / "one" / "run", tmp_path / "other" / "run"])
    assert "<h1>2 runs</h1>" in found
    assert "one/run</td>" in found
    assert "other/run</td>" in found
    assert reporting.report([tmp_path]) == found  # a folder of runs stands for them


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "RUN is missing; report needs run folders"),
        (["{run}"], "-o has no value"),
        (["{run}", "-o", "{tmp}/missing/page.html"], "lies in '{tmp}/missing', which is no folder"),
        (["{run}", "-o", "{tmp}"], "'{tmp}' is a folder"),
        (["{run}", "-o", "{run}/config.yaml"], "config.yaml' does not end in .html or .htm"),
        (["{tmp}/nowhere", "-o", "{tmp}/page.html"], "'{tmp}/nowhere' is no folder"),
        (["{run}", "{run}/.", "-o", "{tmp}/page.html"], "is given twice; name each run once."),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(
    finished: Path, tmp_path: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [word.format(run=finished, tmp=tmp_path) for word in words]
    assert main(["report", *filled]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert told.format(tmp=tmp_path) in error
    assert list(tmp_path.iterdir()) == []
