"""What stands for the trainings of a sweep: a tiny script that leaves a run folder behind, and ends as it is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from marl_stable.sweep import plan, processes
from marl_stable.sweep.plan import Member

Behaviour = Callable[[Member], tuple[float, str]]  # (return, deed)

# Stands for a training: does `deed`, and leaves a run folder with the return `value`.
TRAINING = """
import json, os, pathlib, signal, sys, time
path, seed, value, deed = pathlib.Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
(path / "checkpoints").mkdir(parents=True, exist_ok=True)
def end(status, code):
    known = {"random": {"return": -30.0, "ci95": [-31, -29]}, "best_constant": {"return": -20.0, "ci95": [-21, -19]}}
    about = {"status": status, "returns": [[48, value]], "baselines": known, "pid": os.getpid(), "seed": seed}
    (path / "metadata.json").write_text(json.dumps(about))
    (path / "diagnosis.json").write_text(json.dumps({"symptoms": ["oscillation"] if value < -20 else []}))
    print("done with", seed, flush=True)
    os._exit(code)
def asked(number, frame):
    global deed
    if deed == "stubborn" or deed == "deaf":
        other = path.parent / "seed-2" / "metadata.json"
        while deed == "deaf" and not (other.exists() and "interrupted" in other.read_text()):
            time.sleep(0.01)  # the third signal kills all, and the other must have ended by itself before
        deed = {"stubborn": "wait"}.get(deed, deed)
        os.kill(os.getppid(), signal.SIGINT)
    else:
        end("interrupted", 130)
signal.signal(signal.SIGTERM, asked)
if deed == "fail":
    print("loading\\nerror: the simulator has no licence\\n", flush=True)
    os._exit(2)
if deed == "die":
    (path / "metadata.json").write_text(json.dumps({"status": "running", "pid": os.getpid()}))
    os.kill(os.getpid(), signal.SIGKILL)
if deed in ("wait", "stubborn", "deaf"):
    (path / "checkpoints" / "last.pt").touch()
    (path.parent / f"ready-{seed}").touch()
    while len(list(path.parent.glob("ready-*"))) < 2:
        time.sleep(0.01)
    if seed == 1:
        os.kill(os.getppid(), signal.SIGINT)
    while True:
        time.sleep(0.01)
end(deed, 0 if deed == "finished" else 3)
"""


def stand_in(monkeypatch: pytest.MonkeyPatch, behaviour: Behaviour) -> list[tuple[str, str]]:
    """Put the script in the place of `train`; what was begun, as (name, todo)."""
    begun: list[tuple[str, str]] = []

    def arguments(member: Member, todo: plan.Todo) -> list[str]:
        begun.append((member.name, todo))
        value, deed = behaviour(member)
        return ["-c", TRAINING, str(member.path), str(member.config.seed), str(value), deed]

    monkeypatch.setattr(processes, "arguments", arguments)
    return begun
