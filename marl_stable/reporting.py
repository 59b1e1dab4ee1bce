"""Run folders to a page of one file: reads what is there, of live, finished, crashed and old runs. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from marl_stable.diagnosing import read_case
from marl_stable.folder import METADATA, RunFolder, read_incidents
from marl_stable.monitor.diagnosis import diagnose
from marl_stable.report import run_html, runs_html
from marl_stable.report.histograms import read_histograms
from marl_stable.report.told import Told
from marl_stable.types import UsageError


def report(paths: Sequence[Path]) -> str:
    """The page of the runs in `paths`, or in folders below them, as a sweep's are. Raises UsageError where one of them
    holds nothing to tell, or comes twice."""
    paths = [run for path in paths for run in _runs(path)]
    for i, path in enumerate(paths):
        if path.resolve() in [other.resolve() for other in paths[:i]]:
            raise UsageError(f"{str(path)!r} is given twice; name each run once.")
    runs = [_told(path, name) for path, name in zip(paths, _names(paths), strict=True)]
    return run_html.page(runs[0]) if len(runs) == 1 else runs_html.page(runs)


def _runs(path: Path) -> list[Path]:
    """The run itself, or the runs below a folder that is none."""
    below = sorted({file.parent for file in path.rglob(METADATA)}) if path.is_dir() else []
    return [path] if (path / METADATA).exists() or not below else below


def _told(path: Path, name: str) -> Told:
    folder, case = RunFolder(path), read_case(path)
    try:
        config = folder.config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        config = ""
    return Told(
        name,
        case.recording,
        diagnose(case),
        case.config,
        config,
        _metadata(path),
        read_incidents(folder.incidents),
        read_histograms(path),
    )


def _metadata(path: Path) -> Mapping[str, Any]:
    try:
        return RunFolder.open(path).metadata
    except UsageError:  # metrics.csv alone is enough
        return {}


def _names(paths: Sequence[Path]) -> list[str]:
    """The ends of the paths that tell them apart."""
    parts = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]
