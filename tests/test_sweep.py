"""Sweeps: which runs they mean, how their processes begin and end, and what is told of them."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from marl_stable import configs
from marl_stable.cli import main
from marl_stable.cli.train import train_config
from marl_stable.conversion import leaves
from marl_stable.evaluation import UNIT
from marl_stable.folder import RunFolder
from marl_stable.interruption import Signals
from marl_stable.sweep import command, grid, plan, processes, results
from marl_stable.sweep.plan import Member, Point
from marl_stable.types import UsageError
from tests.runs import ROOT, TINY, metadata, start

FLAGS = [word for pair in TINY.items() for word in pair]


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processes, "SECONDS_BETWEEN_LOOKS", 0.02)


def well(member: Member) -> tuple[float, str]:
    """Returns that depend on the seed and, where it is varied, on the step size."""
    return -10.0 - member.config.seed - 1000 * float(member.point.settings.get("algo.lr", 0)), "finished"


def points(*axes: str) -> list[Point]:
    found = list(grid.points(axes))
    return [Point(settings, train_config([*FLAGS, *grid.flags(settings)])) for settings in found]


# ---- seeds and grids


@pytest.mark.parametrize(
    ("line", "rest", "axes"),
    [
        ("a.yaml --quiet", "a.yaml --quiet", []),
        ("--grid algo.lr=1,2 --seeds 1", "--seeds 1", ["algo.lr=1,2"]),
        ("--quiet --grid algo.lr=1,2 algo.tau=3,4", "--quiet", ["algo.lr=1,2", "algo.tau=3,4"]),
        ("--grid=algo.lr=1,2 --seed 3 --grid algo=ippo,mappo", "--seed 3", ["algo.lr=1,2", "algo=ippo,mappo"]),
    ],
)
def test_what_belongs_to_the_grid(line: str, rest: str, axes: list[str]) -> None:
    assert grid.taken(line.split()) == (rest.split(), axes)


def test_a_grid_is_every_combination() -> None:
    found = list(grid.points(["algo=mappo,ippo", "--algo.network.final-init=none,3e-3"]))
    assert [list(settings.values()) for settings in found] == [
        ["mappo", "none"],
        ["mappo", "3e-3"],
        ["ippo", "none"],
        ["ippo", "3e-3"],
    ]
    assert {tuple(settings) for settings in found} == {("algo.name", "algo.network.final_init")}
    assert grid.flags(found[1]) == ["--algo.name", "mappo", "--algo.network.final-init", "3e-3"]
    assert list(grid.points([])) == [{}]


def test_values_that_hold_commas_are_parted_by_semicolons() -> None:
    axes = ["algo.network.hidden=64,64;128", 'env.kwargs={"N": 3, "max_cycles": 5}; {"N": 4}']
    found = points(*axes)
    assert [point.config.algo.network.hidden for point in found] == [(64, 64), (64, 64), (128,), (128,)]  # type: ignore[attr-defined]
    assert [point.config.env.kwargs for point in found[:2]] == [{"N": 3, "max_cycles": 5}, {"N": 4}]


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", [3]), ("1,2,3", [1, 2, 3]), ("1..5", [1, 2, 3, 4, 5]), ("7, 1..2", [7, 1, 2])]
)
def test_seeds(text: str, seeds: list[int]) -> None:
    assert grid.seeds(text) == seeds


MISTAKES = [
    ("nothing", "unknown preset 'nothing'"),
    ("founding_story extra", "'extra' is one word too many; the usage is: marl-stable sweep [PRESET] [flags]"),
    ("--sed 1,2", "unknown flag '--sed'. Did you mean --seed"),
    ("--seeds 1,1", "seeds is '1,1'; seed 1 is named twice."),
    ("--seeds 5..1", "seeds is '5..1'; it must be seeds such as 1,2,3 or 1..5."),
    ("--seeds one", "seeds is 'one'; it must be seeds such as 1,2,3 or 1..5."),
    ("--seeds -1", "seeds is '-1'; it must be seeds"),
    ("--seeds 1..2,", "seeds is '1..2,'; it must be seeds"),
    ("--seeds 1..20000", "the sweep has 20,000 runs; it must be at most 10,000"),
    ("--seeds 2147483648", "seed is 2147483648; it must be a whole number from 0 to 2147483647."),
    ("--jobs 0", "jobs is 0; it must be at least 1."),
    ("--jobs many", "--jobs is 'many'; it must be a whole number or none."),
    ("--grid", "--grid has no value; it must be KEY=V1,V2, such as algo.lr=1e-3,3e-4."),
    ("--grid --quiet", "--grid has no value"),
    ("--grid algo.lr", "--grid is 'algo.lr'; it must be KEY=V1,V2"),
    ("--grid =1,2", "--grid is '=1,2'; it must be KEY=V1,V2"),
    ("--grid algo.lr=1e-3", "--grid algo.lr is '1e-3'; it must be two values or more with ',' between them"),
    ("--grid algo.lr=1e-3,", "--grid algo.lr is '1e-3,'; it must be two values or more"),
    ("--grid algo.network.hidden=64,64", "or more with ';' between them, else a flag --algo.network.hidden."),
    ("--grid algo.lrr=1,2", "unknown grid key 'algo.lrr'. Did you mean algo.lr"),
    ("--grid algo.tau=0.1,0.2", "unknown flag '--algo.tau'"),  # not one of MAPPO's
    ("--grid algo.lr=1e-3,0", "algo.lr is 0.0; it must be positive."),
    ("--grid algo.lr=1e-3,fast", "--algo.lr is 'fast'; it must be a number."),
    ("--grid algo.lr=1e-3,0.001", "algo.lr=1e-3 and algo.lr=0.001 are the same run; leave one of them out."),
    ("--grid algo.lr=1,2 --grid algo.lr=3,4", "--grid names algo.lr twice; give all its values in one place."),
    ("--grid seed=1,2", "--grid cannot vary seed: give seeds by --seeds."),
    ("--grid run-dir=a,b", "--grid cannot vary run_dir: each run has a folder of its own"),
    ("--grid env=particle/simple_spread_v3,particle/simple_spred_v3", "Did you mean particle/simple_spread_v3"),
    ("--grid jobs=1,2", "unknown grid key 'jobs'"),
]


@pytest.mark.parametrize(("line", "said"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_one_sentence_and_nothing_is_begun(
    line: str, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["sweep", *line.split()]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    (sentence,) = told.err.splitlines()
    assert said in sentence
    assert list(tmp_path.iterdir()) == []


def test_no_mistake_loads_torch(tmp_path: Path) -> None:
    code = """
import json, sys
from marl_stable.cli import main
for line in json.loads(sys.argv[1]):
    assert main(["sweep", *line.split()]) == 2, line
    assert "torch" not in sys.modules, line
"""
    command = [sys.executable, "-W", "error", "-c", code, json.dumps([line for line, _ in MISTAKES])]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("words", "runs"),
    [
        (["--seeds", "1..1000000000"], "1,000,000,000"),
        (["--seeds", f"3,5..{10**30}"], f"{10**30 - 3:,}"),
        (
            ["--grid", *(f"{key}={','.join(map(str, range(1, 1001)))}" for key in ("algo.lr", "eval-every"))],
            "1,000,000",
        ),
    ],
    ids=["seeds", "more than fit into any list", "grid"],
)
def test_too_many_runs_are_refused_before_they_fill_the_memory(words: list[str], runs: str, tmp_path: Path) -> None:
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))"
    code = f"{limit}; from marl_stable.cli import main; sys.exit(main(['sweep', *sys.argv[1:]]))"
    command = [sys.executable, "-c", code, *words]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2, done.stderr[-2000:]
    assert done.stderr.startswith(f"error: the sweep has {runs} runs; it must be at most 10,000")


# ---- the plan


def test_seeds_come_round_by_round_and_each_run_has_a_place_of_its_own() -> None:
    found = plan.members(points("algo.lr=1e-3,1e-2", "algo.share=on,off"), [4, 2], Path("s"))
    assert [str(member.path) for member in found[:2]] == [
        "s/algo.lr=1e-3,algo.share=on/seed-4",
        "s/algo.lr=1e-3,algo.share=off/seed-4",
    ]
    assert [member.config.seed for member in found] == [4] * 4 + [2] * 4
    assert found[-1].config.algo.lr == 1e-2  # type: ignore[attr-defined]
    assert found[-1].log == Path("s/algo.lr=1e-2,algo.share=off/seed-2.log")
    assert [member.path for member in plan.members(points(), [1], Path("s"))] == [Path("s/seed-1")]


def test_places_have_names_that_every_file_system_takes() -> None:
    found = plan.members(points('env.kwargs={"max_cycles": 5};{"max_cycles": 6}'), [1], Path("s"))
    assert [member.path.parent.name for member in found] == [
        "env.kwargs=__max_cycles___5_",
        "env.kwargs=__max_cycles___6_",
    ]
    alike = plan.members(points("env.id=particle/simple_tag_v3,particle:simple_tag_v3"), [1], Path("s"))
    assert [member.path.parent.name for member in alike] == ["point-1", "point-2"]


@pytest.mark.parametrize(
    ("flags", "on_gpu", "jobs"),
    [
        ([], False, 8),
        (["--threads", "2"], False, 4),
        (["--env.workers", "2"], False, 2),
        (["--threads", "3", "--env.workers", "2"], False, 1),
        (["--threads", "16"], False, 1),
        (["--threads", "auto"], False, 1),
        ([], True, 1),
    ],
)
def test_by_default_no_core_is_promised_twice(
    flags: list[str], on_gpu: bool, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    assert plan.default_jobs([train_config([]), train_config(flags)], on_gpu) == jobs


@pytest.mark.parametrize(("devices", "on_gpu"), [(["cpu", "cpu"], False), (["cpu", "cuda"], True)])
def test_a_device_that_is_named_needs_no_looking_for(devices: list[str], on_gpu: bool) -> None:
    assert command.on_gpu([train_config(["--device", device]) for device in devices]) == on_gpu


def test_what_is_to_be_done_about_a_run_is_read_from_its_folder() -> None:
    (member,) = plan.members(points(), [1], Path("s"))
    assert plan.todo(member) == "begin"
    plan.prepare(member)
    assert configs.read_run(member.preset) == member.config
    assert plan.todo(member) == "begin"
    folder = RunFolder.create(member.path)
    for status, expected in [("finished", "keep"), ("stopped", "keep"), ("interrupted", "begin"), ("failed", "begin")]:
        folder.write_metadata(status=status)
        with pytest.raises(UsageError, match="is running"):  # its lock is held
            plan.todo(member)
        folder.release()
        assert plan.todo(member) == expected
        folder.lock()
    folder.checkpoints.mkdir()
    (folder.checkpoints / "last.pt").touch()
    folder.release()
    assert plan.todo(member) == "resume"
    (folder.checkpoints / "last.pt").unlink()
    plan.prepare(member)  # nothing was saved: what is left would keep a new run from beginning
    assert not member.path.exists()


def test_another_sweeps_place_is_left_alone(capsys: pytest.CaptureFixture[str], trainings: Any) -> None:
    begun = trainings(well)
    assert main(["sweep", *FLAGS, "--run-dir", "s"]) == 0
    before = {path: path.stat().st_mtime_ns for path in Path("s").rglob("*")}
    assert main(["sweep", *FLAGS, "--run-dir", "s", "--algo.lr", "1e-3"]) == 2
    assert "'s/seed-1.yaml' describes another run than seed 1 of this sweep" in capsys.readouterr().err
    assert main(["sweep", *FLAGS, "--run-dir", "s/seed-1"]) == 2
    assert "'s/seed-1' holds a run; name another folder for the sweep" in capsys.readouterr().err
    Path("s/seed-1.yaml").unlink()
    before.pop(Path("s/seed-1.yaml"))
    assert main(["sweep", *FLAGS, "--run-dir", "s"]) == 2
    assert "holds a run that is none of this sweep" in capsys.readouterr().err
    Path("file").touch()
    assert main(["sweep", *FLAGS, "--run-dir", "file"]) == 2
    assert "'file' cannot be written" in capsys.readouterr().err
    other = plan.claim(Path("s"))
    assert main(["sweep", *FLAGS, "--run-dir", "s"]) == 2
    assert "a sweep in 's' is running; end that first" in capsys.readouterr().err
    other.release()
    after = {path: path.stat().st_mtime_ns for path in Path("s").rglob("*")}
    assert {path: after[path] for path in before if path.is_file()} == {p: t for p, t in before.items() if p.is_file()}
    assert len(begun) == 1


# ---- what they brought


def ran(member: Member, value: float | None, status: str = "finished", constant: float | None = -20.0) -> None:
    folder = RunFolder.create(member.path)
    best = None if constant is None else {"return": constant, "ci95": [constant - 1, constant + 1]}
    known = {"random": {"return": -30.0, "ci95": [-31.0, -29.0]}, "best_constant": best}
    folder.write_metadata(status=status, returns=[[48, -99.0], [96, value]], baselines=known)
    folder.release()


def test_points_are_told_with_the_best_first() -> None:
    runs = plan.members(points("algo.lr=1e-4,1e-3,1e-2,1e-1"), [1, 2, 3], Path("s"))
    brought: dict[str, list[tuple[float | None, str]]] = {
        "1e-4": [(-19.0, "finished"), (-21.0, "finished"), (-20.0, "finished")],
        "1e-3": [(-12.0, "finished"), (-11.0, "finished"), (-10.0, "finished")],
        "1e-2": [(-15.0, "finished"), (-18.0, "stopped"), (-1.0, "interrupted")],
        "1e-1": [(None, "finished"), (-5.0, "failed"), (-5.0, "running")],
    }
    for member in runs:
        ran(member, *brought[member.point.settings["algo.lr"]][member.config.seed - 1])
    (runs[0].path / "diagnosis.json").write_text('{"symptoms": ["oscillation", "no_learning"]}')
    (runs[4].path / "diagnosis.json").write_text('{"symptoms": ["oscillation"]}')
    (runs[8].path / "diagnosis.json").write_text("torn")
    found = results.collect(runs)
    assert found["unit"] == UNIT
    assert [point["config"]["algo.lr"] for point in found["points"]] == [1e-3, 1e-2, 1e-4, 1e-1]
    best, cut, worse, none = found["points"]
    assert {key: best["return"][key] for key in ("iqm", "worst", "worst_seed")} == {
        "iqm": -11.0,
        "worst": -12.0,
        "worst_seed": 1,
    }
    low, high = best["return"]["ci95"]
    assert -12 <= low < -11 < high <= -10
    assert (best["dead"], best["baselines"]) == ([], {"random": -30.0, "best_constant": -20.0})
    assert cut["return"]["iqm"] == -16.5  # what was cut short by others says nothing
    assert [run["status"] for run in none["runs"]] == ["finished", "failed", "crashed"]
    assert (worse["dead"], cut["dead"], none["dead"]) == ([2, 3], [], [1])
    assert worse["symptoms"] == {"oscillation": 2, "no_learning": 1}
    assert none["return"] is None


def test_what_was_not_measured_kills_no_seed() -> None:
    runs = plan.members(points(), [1, 2], Path("s"))
    for member, value in zip(runs, (-25.0, -35.0), strict=True):
        ran(member, value, constant=None)
    (point,) = results.collect(runs)["points"]
    assert (point["dead"], point["baselines"]["best_constant"], point["name"]) == ([2], None, "")


# ---- the processes


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_as_many_run_at_once_as_there_are_jobs(
    jobs: int, trainings: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, events = trainings(well), list[int]()
    begin, outcome = processes._start, results.outcome

    def counted(change: int, act: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            events.append(change)
            return act(*given)

        return call

    monkeypatch.setattr(processes, "_start", counted(1, begin))
    monkeypatch.setattr(command, "outcome", counted(-1, outcome))
    assert main(["sweep", *FLAGS, "--seeds", "1..4", "--jobs", str(jobs), "--run-dir", "s"]) == 0
    assert max(itertools.accumulate(events)) == jobs
    assert begun == [(f"seed {seed}", "begin") for seed in (1, 2, 3, 4)]
    told = capsys.readouterr()
    assert told.err.startswith(f"4 runs, {jobs} at once, in s\n")
    assert re.search(r"^\[4/4\] seed \d: return -1\d.00 after 0:00:0\d$", told.err, re.MULTILINE)
    assert Path("s/seed-3.log").read_text() == "done with 3\n"


def test_the_table_and_its_json(trainings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    begun = trainings(well)
    words = ["sweep", *FLAGS, "--grid", "algo.lr=0.02,0.002", "--seeds", "1,2", "--run-dir", "s", "--jobs", "2"]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"last evaluation return ({UNIT})")
    rows = [line for line in told.splitlines() if line.startswith("│ --algo.lr")]
    assert len(rows) == 2
    assert [cell.strip() for cell in rows[0].split("│")][2:3] == ["-13.50"]
    assert [cell.strip() for cell in rows[1].split("│")][4:7] == ["-32.00 (2)", "2", "2"]
    for line in ("random return -30.00", "best constant return -20.00", "best: --algo.lr 0.002", "runs in s"):
        assert line in told.splitlines()
    assert "oscillation" in told
    assert len(begun) == 4
    assert main([*words, "--json"]) == 0
    kept = capsys.readouterr()
    assert len(begun) == 4  # nothing is trained twice
    assert kept.err == "4 runs, 4 of them done before, 1 at once, in s\n"
    found = json.loads(kept.out)
    assert list(found) == ["unit", "points", "folder"]
    assert [point["config"] for point in found["points"]] == [{"algo.lr": 0.002}, {"algo.lr": 0.02}]
    for point in found["points"]:
        assert list(point) == ["name", "config", "return", "dead", "symptoms", "baselines", "runs"]
        assert [list(run) for run in point["runs"]] == [["seed", "path", "status", "return", "symptoms"]] * 2


def test_quiet_sweeps_tell_only_what_went_wrong(trainings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    trainings(lambda member: (-10.0, "finished" if member.config.seed == 1 else "fail"))
    assert main(["sweep", *FLAGS, "--seeds", "1,2", "--quiet"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "seed 2: failed: error: the simulator has no licence" in line


def test_a_run_that_fails_is_named_and_ends_no_other(trainings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    deeds = {1: "fail", 2: "finished", 3: "die", 4: "stopped", 5: "finished"}
    begun = trainings(lambda member: (-10.0, deeds[member.config.seed]))
    words = ["sweep", *FLAGS, "--seeds", "1..5", "--jobs", "2", "--run-dir", "s"]
    assert main(words) == 1
    told = capsys.readouterr()
    assert "seed 1: failed: error: the simulator has no licence (see s/seed-1.log)" in told.err
    assert "seed 3: crashed: it printed nothing (see s/seed-3.log)" in told.err
    for out in ("failed: seed 1: error: the simulator", "crashed: seed 3: it printed nothing", "stopped: seed 4: done"):
        assert out in " ".join(told.out.split())
    assert "3 of 5" in told.out
    begun.clear()
    deeds |= {1: "finished", 3: "finished"}
    assert main(words) == 1  # seed 4 was stopped by the guard, and would be again
    assert begun == [("seed 1", "begin"), ("seed 3", "begin")]
    assert "3 of them done before" in capsys.readouterr().err


# ---- Ctrl-C


@pytest.mark.parametrize("deed", ["wait", "stubborn", "deaf"])
def test_ctrl_c_ends_all_whole_and_what_does_not_end_is_ended(
    deed: str, trainings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The user asks once, twice where a run takes its time, and a third time."""
    begun = trainings(lambda member: (-10.0, deed if member.config.seed == 1 else "wait"))
    words = ["sweep", *FLAGS, "--seeds", "1..3", "--jobs", "2", "--run-dir", "s"]
    assert main(words) == 130
    assert [name for name, _ in begun] == ["seed 1", "seed 2"]
    assert Path("s/seed-1/metadata.json").exists() == (deed != "deaf")
    assert metadata(Path("s/seed-2"))["status"] == "interrupted"
    told = capsys.readouterr()
    assert told.out == ""
    again = told.err.splitlines()[-1].partition("Go on with: ")[2]
    assert shlex.split(again) == ["marl-stable", *words]
    begun.clear()
    trainings(well)
    assert main(shlex.split(again)[1:]) == 0


def test_a_sweep_in_a_folder_of_its_own_choice_says_which(trainings: Any, capsys: pytest.CaptureFixture[str]) -> None:
    trainings(lambda member: (-10.0, "wait"))
    words = ["sweep", *FLAGS, "--seeds", "1,2", "--jobs", "2"]
    assert main(words) == 130
    again = shlex.split(capsys.readouterr().err.splitlines()[-1].partition("Go on with: ")[2])
    assert again[:-1] == ["marl-stable", *words, "--run-dir"]
    assert Path(again[-1]).parent == Path("runs")
    begun = trainings(well)
    assert main(again[1:]) == 0
    assert {todo for _, todo in begun} == {"resume"}


def test_a_closed_terminal_ends_the_runs_too() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever started the tests: below nohup it is ignored
    signals = Signals()
    signals.saving = True
    with processes._hanging_up_ends(signals):
        signal.raise_signal(signal.SIGHUP)
        assert signals()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with processes._hanging_up_ends(signals):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


# ---- from end to end

SHORT = {**TINY, "--eval-every": "0", "--checkpoint-every": "1000000", "--stability": "off", "--total-steps": "4800"}


def test_two_runs_interrupted_and_gone_on_with(tmp_path: Path) -> None:
    flags = [word for pair in SHORT.items() for word in pair]
    process = start("sweep", *flags, "--seeds", "1,2", "--jobs", "2", "--run-dir", "s", cwd=tmp_path)
    runs = [tmp_path / "s" / f"seed-{seed}" for seed in (1, 2)]
    while process.poll() is None and not any((run / "metrics.csv").exists() for run in runs):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out) == (130, "")
    begun = {run: metadata(run)["started"] for run in runs if (run / "metadata.json").exists()}
    assert begun
    assert {metadata(run)["status"] for run in begun} <= {"interrupted", "running"}  # the latter had not begun to train
    process = start(*shlex.split(err.splitlines()[-1].partition("Go on with: ")[2])[1:], "--json", cwd=tmp_path)
    out, err = process.communicate()
    assert process.returncode == 0, err
    (point,) = json.loads(out)["points"]
    assert [run["status"] for run in point["runs"]] == ["finished"] * 2
    assert any(metadata(run)["started"] == when for run, when in begun.items())
    assert [metadata(run)["steps"] for run in runs] == [4800] * 2
    asked, made = replace(train_config(flags), seed=2), configs.read_run(runs[1] / "config.yaml")
    differing = [key for (key, a), (_, b) in zip(leaves(asked), leaves(made), strict=True) if a != b]
    assert differing == ["algo.gamma"]  # which was auto
    assert "finished" in (tmp_path / "s" / "seed-1.log").read_text()


def test_a_point_that_cannot_be_trained_is_named_and_the_other_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for pair in (SHORT | {"--total-steps": "48"}).items() for word in pair if pair[0] != "--env.kwargs"]
    kwargs = 'env.kwargs={"max_cycles": 5};{"maximum": 5}'
    assert main(["sweep", *words, "--grid", kwargs, "--jobs", "2", "--json"]) == 1
    told = capsys.readouterr()
    good, bad = json.loads(told.out)["points"]
    assert (good["config"], good["runs"][0]["status"]) == ({"env.kwargs": {"max_cycles": 5}}, "finished")
    assert isinstance(good["return"]["iqm"], float)
    assert (bad["return"], bad["runs"][0]["status"]) == (None, "failed")
    assert bad["runs"][0]["reason"].startswith("error: ")
    assert "maximum" in bad["runs"][0]["reason"]
    assert not Path(bad["runs"][0]["path"]).exists()
    assert len(told.err.splitlines()) == 3
