"""What the runs of a sweep brought: by point, over its seeds; read from the run folders alone."""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from marl_stable.folder import METADATA, RunFolder
from marl_stable.statistics import interquartile_interval, interquartile_mean
from marl_stable.sweep.plan import Member, Point
from marl_stable.types import UsageError

UNIT = "per-agent mean, undiscounted"
COUNTED = ("finished", "stopped")  # ends of runs whose last evaluation says what the settings are worth
BASELINES = ("random", "best_constant")


def collect(members: Sequence[Member]) -> dict[str, Any]:
    """The answer of `sweep --json`: points with the best first, those without any return last."""
    found: dict[str, tuple[Point, list[dict[str, Any]]]] = {}
    for member in members:
        found.setdefault(member.point.name, (member.point, []))[1].append(outcome(member))
    points = [summary(name, point.values, runs) for name, (point, runs) in found.items()]
    return {"unit": UNIT, "points": sorted(points, key=merit, reverse=True)}


def merit(point: Mapping[str, Any]) -> float:
    """What points are ordered by."""
    return -math.inf if point["return"] is None else float(point["return"]["iqm"])


def outcome(member: Member) -> dict[str, Any]:
    """One run as it stands on disk; `return` is None where it did not end by itself, or was no finite number."""
    entry: dict[str, Any] = {"seed": member.config.seed, "path": str(member.path), "status": "failed", "return": None}
    about = _metadata(member.path)
    status = about.get("status", "failed")
    entry["status"] = "crashed" if status == "running" else status
    returns = about.get("returns") or []
    if status in COUNTED and returns and _finite(returns[-1][1]):
        entry["return"] = float(returns[-1][1])
    if status != "finished":
        entry["reason"] = about.get("reason") or last_line(member.log)
    known = about.get("baselines") or {}
    entry["baselines"] = {name: (known.get(name) or {}).get("return") for name in BASELINES}
    return entry | {"symptoms": _symptoms(member.path)}


def last_line(log: Path) -> str:
    """The last thing that a run printed."""
    try:
        lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return "it left no output"
    return next((line for line in reversed(lines) if line), "it printed nothing")


def summary(name: str, values: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A point: settings and what the `outcome`s of its runs come to."""
    baselines = {name: _mean(run["baselines"][name] for run in runs) for name in BASELINES}
    return {
        "name": name,
        "config": dict(values),
        "return": over_seeds(runs),
        "dead": _dead(runs, baselines),
        "symptoms": dict(Counter(symptom for run in runs for symptom in run["symptoms"])),
        "baselines": baselines,
        "runs": [{key: value for key, value in run.items() if key != "baselines"} for run in runs],
    }


def over_seeds(runs: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Interquartile mean, its interval where there is more than one seed, and the worst seed."""
    known = {run["seed"]: run["return"] for run in runs if run["return"] is not None}
    if not known:
        return None
    values = np.array(list(known.values()))
    worst = min(known, key=lambda seed: known[seed])
    return {
        "iqm": float(interquartile_mean(values)),
        "ci95": list(interquartile_interval(values)) if len(values) > 1 else None,
        "worst": known[worst],
        "worst_seed": worst,
    }


def _dead(runs: Iterable[Mapping[str, Any]], baselines: dict[str, float | None]) -> list[int]:
    """Seeds that ended no better than the best constant action or random play, or with no finite return; what was not
    measured kills nobody."""
    bar = max((value for value in baselines.values() if value is not None), default=-math.inf)
    ended = (run for run in runs if run["status"] in COUNTED)
    return [run["seed"] for run in ended if run["return"] is None or run["return"] <= bar]


def _metadata(path: Path) -> dict[str, Any]:
    if not (path / METADATA).exists():
        return {}
    try:
        return RunFolder.open(path).metadata
    except UsageError as error:
        return {"reason": str(error)}


def _symptoms(path: Path) -> list[str]:
    """As its diagnosis.json names them; none where nothing was watched."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(RunFolder(path).diagnosis.read_text(encoding="utf-8"))
        return [str(symptom) for symptom in found["symptoms"]]
    return []


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
