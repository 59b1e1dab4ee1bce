"""A run folder to its diagnosis: reads what is there, of live, finished, crashed and old runs; changes nothing.

Needs no torch, so that it answers at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from marl_stable.configs import parse
from marl_stable.folder import METADATA, RunFolder, read_incidents
from marl_stable.monitor.case import Case
from marl_stable.monitor.diagnosis import diagnose
from marl_stable.monitor.recording import of_metrics, read_recording
from marl_stable.report.files import replace_file, to_json
from marl_stable.report.metrics import read_metrics
from marl_stable.types import UsageError

POISONED = {"losses/critic": math.inf, "losses/actor": math.inf}
"""Losses that are written as nan: a recording's NaN would say that they were not read."""
FACTS = ("status", "total_steps", "steps", "baselines", "preflight", "contributions", "spec")


def diagnose_run(path: Path) -> dict[str, Any]:
    """The content of `diagnosis.json` for the run in `path`; UsageError where there is nothing to diagnose."""
    return diagnose(read_case(path))


def read_case(path: Path) -> Case:
    """All that the folder `path` tells of its run; its metrics.csv alone is enough."""
    folder = RunFolder(path)
    if not path.is_dir():
        raise UsageError(f"{str(path)!r} is no folder; a run folder is needed, and `ls runs` shows yours.")
    if not (folder.metrics.exists() or (path / METADATA).exists()):
        raise UsageError(f"{str(path)!r} holds no metrics.csv; a run folder is needed, and `ls runs` shows yours.")
    facts = _facts(folder)
    groups = [group["name"] for group in facts.get("spec", {}).get("groups", [])]
    recording = read_recording(folder.recording).joined(of_metrics(_metrics(folder), groups))
    return Case(recording, _config(folder), facts)


def write_diagnosis(path: Path, found: Mapping[str, Any]) -> None:
    """Write `diagnosis.json`, atomically. Raises OSError."""
    replace_file(RunFolder(path).diagnosis, [(to_json(dict(found), indent=2) + "\n").encode()])


def _metrics(folder: RunFolder) -> dict[str, list[float]]:
    """Empty where metadata show that this is a run whose metrics.csv was not begun, or lost its first line."""
    try:
        return read_metrics(folder.metrics, POISONED)
    except UsageError:
        if not (folder.path / METADATA).exists():
            raise
        return {}


def _facts(folder: RunFolder) -> dict[str, Any]:
    try:
        metadata = RunFolder.open(folder.path).metadata
    except UsageError:
        metadata = {}
    facts = {name: metadata[name] for name in FACTS if name in metadata}
    return facts | {"incidents": read_incidents(folder.incidents)}


def _config(folder: RunFolder) -> dict[str, Any]:
    """Dotted keys, read as they stand: an older release's configuration is evidence as well."""
    try:
        return dict(_dotted(parse(folder.config.read_text(encoding="utf-8"), str(folder.config))))
    except (OSError, UnicodeDecodeError, UsageError):
        return {}


def _dotted(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, Mapping) and key not in ("kwargs", "teams"):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
