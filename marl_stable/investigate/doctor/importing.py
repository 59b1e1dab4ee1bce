"""Whether another process can make the environment from its id and arguments, as every worker has to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from marl_stable.investigate.doctor.findings import Notebook, short

SECONDS = 15.0  # some simulators take longer: then nothing is known
PACKAGE = str(Path(__file__).resolve().parents[3])
PROGRAM = """
import json, os, sys
order = json.loads(sys.stdin.read())
sys.path.append(order["package"])
from marl_stable.envs import catalog
try:
    catalog.make_single(order["id"], order["kwargs"])
except Exception as error:
    print(f"{type(error).__name__}: {error}" if type(error).__name__ != "UsageError" else error, file=sys.stderr)
    sys.stderr.flush()
    os._exit(3)
os._exit(0)  # whatever an environment does at the end of a process
"""
REMEDY = (
    "Define the factory at the top level of a file or module that a new process finds, and name it by path/to/file.py:"
    "factory."
)


def check_import(env_id: str, kwargs: dict[str, Any], notes: Notebook) -> None:
    """Make the environment in a new process, where it comes from a factory."""
    try:
        order = json.dumps({"id": env_id, "kwargs": kwargs, "package": PACKAGE})
    except (TypeError, ValueError) as error:
        what = f"env.kwargs cannot be written as JSON ({error}), so that no worker, preset or checkpoint can hold them."
        named = next((key for key, value in kwargs.items() if not _has_json(value)), "")
        remedy = "Use numbers, text, lists and dictionaries, and make objects of them in the factory."
        notes.note("not_importable", "error", {"argument": named}, short(kwargs.get(named)), what, remedy)
        return
    if ":" not in env_id:
        return
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", PROGRAM],
            input=order,
            text=True,
            capture_output=True,
            timeout=SECONDS,
            check=False,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )
    except (subprocess.TimeoutExpired, OSError):
        return
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        what = f"A new process, such as a worker, cannot make {env_id}: {said}"
        notes.note("not_importable", "error", {"factory": env_id}, short(said), what, REMEDY)


def _has_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
