"""What is known of runs, as a page of one file: their diagnosis, and curves that can be zoomed and read off."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from marl_stable.monitor.recording import Recording
from marl_stable.report import curves
from marl_stable.report.cards import cards
from marl_stable.report.files import to_json
from marl_stable.report.histograms import Histograms
from marl_stable.report.html import colour, data, document, legend, table
from marl_stable.report.page import VERDICTS, number, since
from marl_stable.report.sheet import SCRIPTS, STYLES, Sheet

AT_FIRST, MOST_PICTURES = 6, 60  # of what one run's actors chose: in view, and in all
MOST_KINDS = 100  # rows of the table of incidents
MOST_MARKS = 200
FIRST_SETTINGS = ("env.id", "algo.name", "seed")
MOST_SETTINGS = 12  # in view
ACTIONS = "actions/"


@dataclass(frozen=True)
class Told:
    """All that a page tells of one run; whatever is not known is empty."""

    name: str
    recording: Recording
    diagnosis: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)  # dotted key -> value
    config: str = ""  # config.yaml as it stands
    metadata: Mapping[str, Any] = field(default_factory=dict)
    incidents: Sequence[Mapping[str, Any]] = ()
    histograms: Mapping[str, Histograms] = field(default_factory=dict)


def page(runs: Sequence[Told]) -> str:
    """The whole file; of several runs, what tells them apart."""
    sheet = Sheet()
    body = list(_one(runs[0], sheet) if len(runs) == 1 else _several(runs, sheet))
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
    marks = _marks(runs[0]) if len(runs) == 1 else []
    return document(title, [*body, data("panels", sheet.content() | {"marks": marks})], STYLES, SCRIPTS)


# ---- one run


def _one(run: Told, sheet: Sheet) -> Iterator[str]:
    yield from _head(run)
    yield "<h2>Critic, actions, reward</h2>"
    levels = {name.replace("_", " "): value for name, value in _baselines(run)}
    yield from _panels(map(sheet.panel, curves.founding(run.recording, levels)))
    yield from _pictures(run, sheet)
    yield "<h2>Diagnosis</h2>"
    yield from _diagnosis(run.diagnosis)
    yield "<h2>Incidents</h2>"
    yield from _incidents(run.incidents)
    for title, panels in curves.categories(run.recording).items():
        yield f"<h2>{escape(title)}</h2>"
        yield from _panels(map(sheet.panel, panels))
    if panels := curves.signals(run.recording):
        yield f"<h2>{curves.FURTHER}</h2>"
        yield from _folded(
            f"{len(panels)} by agent, network, layer or feature, as recorded", _panels(map(sheet.panel, panels))
        )
    if run.config:
        yield "<h2>Configuration</h2>"
        yield from _folded("config.yaml", [f"<pre><code>{escape(run.config)}</code></pre>"])


def _head(run: Told) -> Iterator[str]:
    yield f"<h1>{escape(run.name)}</h1>"
    yield f'<p><b class="{_kind(run)}">{escape(_verdict(run))}</b></p>'
    facts = [fact for fact in _facts(run) if fact]
    yield _note(", ".join(facts))
    groups = [series.where["group"] for series in run.recording.series("eval/return") if "group" in series.where]
    rows = [("last evaluation", *_evaluated(run)), ("best evaluation", *_evaluated(run, best=True))]
    rows += [(f"last evaluation, {group}", *_evaluated(run, group=group)) for group in groups]
    rows += [(name.replace("_", " "), number(value), "") for name, value in _baselines(run)]
    if any(value for _, value, _ in rows):
        yield table(
            ("return, mean over agents", "", "at steps"), [(escape(row[0]), *row[1:]) for row in rows if row[1]]
        )
    yield _note("Drag over a plot to zoom, double-click to go back; a click on a name hides its line.")
    yield "<noscript><p class='bad'>The plots need JavaScript, of this file alone.</p></noscript>"


def _facts(run: Told) -> Iterator[str]:
    settings, metadata = run.settings, run.metadata
    if "algo.name" in settings and "env.id" in settings:
        yield f"{settings['algo.name']} on {settings['env.id']}"
    if "steps" in metadata:
        yield f"{metadata['steps']:,} of {metadata.get('total_steps', metadata['steps']):,} steps"
    yield str(metadata.get("status", ""))
    yield f"seed {settings['seed']}" if "seed" in settings else ""
    yield (
        f"{metadata['seconds']:,.0f} s on {metadata.get('device', 'an unknown device')}"
        if "seconds" in metadata
        else ""
    )
    yield str(metadata.get("reason") or "")
    versions = metadata.get("versions")
    if isinstance(versions, Mapping):
        yield " ".join(f"{name} {version}" for name, version in versions.items() if name in ("marl-stable", "torch"))
    yield f"commit {str(metadata['git_commit'])[:10]}" if metadata.get("git_commit") else ""


def _pictures(run: Told, sheet: Sheet) -> Iterator[str]:
    found = {tag.removeprefix(ACTIONS): h for tag, h in run.histograms.items() if tag.startswith(ACTIONS)}
    if not found:
        return
    agents = list(dict.fromkeys(place.rpartition("/")[0] for place in found))
    alone = len(found) == len(agents)  # one dimension each
    yield "<h3>What actors chose</h3>"
    yield _note("The darker, the more often; a single dark band is one action repeated, whatever is seen.")
    pictures = [
        sheet.picture(agent if alone else place, h, agents.index(agent))
        for place, h in list(found.items())[:MOST_PICTURES]
        for agent in [place.rpartition("/")[0]]
    ]
    yield from _panels(pictures[:AT_FIRST])
    if more := pictures[AT_FIRST:]:
        rest = f", of {len(found) - AT_FIRST}; TensorBoard has them all" if len(pictures) < len(found) else ""
        yield from _folded(f"{len(more)} more{rest}", _panels(more))


def _diagnosis(found: Mapping[str, Any]) -> Iterator[str]:
    if found["symptoms"]:
        yield f"<p>Symptoms: {escape(', '.join(name.replace('_', ' ') for name in found['symptoms']))}.</p>"
    yield from cards(found["findings"])
    if found["actions_taken"]:
        acts = [
            f"{act['count']} times {act['action'].replace('_', ' ')}, first at {act['steps']:,} steps"
            for act in found["actions_taken"]
        ]
        yield f"<p>The guard acted: {escape('; '.join(acts))}.</p>"
    named = {finding["cause"] for finding in found["findings"]}
    well = [cause.replace("_", " ") for cause in found["checked"] if cause not in named]
    yield _note(f"Checked and found well ({len(well)}): {', '.join(well) or 'nothing; too little was recorded'}.")
    if missing := found.get("not_judged"):
        told = "; ".join(f"{entry['cause'].replace('_', ' ')} needs {entry['needs']}" for entry in missing)
        yield _note(f"Could not be judged ({len(missing)}): {told}.")


def _incidents(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not entries:
        yield "<p>No incidents.</p>"
        return
    alike: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for entry in entries:
        where = ", ".join(f"{part} {place}" for part, place in entry["where"].items())
        alike.setdefault((entry["kind"], where, entry.get("action", "")), []).append(entry)
    rows = [
        (_words(kind), escape(where), _words(action), *_told(same)) for (kind, where, action), same in alike.items()
    ]
    yield f"<p>{len(entries):,} incidents:</p>"
    yield table(
        ("what", "where", "done", "times", "first at", "last at", "largest value", "limit"), rows[:MOST_KINDS], 3
    )
    if len(rows) > MOST_KINDS:
        yield _note(f"The first {MOST_KINDS} kinds of {len(rows)}; incidents.jsonl has them all.")


def _told(same: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    values = [entry["value"] for entry in same]
    yield f"{len(same):,}"
    yield from (f"{entry['steps']:,}" for entry in (same[0], same[-1]))
    yield number(None if None in values else max(values))
    yield number(same[-1]["limit"]) if same[-1].get("limit") is not None else ""


def _marks(run: Told) -> list[dict[str, Any]]:
    """Upright lines of all panels: since when each cause shows, and when incidents happened."""
    causes = [(f["onset_steps"], f["cause"].replace("_", " ")) for f in run.diagnosis["findings"]]
    happened = sorted({int(entry["steps"]) for entry in run.incidents})
    every = -(-len(happened) // MOST_MARKS) or 1
    marks = [{"at": steps, "cause": cause} for steps, cause in causes if steps > 0]
    return marks + [{"at": steps} for steps in happened[::every]]


# ---- several runs


def _several(runs: Sequence[Told], sheet: Sheet) -> Iterator[str]:
    yield f"<h1>{len(runs)} runs</h1>"
    head = ("run", "verdict", "status", "steps", "last evaluation", "best", "random", "best constant")
    yield table(head, [_row(run, number) for number, run in enumerate(runs)], named=3)
    yield from _differences(runs)
    yield _note("Drag over a plot to zoom, double-click to go back; a click on a name hides its line.")
    yield "<noscript><p class='bad'>The plots need JavaScript, of this file alone.</p></noscript>"
    names = legend((colour(number), run.name) for number, run in enumerate(runs))
    found = curves.compared({run.name: run.recording for run in runs})
    further = found.pop(curves.FURTHER, [])
    for title, panels in found.items():
        yield f"<h2>{escape(title)}</h2>"
        yield names
        yield from _panels(map(sheet.panel, panels))
    yield "<h2>Diagnosis</h2>"
    for run in runs:
        yield f'<h3>{escape(run.name)}: <span class="{_kind(run)}">{escape(_verdict(run))}</span></h3>'
        yield from _diagnosis(run.diagnosis)
        yield from _incidents(run.incidents)
        yield from _pictures(run, sheet)
    if further:
        yield f"<h2>{curves.FURTHER}</h2>"
        yield from _folded(f"{len(further)}, means over places", [names, *_panels(map(sheet.panel, further))])


def _row(run: Told, place: int) -> tuple[str, ...]:
    baselines = dict(_baselines(run))
    return (
        f'<span class="swatch {colour(place)}"></span>{escape(run.name)}',
        f'<span class="{_kind(run)}">{escape(_verdict(run))}</span>',
        escape(str(run.metadata.get("status", ""))),
        f"{run.metadata['steps']:,}" if "steps" in run.metadata else "",
        _evaluated(run)[0],
        _evaluated(run, best=True)[0],
        *(number(baselines[name]) if name in baselines else "" for name in ("random", "best_constant")),
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
    yield from [found] if len(rows) <= MOST_SETTINGS else _folded(f"{len(rows)} settings", [found])


def _setting(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else to_json(value)


# ---- what both are made of


def _verdict(run: Told) -> str:
    found = run.diagnosis
    verdict = str(VERDICTS.get(found["verdict"], found["verdict"])).partition(":")[0]
    if not found["findings"]:
        return verdict
    root = found["findings"][0]
    return f"{verdict}: {root['cause'].replace('_', ' ')}, {since(root['onset_steps'])}"


def _kind(run: Told) -> str:
    return "good" if run.diagnosis["verdict"] == "healthy" else "bad"


def _evaluated(run: Told, best: bool = False, group: str | None = None) -> tuple[str, str]:
    """Return and steps of the last or the best evaluation; nothing where there is none."""
    for series in run.recording.series("eval/return"):
        if series.where.get("group") == group:
            points = [(s, v) for s, v in zip(series.steps, series.values, strict=True) if np.isfinite(v)]
            if points:
                steps, value = max(points, key=lambda point: float(point[1])) if best else points[-1]
                return number(float(value)), f"{steps:,}"
    return "", ""


def _baselines(run: Told) -> Iterator[tuple[str, float]]:
    for name, entry in (run.diagnosis["baselines"] or {}).items():
        if entry is not None and entry["return"] is not None:
            yield name, float(entry["return"])


def _panels(figures: Iterable[str]) -> Iterator[str]:
    yield '<div class="panels">'
    yield from figures
    yield "</div>"


def _folded(title: str, parts: Iterable[str]) -> Iterator[str]:
    yield f"<details><summary>{escape(title)}</summary>"
    yield from parts
    yield "</details>"


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def _words(name: str) -> str:
    return escape(name.replace("_", " "))
