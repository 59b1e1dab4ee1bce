"""One run as a page: its diagnosis, what its actors chose, and curves that can be zoomed and read off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from marl_stable.report import curves
from marl_stable.report.cards import cards
from marl_stable.report.html import folded, note, panels, table
from marl_stable.report.page import number
from marl_stable.report.sheet import USE, Sheet
from marl_stable.report.told import Told

AT_FIRST, MOST_PICTURES = 6, 60  # of what one run's actors chose: in view, and in all
MOST_KINDS = 100  # rows of the table of incidents
MOST_MARKS = 200
ACTIONS = "actions/"


def page(run: Told) -> str:
    """The whole file."""
    sheet = Sheet()
    return sheet.page(run.name, _body(run, sheet), _marks(run))


def _body(run: Told, sheet: Sheet) -> Iterator[str]:
    yield from _head(run)
    yield "<h2>Critic, actions, reward</h2>"
    levels = {name.replace("_", " "): value for name, value in run.baselines.items()}
    yield panels(map(sheet.panel, curves.founding(run.recording, levels)))
    yield from pictures(run, sheet)
    yield "<h2>Diagnosis</h2>"
    yield from diagnosis(run.diagnosis)
    yield "<h2>Incidents</h2>"
    yield from incidents(run.incidents)
    for title, drawn in curves.categories(run.recording).items():
        yield f"<h2>{escape(title)}</h2>"
        yield panels(map(sheet.panel, drawn))
    if further := curves.signals(run.recording):
        yield f"<h2>{curves.FURTHER}</h2>"
        told = f"{len(further)} by agent, network, layer or feature, as recorded"
        yield folded(told, [panels(map(sheet.panel, further))])
    if run.config:
        yield "<h2>Configuration</h2>"
        yield folded("config.yaml", [f"<pre><code>{escape(run.config)}</code></pre>"])


def _head(run: Told) -> Iterator[str]:
    yield f"<h1>{escape(run.name)}</h1>"
    yield f'<p><b class="{mood(run)}">{escape(run.verdict)}</b></p>'
    facts = [fact for fact in _facts(run) if fact]
    yield note(", ".join(facts))
    groups = [series.where["group"] for series in run.recording.series("eval/return") if "group" in series.where]
    rows = [("last evaluation", *run.evaluated()), ("best evaluation", *run.evaluated(best=True))]
    rows += [(f"last evaluation, {group}", *run.evaluated(group=group)) for group in groups]
    rows += [(name.replace("_", " "), number(value), "") for name, value in run.baselines.items()]
    if any(value for _, value, _ in rows):
        yield table(
            ("return, mean over agents", "", "at steps"), [(escape(row[0]), *row[1:]) for row in rows if row[1]]
        )
    yield USE


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


def pictures(run: Told, sheet: Sheet) -> Iterator[str]:
    """What its actors chose how often, over training."""
    found = {tag.removeprefix(ACTIONS): h for tag, h in run.histograms.items() if tag.startswith(ACTIONS)}
    if not found:
        return
    agents = list(dict.fromkeys(place.rpartition("/")[0] for place in found))
    alone = len(found) == len(agents)  # one dimension each
    yield "<h3>What actors chose</h3>"
    yield note("The darker, the more often; a single dark band is one action repeated, whatever is seen.")
    drawn = [
        sheet.picture(agent if alone else place, h, agents.index(agent))
        for place, h in list(found.items())[:MOST_PICTURES]
        for agent in [place.rpartition("/")[0]]
    ]
    yield panels(drawn[:AT_FIRST])
    if more := drawn[AT_FIRST:]:
        rest = f", of {len(found) - AT_FIRST}; TensorBoard has them all" if len(drawn) < len(found) else ""
        yield folded(f"{len(more)} more{rest}", [panels(more)])


def diagnosis(found: Mapping[str, Any]) -> Iterator[str]:
    """The content of diagnosis.json."""
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
    yield note(f"Checked and found well ({len(well)}): {', '.join(well) or 'nothing; too little was recorded'}.")
    if missing := found.get("not_judged"):
        told = "; ".join(f"{entry['cause'].replace('_', ' ')} needs {entry['needs']}" for entry in missing)
        yield note(f"Could not be judged ({len(missing)}): {told}.")


def incidents(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Those of incidents.jsonl, alike ones in one row."""
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
        yield note(f"The first {MOST_KINDS} kinds of {len(rows)}; incidents.jsonl has them all.")


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


def mood(run: Told) -> str:
    """The class of its verdict."""
    return "good" if run.healthy else "bad"


def _words(name: str) -> str:
    return escape(name.replace("_", " "))
