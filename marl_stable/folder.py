"""The run folder: what it holds, who may write to it, and its metadata."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marl_stable.report.files import replace_file
from marl_stable.types import UsageError

METADATA = "metadata.json"


class RunFolder:
    """Paths of one run and its `metadata.json`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.csv"
        self.incidents = path / "incidents.jsonl"
        self.metadata: dict[str, Any] = {}

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """A new run's folder; UsageError where it cannot be written or holds a run already. Nothing is overwritten."""
        if path.exists() and not path.is_dir():
            raise UsageError(f"run folder {str(path)!r} is a file; name another with --run-dir.")
        if (path / METADATA).exists() or (path / "checkpoints").exists():
            raise UsageError(
                f"run folder {str(path)!r} holds a run; go on with it by `train --resume {path}`, "
                "or name another with --run-dir."
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
            probe = path / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UsageError(
                f"run folder {str(path)!r} cannot be written ({error.strerror}); name another with --run-dir."
            ) from error
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run's folder; UsageError where there is none or its metadata cannot be read."""
        file = path / METADATA
        if not file.is_file():
            raise UsageError(f"{str(path)!r} is not a run folder: it has no {METADATA}. `ls runs` shows yours.")
        folder = cls(path)
        try:
            folder.metadata = json.loads(file.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{str(file)!r} cannot be read ({error}); restore it from a copy of the run.") from error
        return folder

    def write_metadata(self, **changed: Any) -> None:
        """Change entries of `metadata.json`, atomically."""
        self.metadata |= changed | {"updated": _now()}
        replace_file(self.path / METADATA, [(json.dumps(self.metadata, indent=2) + "\n").encode()])

    def begin(self, **entries: Any) -> None:
        """Mark the run as running in this process."""
        started = self.metadata.get("started", _now())
        self.write_metadata(status="running", pid=os.getpid(), started=started, **entries)

    def require_idle(self) -> None:
        """UsageError while another process runs this run; one whose process is gone has crashed and may go on."""
        pid = self.metadata.get("pid")
        if self.metadata.get("status") == "running" and pid != os.getpid() and _alive(pid):
            raise UsageError(f"run {str(self.path)!r} is running in process {pid}; stop that first (kill {pid}).")


class IncidentFile:
    """`incidents.jsonl`: one line per thing the guard saw or did."""

    def __init__(self, path: Path, keep_until: int | None = None) -> None:
        """`keep_until`: on resume, lines of later steps are dropped, and so is one that was not written whole."""
        self.path = path
        self.counts: dict[str, int] = {}
        kept = [entry for entry in read_incidents(path) if keep_until is not None and entry["steps"] <= keep_until]
        replace_file(path, [(json.dumps(entry) + "\n").encode() for entry in kept])
        for entry in kept:
            self._count(entry["kind"])

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append one incident."""
        self._count(entry["kind"])
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(entry)) + "\n")

    def _count(self, kind: str) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1


def read_incidents(path: Path) -> list[dict[str, Any]]:
    """All whole lines of an `incidents.jsonl`; a missing file has none."""
    if not path.exists():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):  # torn by a crash in mid-write
            entries.append(json.loads(line))
    return entries


def _alive(pid: Any) -> bool:
    try:
        os.kill(int(pid), 0)
    except (OSError, TypeError, ValueError):
        return False
    return True


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
