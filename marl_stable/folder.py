"""The run folder: what it holds, who may write to it, and its metadata."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from marl_stable.facts import INCIDENT, fits, reliable
from marl_stable.report.files import RecordFile, replace_file, to_json
from marl_stable.types import UsageError

METADATA = "metadata.json"
CONTENTS = ("config.yaml", "metrics.csv", "incidents.jsonl", "recording", "diagnosis.json", "report.html")
"""What a run writes over, beside its metadata and checkpoints."""
ELSEWHERE = "name another with --run-dir"


class RunFolder:
    """Paths of one run and its `metadata.json`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.replay = self.checkpoints / "replay"
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.csv"
        self.incidents = path / "incidents.jsonl"
        self.recording = path / "recording"
        self.diagnosis = path / "diagnosis.json"
        self.report = path / "report.html"
        self.metadata: dict[str, Any] = {}
        self._made: list[Path] = []  # folders that `create` made, the innermost first
        self._written: list[Path] = []  # files that `begin` wrote where there were none
        self._lock: int | None = None

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """A new run's folder, locked for this process; UsageError where it cannot be written or holds a run already,
        or anything else that a run would write over.
        """
        with _refusing(path):
            if path.exists() and not path.is_dir():
                raise UsageError(f"run folder {str(path)!r} is a file; name another with --run-dir.")
        folder = cls(path)
        try:
            with _refusing(path):
                folder._make()
            folder.lock()
            folder._require_free()
        except BaseException:
            folder.discard()
            raise
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run's folder; UsageError where there is none or its metadata cannot be read.

        Entries of the metadata that are not what they must be are left out.
        """
        folder, file = cls(path), path / METADATA
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(found, dict):
                raise ValueError(f"it holds a {type(found).__name__}, not names and values")
            folder.metadata = reliable(found)
        except (FileNotFoundError, NotADirectoryError) as error:
            where = f"{str(path)!r} is not a run folder: it has no {METADATA}"
            raise UsageError(f"{where}. `ls runs` shows yours.") from error
        except (OSError, ValueError) as error:
            raise UsageError(f"{str(file)!r} cannot be read ({error}); restore it from a copy of the run.") from error
        return folder

    def lock(self) -> None:
        """Keep every other process from this run until `release`, or until this process ends, in whatever way.

        UsageError where another has it. A lock and not the process id in the metadata: ids are used again.
        """
        self._lock = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            who = self.metadata.get("pid", "another process")
            raise UsageError(f"run {str(self.path)!r} is running (process {who}); end that first.") from None
        except OSError:  # a file system without locks
            pass

    def release(self) -> None:
        """Let other processes have the run."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def discard(self) -> None:
        """Take back what `create` and `begin` made, as far as nothing else is in it."""
        for file in self._written:
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            for folder in self._made:
                folder.rmdir()
        self.release()

    def write_metadata(self, **changed: Any) -> None:
        """Change entries of `metadata.json`, atomically."""
        self.metadata |= changed | {"updated": _now()}
        replace_file(self.path / METADATA, [(to_json(self.metadata, indent=2) + "\n").encode()])

    def begin(self, config: str, **entries: Any) -> None:
        """Write `config.yaml`, and mark the run as running in this process; UsageError where that cannot be written."""
        started = self.metadata.get("started", _now())
        self._written += [file for file in (self.config, self.path / METADATA) if not file.exists()]
        remedy = "let it be written" if "started" in self.metadata else ELSEWHERE
        with _refusing(self.path, remedy):
            replace_file(self.config, [config.encode()])
            self.write_metadata(status="running", pid=os.getpid(), started=started, **entries)

    def end(self, status: str, **entries: Any) -> None:
        """Note how the run ended, as far as the disk takes it, and let other processes have it."""
        with contextlib.suppress(OSError):
            self.write_metadata(status=status, ended=_now(), **entries)
        self.release()

    def _require_free(self) -> None:
        """Refuse a folder in which a run would write over what is there."""
        if (self.path / METADATA).exists() or self.checkpoints.exists():
            raise UsageError(
                f"run folder {str(self.path)!r} holds a run; go on with it by `train --resume {self.path}`, "
                "or name another with --run-dir."
            )
        if taken := [name for name in CONTENTS if (self.path / name).exists()]:
            raise UsageError(
                f"run folder {str(self.path)!r} holds {' and '.join(taken)}, which a run would write over; "
                "name another with --run-dir."
            )

    def _make(self) -> None:
        missing = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            self._made.insert(0, folder)
        probe = self.path / ".writable"
        probe.touch()
        probe.unlink()


class IncidentFile:
    """`incidents.jsonl`: one line per thing the guard saw or did."""

    def __init__(self, path: Path, keep_until: int | None = None) -> None:
        """`keep_until`: on resume, lines of later steps are dropped, and so is one that was not written whole."""
        self.path = path
        self.counts: dict[str, int] = {}
        kept = [entry for entry in read_incidents(path) if keep_until is not None and entry["steps"] <= keep_until]
        self._file = RecordFile(path)
        with contextlib.suppress(OSError):  # a full disk: later lines stay, which is better than no training
            self._file.begin(b"", (_line(entry) for entry in kept))
        for entry in kept:
            self._count(entry["kind"])

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append one incident; counted also where OSError says that it could not be written."""
        self._count(entry["kind"])
        self._file.append(_line(entry))

    def _count(self, kind: str) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1


def read_incidents(path: Path) -> list[dict[str, Any]]:
    """All lines of an `incidents.jsonl` that are whole and tell of an incident; a missing file has none."""
    if not path.exists():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(json.JSONDecodeError):  # torn by a crash in mid-write
            entries.append(json.loads(line))
    return [entry for entry in entries if fits(entry, INCIDENT)]


@contextlib.contextmanager
def _refusing(path: Path, remedy: str = ELSEWHERE) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"run folder {str(path)!r} cannot be written ({error.strerror}); {remedy}.") from error


def _line(entry: Mapping[str, Any]) -> bytes:
    return (to_json(dict(entry)) + "\n").encode()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
