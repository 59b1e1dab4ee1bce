"""A run on disk, and in the files beside this one how it is begun, gone on with and conducted to its end."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from marl_stable.diagnosing import diagnose_run
from marl_stable.folder import RunFolder, read_incidents


class Run:
    """A run on disk: where it is, how it ended, and what its evaluations brought."""

    def __init__(self, path: Path | RunFolder) -> None:
        """Raises UsageError where `path` is no run folder."""
        self.folder = path if isinstance(path, RunFolder) else RunFolder.open(path)

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.folder.path

    @property
    def status(self) -> str:
        """`running`, `finished`, `stopped`, `interrupted` or `failed`."""
        return str(self.folder.metadata["status"])

    @property
    def returns(self) -> list[tuple[int, float]]:
        """(steps, evaluation return), per-agent mean and undiscounted, in the order of evaluation."""
        points = self.folder.metadata["returns"]
        return [(int(steps), math.nan if value is None else float(value)) for steps, value in points]

    def diagnose(self) -> dict[str, Any]:
        """What went wrong, why, since when, and what to change: the content of `diagnosis.json`."""
        return diagnose_run(self.path)

    @property
    def incidents(self) -> list[dict[str, Any]]:
        """What the monitor saw and did, as in `incidents.jsonl`."""
        return read_incidents(self.folder.incidents)
