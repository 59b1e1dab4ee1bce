"""The command line as its users meet it: what it prints, where it prints it, how it ends, and how long that takes."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from marl_stable import configs
from marl_stable.agents.config import ALGORITHMS
from marl_stable.cli import COMMANDS, main
from marl_stable.cli.train import train_config
from marl_stable.conversion import keys
from marl_stable.diagnosing import write_diagnosis
from marl_stable.envs import catalog
from marl_stable.run import Run
from tests.runs import ROOT, start

# What is wrong, and what the one line on stderr must name.
MISTAKES = [
    ("trian", "unknown command 'trian'. Did you mean train?"),
    ("train --algo.lrr 3", "unknown flag '--algo.lrr'. Did you mean --algo.lr"),
    ("train --totl-steps=3", "unknown flag '--totl-steps'. Did you mean --total-steps"),
    ("train -x", "unknown flag '-x'"),
    ("envs --jsn", "unknown flag '--jsn'. Did you mean --json?"),
    ("eval runs/x --episode 3", "Did you mean --episodes"),
    ("train --resume runs/x --algo.lr 1", "unknown flag '--algo.lr'"),
    ("train mappo_simple_spred", "unknown preset 'mappo_simple_spred'. Did you mean mappo_simple_spread"),
    ("train nothing.yaml", "preset file 'nothing.yaml' does not exist"),
    ("train --algo mapo", "unknown algorithm 'mapo'. Did you mean mappo"),
    ("train --env particle/simple_spred_v3", "Did you mean particle/simple_spread_v3"),
    ("train --env mpe2/simple_tag_v2", "Did you mean mpe2/simple_tag_v3"),
    ("train --algo.lr abc", "--algo.lr is 'abc'; it must be a number."),
    ("train --algo.lr=", "--algo.lr is ''; it must be a number."),
    ("train --algo.lr", "--algo.lr has no value; it must be a number."),
    ("train --algo.lr --seed 1", "--algo.lr has no value"),
    ("train --seed 1.5", "--seed is '1.5'; it must be a whole number."),
    ("train --env.num_envs few", "--env.num-envs is 'few'; it must be a whole number or auto."),
    ("train --algo.share maybe", "--algo.share is 'maybe'; it must be on|off."),
    ("train --algo.share", "--algo.share has no value; it must be on|off."),
    ("train --run-dir 1.5 --seed 1.5", "--seed is '1.5'; it must be a whole number."),
    ("train --quiet --profile --seed one", "--seed is 'one'; it must be a whole number."),
    ("train --device tpu", "--device is 'tpu'; it must be auto|cpu|cuda."),
    ("train --algo.network.hidden 64x64", "--algo.network.hidden is '64x64'; it must be numbers such as 64,64."),
    ("train --algo.adam-betas 0.9", "--algo.adam-betas is '0.9'; it must be two numbers such as 0.9,0.999."),
    ("train --env.kwargs {N:3}", "--env.kwargs is '{N:3}'; it must be JSON"),
    ("train --env.teams [3]", "--env.teams is '[3]'; it must be JSON"),
    ("train --env.reward both", "--env.reward is 'both'; it must be own|mean."),
    ("train --env.kwargs [3]", "--env.kwargs is '[3]'; it must be JSON"),
    ("train --algo.max-grad-norm big", "--algo.max-grad-norm is 'big'; it must be a number or adaptive or none."),
    ("train --algo.lr -3", "algo.lr is -3.0; it must be positive."),
    ("train --quiet yes", "'yes' is one word too many; the usage is: marl-stable train [PRESET] [flags]"),
    ("train mappo_simple_spread ippo_simple_spread", "'ippo_simple_spread' is one word too many"),
    ("train --resume", "--resume has no value"),
    ("eval", "RUN is missing; eval needs a run folder"),
    ("eval a b", "'b' is one word too many; the usage is: marl-stable eval RUN"),
    ("eval --checkpoint middle a", "--checkpoint is 'middle'; it must be best|last or none."),
    ("render a", "-o has no value; render needs a file to write"),
    ("diagnose", "RUN is missing; diagnose needs a run folder"),
    ("diagnose a b", "'b' is one word too many; the usage is: marl-stable diagnose RUN"),
    ("diagnose a --jsn", "unknown flag '--jsn'. Did you mean --json?"),
    ("diagnose a --json maybe", "'maybe' is one word too many"),
    ("selftest --algo mapo", "unknown algorithm 'mapo'. Did you mean mappo"),
    ("selftest mappo", "'mappo' is one word too many; the usage is: marl-stable selftest [--algo NAME]"),
    ("presets all", "'all' is one word too many"),
]

QUICK = ["--help", "train --help", "envs", "train --algo.lrr 3", "train nothing"]


@pytest.mark.parametrize(("line", "said"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_one_sentence_on_stderr_and_exit_code_2(
    line: str, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(line.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (sentence,) = captured.err.splitlines()
    assert sentence.startswith("error: ")
    assert said in sentence
    assert list(tmp_path.iterdir()) == []


def test_no_mistake_and_no_list_and_no_help_loads_torch_or_writes_a_file(tmp_path: Path) -> None:
    lines = [line for line, _ in MISTAKES] + QUICK + [f"{command} -h" for command in COMMANDS] + ["algos --json"]
    code = """
import json, sys
from marl_stable.cli import main
for line in json.loads(sys.argv[1]):
    try:
        main(line.split())
    except SystemExit:
        pass
    loaded = [name for name in ("torch", "numpy", "gymnasium", "pettingzoo", "tensorboard") if name in sys.modules]
    assert not loaded, (line, loaded)
"""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", code, json.dumps(lines)]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == len(MISTAKES) + 2
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("line", QUICK)
def test_what_needs_no_training_takes_no_time(line: str, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        process = start(*line.split(), cwd=tmp_path)
        process.communicate()
        assert process.returncode == (0 if line in QUICK[:3] else 2)
        return float(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before)

    limit = 0.8 if line == "train --help" else 0.5  # 0.4 s, which is tyro's; all else 0.2 s
    assert any(seconds() < limit for _ in range(4))  # on a busy machine the same work takes twice as long


def test_the_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == main(["-h"]) == main(["help"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    listed = [line.split()[0] for line in captured.out.splitlines() if line.startswith("  ")]
    assert listed == [*COMMANDS] * 3
    assert main([]) == 2
    assert capsys.readouterr().out == captured.out[: len(captured.out) // 3]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_help_explains_every_flag_with_its_values_and_its_default(
    algorithm: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as ended:
        main(["train", "--algo", algorithm, "--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for key in keys(train_config(["--algo", algorithm])):
        flag = "--" + key.replace("_", "-")
        explained = re.search(rf"{flag} (\S+) (.{{10,}}?) \(default: ([^)]+)\)", text)
        assert explained, f"{flag} is not explained with its values and its default"
        assert "(default" not in explained[2], f"{flag} has no default of its own"


def test_help_shows_the_defaults_of_the_preset_and_the_algorithm(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    (tmp_path / "mine.yaml").write_text("algo: {name: ippo, lr: 0.123}\n")
    with pytest.raises(SystemExit):
        main(["train", str(tmp_path / "mine.yaml"), "--help"])
    text = capsys.readouterr().out
    assert "(default: 0.123)" in text
    assert "(default: ippo)" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_fits_a_narrow_ascii_terminal(command: str, tmp_path: Path) -> None:
    out, err = start(command, "--help", cwd=tmp_path, COLUMNS="40", PYTHONIOENCODING="ascii").communicate()
    assert (err, out.isascii()) == ("", True)
    prose, found, table = out.partition(" options ")  # prose is wrapped by the terminal itself
    assert prose
    assert found
    assert max(map(len, table.splitlines())) <= 40


def test_lists_are_one_a_line_or_json_with_names(capsys: pytest.CaptureFixture[str]) -> None:
    expected = {
        "envs": [name for name, _ in catalog.ids()],
        "algos": list(ALGORITHMS),
        "presets": list(configs.presets()),
    }
    for command, names in expected.items():
        assert main([command]) == 0
        assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == names
        assert main([command, "--json"]) == 0
        listed = json.loads(capsys.readouterr().out)
        assert [entry["name"] for entry in listed] == names
        assert all(entry["description"] for entry in listed)
        assert main([command, "--json", "off"]) == 0
        assert capsys.readouterr().out.startswith(names[0])


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    process = start("envs", "--json", cwd=tmp_path)
    assert process.stdout is not None
    process.stdout.close()  # as `| head` does
    process.stdout = None
    assert process.communicate()[1] == ""
    assert process.returncode == 0


def test_an_answer_that_cannot_be_written_is_an_error_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    assert main(["envs"]) == 2
    expected = "error: the answer cannot be written to standard output (No space left on device).\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("command", COMMANDS)
def test_help_that_cannot_be_written_is_an_error_in_one_sentence(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.suppress(OSError), open("/dev/full", "w") as full:  # closing tries once more
        monkeypatch.setattr(sys, "stdout", full)
        assert main([command, "--help"]) == 2
        monkeypatch.undo()
    expected = "error: the answer cannot be written to standard output (No space left on device).\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("command", ["train", "envs"])  # more than a pipe's reader is sent at once, and less
def test_help_whose_reader_goes_away_is_no_error(command: str, tmp_path: Path) -> None:
    process = start(command, "--help", cwd=tmp_path)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    assert process.communicate()[1] == ""
    assert process.returncode == 0


def test_python_m_is_the_command(tmp_path: Path) -> None:
    process = start("presets", cwd=tmp_path)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == list(configs.presets())


# ---- diagnose


@pytest.fixture
def blown_up(tmp_path: Path) -> Path:
    """What is left of a run whose losses were infinite after 5,000 steps."""
    run = tmp_path / "run"
    run.mkdir()
    rows = [f"{100 * i},{i},{-20 + i / 10},{1.0 if i < 50 else 'inf'}" for i in range(1, 101)]
    (run / "metrics.csv").write_text("\n".join(["steps,seconds,charts/return,losses/critic", *rows, ""]))
    (run / "metadata.json").write_text('{"status": "running", "pid": 1, "steps": 10000, "total_steps": 20000}')
    return run


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none", "'none' is no folder; a run folder is needed, and `ls runs` shows yours."),
        ("file", "'file' is no folder; a run folder is needed"),
        ("empty", "'empty' holds no metrics.csv; a run folder is needed"),
    ],
)
def test_diagnose_refuses_what_is_no_run(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["diagnose", name]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {said}")
    assert len(err.splitlines()) == 1


def test_diagnose_exits_0_whatever_it_finds_and_prints_what_diagnosis_json_holds(
    blown_up: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diagnose", str(blown_up), "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    write_diagnosis(blown_up, Run(blown_up).diagnose())
    assert out == (blown_up / "diagnosis.json").read_text()
    found = json.loads(out)
    keys = ["verdict", "findings", "symptoms", "actions_taken", "checked", "return", "baselines", "not_judged"]
    assert [*found] == keys
    assert found["verdict"] == "failing"
    assert "non_finite" in found["symptoms"]
    assert found["return"] == -10.0
    assert found["baselines"] == {"random": None, "best_constant": None}
    for finding in found["findings"]:
        expected = ["cause", "confidence", "onset_steps", "where", "evidence", "explanation", "remedy", "config"]
        assert [*finding] == expected
    assert main(["diagnose", "--json", "off", str(blown_up)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{blown_up}: failing"
    assert lines[1].startswith("symptoms: ")
    assert "non finite" in lines[1]


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_an_interrupted_command_exits_130_without_a_traceback(
    number: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(catalog, "ids", lambda: signal.raise_signal(getattr(signal, number)))
    assert main(["envs"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert signal.getsignal(signal.SIGTERM) is before
