"""The virtual environments of other libraries: made from pinned requirements when they are first needed, and kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements"
CACHE = HERE.parent / ".cache" / "peers"


class Missing(Exception):
    """A peer that cannot be measured here; the text is one sentence that says why."""


def python_of(peer: str) -> str:
    """The interpreter of `peer`'s environment, which is made if its requirements are new. Missing if that fails."""
    wanted, folder = (REQUIREMENTS / f"{peer}.txt").read_text(encoding="utf-8"), CACHE / peer
    python, installed = folder / "bin" / "python", folder / "installed.txt"
    if not installed.exists() or installed.read_text(encoding="utf-8") != wanted:
        print(f"installing {peer}, once", flush=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        _call(peer, sys.executable, "-m", "venv", "--clear", str(folder))
        _call(peer, str(python), "-m", "pip", "install", "-q", "-r", str(REQUIREMENTS / f"{peer}.txt"))
        installed.write_text(wanted, encoding="utf-8")
    return str(python)


def pins(peer: str) -> list[str]:
    """The releases that `peer` is measured in, such as `torch==2.13.0`."""
    lines = (REQUIREMENTS / f"{peer}.txt").read_text(encoding="utf-8").splitlines()
    return [line.partition("#")[0].strip() for line in lines if line.partition("#")[0].strip()]


def _call(peer: str, *command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"{peer} could not be installed: {reason(done.stderr)}")


def reason(told: str) -> str:
    """The last thing that a failed process said, in one line that fits a table."""
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()] or lines
    return errors[-1].replace("|", "/")[:200].rstrip(".") + "." if errors else "it said nothing."
