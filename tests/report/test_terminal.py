from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.file_proxy import FileProxy

from marl_stable.report import terminal
from marl_stable.report.console import SafeStream, open_console
from marl_stable.report.terminal import Outcome, Progress, summary

ROOT = Path(__file__).resolve().parents[2]
BASELINES = {"random": -26.6, "best_constant": -24.6}
OUTCOME = Outcome(
    folder=Path("runs/simple spread/1"),
    status="finished",
    steps=1_000_192,
    total_steps=1_000_000,
    seconds=75.4,
    steps_per_second=13_265.2,
    last_return=-9.1234,
    best_return=-8.5,
    baselines=BASELINES,
    incidents={"gradient_spike": 3, "non_finite_reward": 1200},
)
# What a run shows, as a program of its own: with real streams, and a name that ASCII has not.
PROGRAM = """
from pathlib import Path
from marl_stable.report.terminal import Outcome, Progress, summary
with Progress(100) as progress:
    for steps in range(101):
        progress.update(steps, 10.0, -9.12, {"random": -26.6})
    progress.note("gr\\u00f6\\u00dfte R\\u00fcckgabe")
    progress.warn("actions repeat")
summary(Outcome(Path("runs/gr\\u00f6\\u00dfe"), "finished", 100, 100, 1.0, 100.0, -9.0, -9.0, {}, {}))
"""
OTHERS = """
import sys
for stream in (sys.stdout, sys.stderr):
    print("printed by others", file=stream, flush=True)
"""


def screen(width: int = 120) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=40, _environ={})


def log_file() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=80, _environ={})


def output(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def drawings(console: Console) -> list[list[str]]:
    """The lines of each drawing of the bar, with what was printed above it."""
    parts = re.split(r"\x1b\[2K(?:\x1b\[1A\x1b\[2K)*|\x1b\[\?25[lh]", output(console))
    plain = (re.sub(r"\x1b\[[0-9;]*m", "", part).replace("\r", "") for part in parts)
    return [text.splitlines() for text in plain if text.strip()]


def run_program(program: str = PROGRAM, **options: Any) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, **options.pop("env", {})}
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, check=False, **options)


def test_the_bar_shows_steps_speed_time_left_and_return_beside_its_baselines() -> None:
    console = screen()
    with Progress(1_000_000, console=console) as progress:
        progress.update(250_000, 81_200.4, -9.1234, BASELINES)
    head, below = drawings(console)[-1]
    assert head.startswith("25% ━━")
    assert head.endswith("250,000 of 1,000,000 steps  81,200 steps/s  0:00:10 left")
    assert below == "return -9.12 (random -26.6, best constant -24.6)"


def test_before_the_first_episode_ends_there_is_no_return_and_without_speed_no_time_left() -> None:
    console = screen()
    with Progress(1000, console=console) as progress:
        progress.update(100, 0.0, None, {"random": -12_345.6})
    head, below = drawings(console)[-1]
    assert head.endswith("100 of 1,000 steps  0 steps/s")
    assert below == "return not measured yet (random -12,346)"


def test_notes_and_warnings_stand_above_the_bar_as_they_were_written() -> None:
    console = screen()
    with Progress(10, console=console) as progress:
        progress.update(5, 1.0, -9.0, {})
        progress.note("evaluation [bold]of[/nothing] :smile:")
        progress.warn("actions repeat")
    text = [line for lines in drawings(console) for line in lines]
    note = text.index("evaluation [bold]of[/nothing] :smile:")
    assert text[note + 1].startswith("50%")
    assert text[text.index("warning: actions repeat") + 1].startswith("50%")
    assert text[-1] == "return -9"


def test_the_bar_is_not_redrawn_at_every_update() -> None:
    console = screen()
    with Progress(1000, console=console) as progress:
        for steps in range(1000):
            progress.update(steps, 1.0, None, {})
    assert len(drawings(console)) < 10
    assert drawings(console)[-1][0].startswith("99%")  # the last one is always shown


@pytest.mark.parametrize("width", [10, 20, 30, 40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    console = screen(width)
    with Progress(1_000_000, console=console) as progress:
        progress.update(123_456, 81_200.0, -9.12, BASELINES)
        progress.note("a note that is longer than a narrow terminal is wide")
    summary(OUTCOME._replace(folder=Path("run")), console=screen(width))
    lines = [line for drawing in drawings(console) for line in drawing]
    assert max(cell_len(line) for line in lines) <= width
    assert any("12%" in line and "━━━" in line for line in lines)


def run_into_an_interruption(console: Console) -> None:
    with Progress(10, console=console) as progress:
        progress.update(1, 1.0, None, {})
        raise KeyboardInterrupt


def test_an_error_passes_through_and_the_cursor_is_shown_again() -> None:
    console = screen()
    with pytest.raises(KeyboardInterrupt):
        run_into_an_interruption(console)
    assert output(console).rindex("\x1b[?25h") > output(console).rindex("\x1b[?25l")


def test_without_a_terminal_there_is_a_plain_line_at_most_every_tenth() -> None:
    console = log_file()
    with Progress(10_000, console=console) as progress:
        for steps in range(0, 10_001, 7):
            progress.update(steps, 100.0, -9.12, BASELINES)
        progress.update(10_003, 100.0, -9.12, BASELINES)
    lines = output(console).splitlines()
    assert [line[:4] for line in lines] == [f"{percent:3}%" for percent in range(10, 101, 10)]
    assert "\x1b" not in output(console)
    assert lines[0] == (
        " 10%  1,001 of 10,000 steps, 100 steps/s, 0:01:30 left, return -9.12 (random -26.6, best constant -24.6)"
    )


def test_large_iterations_and_resumed_runs_tell_no_tenth_twice_or_again() -> None:
    console = log_file()
    with Progress(1000, start_steps=500, console=console) as progress:
        for steps in (500, 549, 780, 790, 1010):
            progress.update(steps, 10.0, None, {})
    assert [line[:4] for line in output(console).splitlines()] == [" 78%", "100%"]


@pytest.mark.parametrize("make", [screen, log_file])
def test_quiet_shows_warnings_and_nothing_else(make) -> None:
    console = make()
    with Progress(10, quiet=True, console=console) as progress:
        for steps in range(11):
            progress.update(steps, 1.0, -9.0, BASELINES)
        progress.note("evaluation")
        progress.warn("actions repeat")
    assert re.sub(r"\x1b\[[0-9;]*m", "", output(console)) == "warning: actions repeat\n"


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"])
def test_progress_goes_to_stderr_without_control_codes_where_that_is_no_terminal(
    variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, "1")
    with Progress(10) as progress:
        progress.update(10, 1.0, -9.0, {})
        progress.warn("actions repeat")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        "100%  10 of 10 steps, 1 steps/s, 0:00:00 left, return -9",
        "warning: actions repeat",
    ]


def test_summary_shows_the_run_and_the_unit_of_its_returns(capsys: pytest.CaptureFixture[str]) -> None:
    summary(OUTCOME)
    rows = dict(re.findall(r"^│ (.*?) +│ (.*?) +│$", capsys.readouterr().out, flags=re.MULTILINE))
    assert rows == {
        "status": "finished",
        "steps": "1,000,192 of 1,000,000",
        "time": "0:01:15",
        "steps/s": "13,265",
        "last evaluation return": "-9.12",
        "best evaluation return": "-8.5",
        "random return": "-26.6",
        "best constant return": "-24.6",
        "unit of returns": "per-agent mean, undiscounted",
        "incidents": "gradient_spike 3, non_finite_reward 1,200",
        "run folder": "runs/simple spread/1",
    }


def test_summary_of_a_run_without_evaluation_and_incidents(capsys: pytest.CaptureFixture[str]) -> None:
    summary(OUTCOME._replace(last_return=None, best_return=None, baselines={}, incidents={}))
    shown = capsys.readouterr().out
    assert re.search(r"best evaluation return +│ not measured yet", shown)
    assert re.search(r"incidents +│ none", shown)


def commands(outcome: Outcome) -> dict[str, list[str]]:
    console = log_file()
    console.width = 20  # commands are not wrapped, so that they can be copied
    summary(outcome, console)
    lines = (line.split(maxsplit=1) for line in output(console).splitlines()[-4:])
    return {purpose: shlex.split(command) for purpose, command in lines}


def test_the_next_commands_can_be_pasted(monkeypatch: pytest.MonkeyPatch) -> None:
    bin_folder = Path(sys.executable).parent
    monkeypatch.setattr(shutil, "which", lambda name: str(bin_folder / name))
    run = "runs/simple spread/1"
    assert commands(OUTCOME) == {
        "evaluate": ["marl-stable", "eval", run],
        "render": ["marl-stable", "render", run, "-o", f"{run}/episode.gif"],
        "resume": ["marl-stable", "train", "--resume", run, "--total-steps", "2000192"],
        "curves": ["tensorboard", "--logdir", run],
    }
    assert commands(OUTCOME._replace(status="interrupted"))["resume"] == ["marl-stable", "train", "--resume", run]


@pytest.mark.parametrize("found", [None, "/elsewhere/bin/marl-stable"])
def test_programs_that_are_not_on_the_path_are_started_through_python(
    found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: found)
    next_ones = commands(OUTCOME)
    assert next_ones["evaluate"][:4] == [sys.executable, "-m", "marl_stable", "eval"]
    assert next_ones["curves"][:3] == [sys.executable, "-m", "tensorboard.main"]


def test_an_ascii_terminal_of_twenty_columns_is_served() -> None:
    ascii_only = {"LC_ALL": "C", "LANG": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "COLUMNS": "20"}
    done = run_program(env=ascii_only, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"gr??te R?ckgabe" in done.stderr
    table = [line for line in done.stdout.splitlines() if line.startswith((b"|", b"+"))]
    assert {len(line) for line in table} == {20}
    assert done.stdout.isascii()


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_pipe_that_nobody_reads_does_not_end_the_run(stream: str) -> None:
    """Rich by itself ends the process with SystemExit(1), and what others print there next raises."""
    reading, writing = os.pipe()
    os.close(reading)
    other = "stderr" if stream == "stdout" else "stdout"
    done = run_program(PROGRAM + OTHERS, **{stream: writing, other: subprocess.PIPE})
    os.close(writing)
    assert done.returncode == 0
    left = done.stderr if other == "stderr" else done.stdout
    assert b"Traceback" not in left
    assert b"Exception ignored" not in left
    assert (b"actions repeat" if other == "stderr" else b"finished") in left


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the always full device of Linux")
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_full_disk_behind_a_stream_does_not_end_the_run(stream: str) -> None:
    with open("/dev/full", "wb") as full:
        done = run_program(PROGRAM, **{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: full})
    assert done.returncode == 0


def test_closed_and_missing_streams_are_survived() -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed):
        safe = SafeStream(stream)
        assert safe.write("text") == 4
        safe.flush()
        assert not safe.isatty()
        open_console(stream).print("text")


def test_what_others_print_without_a_line_end_while_a_bar_is_shown_is_no_markup() -> None:
    """Rich reads as markup what is flushed to a redirected stream in mid-line, and raises MarkupError."""
    printed = io.StringIO()
    proxy = FileProxy(open_console(printed), printed)
    proxy.write("[/nothing] :smile:")
    proxy.flush()
    assert printed.getvalue() == "[/nothing] :smile:\n"


def test_letters_that_the_stream_has_not_become_question_marks() -> None:
    raw = io.BytesIO()
    safe = SafeStream(io.TextIOWrapper(raw, encoding="ascii"))
    safe.write("größe ━ ok")
    safe.flush()
    assert raw.getvalue() == b"gr??e ? ok"


def test_the_package_and_the_terminal_load_neither_torch_nor_tensorboard() -> None:
    code = f"import sys, {terminal.__name__}; sys.exit(bool({{'torch', 'tensorboard'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
