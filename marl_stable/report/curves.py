"""What a recording becomes in a report: panels of curves, short enough for a page and honest about what was left out.

Shapes: n readings of a signal at one place, p places.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from marl_stable.monitor.recording import Recording, Series, Where
from marl_stable.monitor.table import NETWORKS, SIGNALS, signal_of
from marl_stable.report.layout import LAYOUT

MOST_LINES = 8  # in one panel; of more places their mean is drawn, and between which values they lie
MOST_POINTS = 400  # of one line; of more readings means, and between which values they lie
WIDE = 300.0  # largest over median value from which on a panel is logarithmic

FURTHER = "Every signal"

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """One curve: `values (n,)` over `steps (n,)`, not finite where they were not; `low` and `high (n,)` bound what it
    stands for."""

    label: str
    steps: NDArray[np.int64]
    values: Values
    low: Values | None = None
    high: Values | None = None
    colour: int = 0


@dataclass(frozen=True)
class Panel:
    """Curves over the same steps. `levels` are horizontal lines by their names."""

    title: str
    note: str
    lines: Sequence[Line]
    levels: Mapping[str, float] = field(default_factory=dict)

    @property
    def logarithmic(self) -> bool:
        """Whether y is to have a logarithmic scale: where all is above 0, and some far above the rest."""
        values = np.concatenate([line.values for line in self.lines])
        values = values[np.isfinite(values)]
        return len(values) > 0 and bool(values.min() > 0 and values.max() > WIDE * np.median(values))

    @property
    def lost(self) -> int:
        """How many readings were not finite, and cannot be drawn."""
        return sum(int((~np.isfinite(line.values)).sum()) for line in self.lines)


def founding(recording: Recording, baselines: Mapping[str, float]) -> list[Panel]:
    """Critic loss, actor output and reward of one run, which come first."""
    charts = next(iter(LAYOUT.values()))
    panels = list(_charts(recording, charts))
    return [replace(panel, levels=baselines) if "eval/return" in charts[panel.title] else panel for panel in panels]


def categories(recording: Recording) -> dict[str, list[Panel]]:
    """The other categories of one run, without those of which nothing was logged."""
    _, *others = LAYOUT.items()
    found = {title: list(_charts(recording, charts)) for title, charts in others}
    return {title: panels for title, panels in found.items() if panels}


def signals(recording: Recording) -> list[Panel]:
    """A panel for each signal of one run of which no other shows every place."""
    lines = ((tag, _lines(recording, (tag,), apart=True)) for tag in _further(recording))
    return [Panel(tag, _meaning(tag), found) for tag, found in lines if found]


def compared(recordings: Mapping[str, Recording]) -> dict[str, list[Panel]]:
    """Panels with a line for each run, the mean over all places; by category, and last by signal."""
    found: dict[str, list[Panel]] = {}
    shown: set[str] = set()
    for category, charts in LAYOUT.items():
        panels = []
        for title, tags in charts.items():
            parts = list(dict.fromkeys(part for r in recordings.values() for tag in tags for part in _tags(r, tag)))
            alone = len(tags) == len(parts) == 1
            panels += [_beside(recordings, title if alone else f"{title}: {_name(tag)}", tag) for tag in parts]
            shown.update(parts)
        found[category] = panels
    further = dict.fromkeys(tag for recording in recordings.values() for tag in _all_tags(recording))
    found[FURTHER] = [_beside(recordings, tag, tag) for tag in further if tag not in shown]
    drawn = {title: [panel for panel in panels if panel.lines] for title, panels in found.items()}
    return {title: panels for title, panels in drawn.items() if panels}


def _beside(recordings: Mapping[str, Recording], title: str, tag: str) -> Panel:
    lines = []
    for number, (name, recording) in enumerate(recordings.items()):
        if series := _series(recording, tag):
            mean = replace(_together(name, series), low=None, high=None)  # the ranges of several runs hide each other
            lines.append(_thinned(mean, number))
    return Panel(title, _meaning(tag), lines)


def _charts(recording: Recording, charts: Mapping[str, tuple[str, ...]]) -> Iterator[Panel]:
    for title, tags in charts.items():
        parts = [part for tag in tags for part in _tags(recording, tag)]
        if lines := _lines(recording, parts, apart=len(tags) == len(parts) == 1):
            yield Panel(title, "", lines)


def _lines(recording: Recording, tags: Sequence[str], apart: bool) -> list[Line]:
    """A line for each place of each tag; a line for each tag where that would be too many.

    `apart`: there is one tag, which need not be named.
    """
    found = {tag: series for tag in tags if (series := _series(recording, tag))}
    many = _too_many(recording, tags)
    lines = []
    for tag, series in found.items():
        named = "" if apart else _name(tag)
        if many and len(series) > 1:
            lines.append(_together(f"{named} mean of {len(series)}, and their range".strip(), series))
            continue
        places = _labels([x.where for x in series])
        labels = [" ".join(filter(None, (named, place))) or _name(tag) for place in places]
        lines += [Line(label, x.steps, x.values) for label, x in zip(labels, series, strict=True)]
    return [_thinned(line, number) for number, line in enumerate(lines)]


def _together(label: str, series: Sequence[Series]) -> Line:
    """The mean over places, and between which values they lie."""
    if len(series) == 1:
        return Line(label, series[0].steps, series[0].values)
    steps = np.unique(np.concatenate([x.steps for x in series]))
    table = np.full((len(series), len(steps)), np.nan)
    for row, x in zip(table, series, strict=True):
        row[np.searchsorted(steps, x.steps)] = x.values
    return Line(label, steps, *_reduced(table))


def _thinned(line: Line, colour: int) -> Line:
    if len(line.steps) <= MOST_POINTS:
        return replace(line, colour=colour)
    length = -(-len(line.steps) // MOST_POINTS)
    values = _rows(line.values, length)
    mean, low, high = _reduced(values)
    if line.low is not None and line.high is not None:
        low, high = np.nanmin(_rows(line.low, length), axis=0), np.nanmax(_rows(line.high, length), axis=0)
    last = np.minimum(np.arange(1, values.shape[1] + 1) * length, len(line.steps)) - 1
    return Line(line.label, line.steps[last], mean, low, high, colour)


def _rows(values: Values, length: int) -> Values:
    """`(n,)` as `(length, ...)`, NaN where the last column has no more."""
    missing = -len(values) % length
    return np.append(values, np.full(missing, np.nan)).reshape(-1, length).T


def _reduced(table: Values) -> tuple[Values, Values, Values]:
    """Mean, least and largest of each column `(p, n)` of what was read; a column has a number at least."""
    with np.errstate(all="ignore"):  # inf - inf
        mean = np.nansum(table, axis=0) / (~np.isnan(table)).sum(0)
    return mean, np.nanmin(table, axis=0), np.nanmax(table, axis=0)


def _series(recording: Recording, tag: str) -> list[Series]:
    signal, network = signal_of(tag)
    return recording.series(signal, network=network) if network else recording.series(signal)


def _tags(recording: Recording, tag: str) -> list[str]:
    """The tag, or what is logged under it, as `rewards/terms` stands for `rewards/terms/collision`."""
    return [tag] if _series(recording, tag) else [x for x in recording.signals() if x.startswith(f"{tag}/")]


def _further(recording: Recording) -> list[str]:
    """Tags that no chart of the layout shows place by place."""
    charts = [tags for charts in LAYOUT.values() for tags in charts.values()]
    parts = [[part for tag in tags for part in _tags(recording, tag)] for tags in charts]
    many = {tag: _too_many(recording, tags) for tags in parts for tag in tags}
    shown = {tag for tag in many if not many[tag] or len(_series(recording, tag)) == 1}
    return [tag for tag in _all_tags(recording) if tag not in shown]


def _all_tags(recording: Recording) -> list[str]:
    """Every signal, by network where it is of networks."""
    found: list[str] = []
    for signal in recording.signals():
        networks = {x.where.get("network") for x in recording.series(signal)}
        found += [f"{signal}/{network}" for network in NETWORKS if network in networks] or [signal]
    return found


def _too_many(recording: Recording, tags: Sequence[str]) -> bool:
    return sum(len(_series(recording, tag)) for tag in tags) > MOST_LINES


def _labels(places: Sequence[Where]) -> list[str]:
    """What tells places apart: parts in which all are alike are left out."""
    parts = list(dict.fromkeys(part for place in places for part in place))
    telling = [part for part in parts if len({place.get(part) for place in places}) > 1]
    if "agent" in telling and "group" in telling:
        telling.remove("group")  # an agent is of one group
    return [" ".join(_named(part, place[part]) for part in telling if part in place) for place in places]


def _named(part: str, name: str | int) -> str:
    return str(name) if part in ("group", "agent", "network", "layer", "term") else f"{part} {name}"


def _name(tag: str) -> str:
    """What tells a tag from others in its chart: `grad_norm/actor` is of the actor."""
    told = {"charts": "in training", "eval": "in evaluation"}
    signal, network = signal_of(tag)
    first, _, last = signal.rpartition("/")
    return network or told.get(first) or last.replace("_", " ")


def _meaning(tag: str) -> str:
    signal, _ = signal_of(tag)
    name = signal.rpartition("/")[2]
    return SIGNALS[name].says if name in SIGNALS else ""
