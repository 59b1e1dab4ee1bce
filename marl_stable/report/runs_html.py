"""Several runs on one page: what became of each, in which settings they differ, and their curves side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from marl_stable.report import curves
from marl_stable.report.files import to_json
from marl_stable.report.html import colour, folded, legend, panels, table
from marl_stable.report.page import number
from marl_stable.report.run_html import diagnosis, incidents, mood, pictures
from marl_stable.report.sheet import USE, Sheet
from marl_stable.report.told import Told

FIRST_SETTINGS = ("env.id", "algo.name", "seed")
MOST_SETTINGS = 12  # in view
HEAD = ("run", "verdict", "status", "steps", "last evaluation", "best", "random", "best constant")


def page(runs: Sequence[Told]) -> str:
    """The whole file."""
    sheet = Sheet()
    return sheet.page(f"{len(runs)} runs", _body(runs, sheet))


def _body(runs: Sequence[Told], sheet: Sheet) -> Iterator[str]:
    yield f"<h1>{len(runs)} runs</h1>"
    yield table(HEAD, [_row(run, place) for place, run in enumerate(runs)], named=3)
    yield from _differences(runs)
    yield USE
    names = legend((colour(place), run.name) for place, run in enumerate(runs))
    found = curves.compared({run.name: run.recording for run in runs})
    further = found.pop(curves.FURTHER, [])
    for title, drawn in found.items():
        yield f"<h2>{escape(title)}</h2>"
        yield names
        yield panels(map(sheet.panel, drawn))
    yield "<h2>Diagnosis</h2>"
    for run in runs:
        yield f'<h3>{escape(run.name)}: <span class="{mood(run)}">{escape(run.verdict)}</span></h3>'
        yield from diagnosis(run.diagnosis)
        yield from incidents(run.incidents)
        yield from pictures(run, sheet)
    if further:
        yield f"<h2>{curves.FURTHER}</h2>"
        yield folded(f"{len(further)}, means over places", [names, panels(map(sheet.panel, further))])


def _row(run: Told, place: int) -> tuple[str, ...]:
    return (
        f'<span class="swatch {colour(place)}"></span>{escape(run.name)}',
        f'<span class="{mood(run)}">{escape(run.verdict)}</span>',
        escape(str(run.metadata.get("status", ""))),
        f"{run.metadata['steps']:,}" if "steps" in run.metadata else "",
        run.evaluated()[0],
        run.evaluated(best=True)[0],
        *(number(run.baselines[name]) if name in run.baselines else "" for name in ("random", "best_constant")),
    )


def _differences(runs: Sequence[Told]) -> Iterator[str]:
    """Settings in which runs differ."""
    keys = dict.fromkeys([*FIRST_SETTINGS, *(key for run in runs for key in run.settings)])
    told = {key: [_setting(run.settings.get(key, "")) for run in runs] for key in keys}
    rows = [[escape(key), *map(escape, values)] for key, values in told.items() if len(set(values)) > 1]
    if not rows:
        return
    found = table(("", *(escape(run.name) for run in runs)), rows)
    yield "<h2>Settings in which they differ</h2>"
    yield found if len(rows) <= MOST_SETTINGS else folded(f"{len(rows)} settings", [found])


def _setting(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else to_json(value)
