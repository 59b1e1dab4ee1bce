"""The table that ends a sweep: one line a point, the best first, and what the best is made of."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from marl_stable.report.console import open_console
from marl_stable.report.page import flags

HEADINGS = ("settings", "IQM", "95% interval", "worst (seed)", "dead", "seeds", "symptoms")
NUMBERS = HEADINGS[1:6]


def page(found: Mapping[str, Any], console: Console | None = None) -> None:
    """Print what `sweep --json` prints, for people."""
    console = open_console(sys.stdout) if console is None else console
    table = Table(title=Text(f"last evaluation return ({found['unit']})"), title_justify="left")
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading in NUMBERS else "left", overflow="fold")
    for point in found["points"]:
        table.add_row(*map(Text, _cells(point)))
    console.print(table)
    for line in _below(found):
        console.print(Text(line), soft_wrap=True)


def _cells(point: Mapping[str, Any]) -> Iterator[str]:
    runs, value = point["runs"], point["return"]
    yield "\n".join(flags({key: setting}) for key, setting in point["config"].items()) or "as given"
    yield "none" if value is None else f"{value['iqm']:.2f}"
    yield f"{value['ci95'][0]:.2f} to {value['ci95'][1]:.2f}" if value and value["ci95"] else ""
    yield "" if value is None else f"{value['worst']:.2f} ({value['worst_seed']})"
    yield str(len(point["dead"]))
    ended = sum(run["return"] is not None for run in runs)
    counted = str(len(runs)) if ended == len(runs) else f"{ended} of {len(runs)}"
    yield f"{counted}, pruned" if point.get("state") == "pruned" else counted
    counts = (f"{name.replace('_', ' ')} {count}" for name, count in point["symptoms"].items())
    yield ", ".join(counts) or "none"


def _below(found: Mapping[str, Any]) -> Iterator[str]:
    """Baselines where they are the same for all, the flags of the best point, and what did not finish."""
    points = found["points"]
    best = points[0] if points else {"baselines": {}, "config": {}, "return": None}  # all under way elsewhere
    if not any(key.startswith("env.") for key in best["config"]):
        for name, value in best["baselines"].items():
            if value is not None:
                yield f"{name.replace('_', ' ')} return {value:.2f}"
    if len(points) > 1 and best["return"]:
        yield f"best: {flags(best['config'])}"
    for point in points:
        if "reason" in point:
            yield f"failed: {point['name']}: {point['reason']}"
        for run in (run for run in point["runs"] if run["status"] != "finished"):
            yield f"{run['status']}: {point['name']} seed {run['seed']}: {run['reason']} ({run['path']}.log)"
    if running := found.get("running"):
        yield f"begun and not ended, by other processes or by one that is gone: trial {', '.join(map(str, running))}"
    yield f"runs in {found['folder']}"
