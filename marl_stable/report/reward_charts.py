"""The plots of the page that `reward --html` writes, each drawn of a part of what `reward --json` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from marl_stable.report.html import colour
from marl_stable.report.svg import Frame, Scale, drawing, fitted, short, span, stacked, text, ticks, width_of

WIDTH, HEIGHT = 340.0, 200.0  # of a small plot
LEFT, RIGHT, TOP, BOTTOM = 46.0, 14.0, 10.0, 38.0
WIDE, NAMES, ROW, NUMBERS = 1030.0, 160.0, 26.0, 210.0  # of plots that have a row for each name
PLAYERS = {"random": 7, "best_constant": 4, "policy": 3, "expert": 5}  # their colours
TALL = 240.0
SURE = 1.96  # standard errors to either side: 95%
INSIDE = 36.0  # pixels from which on a number fits into a bar

Entry = Mapping[str, Any]


def returns(ways: Mapping[str, Entry]) -> str:
    """What each way to behave is paid, with its interval."""
    values = [value for way in ways.values() for value in (way["return"], *way["ci95"]) if value is not None]
    frame = _rows_frame(len(ways), *span(values), right=NUMBERS)
    parts = frame.columns(6)
    for i, (name, way) in enumerate(ways.items()):
        y, kind = frame.y(i), colour(PLAYERS.get(name, 7))
        parts.append(text(NAMES - 12, y + 4, fitted(_words(name), NAMES - 16), "end"))
        if way["return"] is None:
            parts.append(text(WIDE - NUMBERS + 16, y + 4, "not finite"))
            continue
        low, high = way["ci95"]
        parts.append(frame.across(i, low, high, kind))
        parts.append(frame.dot(way["return"], i, kind))
        parts.append(text(WIDE - NUMBERS + 64, y + 4, short(way["return"]), "end"))
        parts.append(text(WIDE - NUMBERS + 74, y + 4, f"{short(low)} to {short(high)}", kind="faint"))
    parts.append(frame.title_x("return of an episode, mean over agents; 95% interval"))
    return drawing(WIDE, frame.y.start + 40, "returns by way to behave", parts)


def shares(entries: Sequence[Entry], key: str, terms: Sequence[str]) -> str:
    """Each agent's shares of the advantage, term by term, those below 0 to the left."""
    agents = list(dict.fromkeys(entry["agent"] for entry in entries))
    rows = [[_share(entries, agent, term, key) for term in terms] for agent in agents]
    ends = [end for row in rows for pair in stacked(row) for end in pair]
    frame = _rows_frame(len(agents), *span([*ends, 1.0], zero=True), right=RIGHT + 12)
    parts = frame.columns(6, percent=True)
    for i, (agent, row) in enumerate(zip(agents, rows, strict=True)):
        parts.append(text(NAMES - 12, frame.y(i) + 4, fitted(agent, NAMES - 16), "end"))
        for k, (begin, end) in enumerate(stacked(row)):
            told = f"{agent}, {terms[k]}: {row[k]:.1%}"
            parts.append(frame.box((begin, end), (i - 0.33, i + 0.33), f"full {colour(k)}", told))
            if abs(frame.x(end) - frame.x(begin)) >= INSIDE:
                middle = (frame.x(begin) + frame.x(end)) / 2
                parts.append(text(middle, frame.y(i) + 4, f"{row[k]:.0%}", "middle", "inside"))
    return drawing(WIDE, frame.y.start + 24, "shares of the advantage by agent and term", parts)


def course(players: Sequence[Entry]) -> str:
    """One term over an episode: mean and band of each player."""
    values = [value for player in players for part in ("low", "high", "mean") for value in player[part]]
    longest = max(2, *(len(player["mean"]) for player in players))
    frame = _frame((1, longest), span(values, zero=_near_zero(values)))
    parts = [*frame.rows(), *frame.below(), frame.title_x("step of the episode")]
    curves = [(player, range(1, len(player["mean"]) + 1)) for player in players]
    for player, steps in curves:
        parts.append(frame.band(steps, player["low"], player["high"], f"soft {player_colour(player['player'])}"))
    for player, steps in curves:
        parts.append(frame.line(steps, player["mean"], player_colour(player["player"])))
    return drawing(WIDTH, HEIGHT, "a term over an episode", parts)


def response(entry: Entry, bounds: tuple[float, float], kind: str) -> str:
    """What each choice, or each value of a range, changes in one term; `bounds` of y are shared between plots."""
    ranged, names = entry["range"], [short(value) for value in entry["at"]]
    at = entry["at"] if ranged else list(range(len(names)))  # choices stand side by side, whatever their numbers are
    side = (at[-1] - at[0]) / max(1, len(at) - 1) / 2 or 0.5
    frame = _frame((at[0] - side, at[-1] + side), bounds)
    parts = [*frame.rows(), frame.title_x("value" if ranged else "action")]
    parts += [text(frame.x(x), frame.y.start + 16, name, "middle") for x, name in zip(at, names, strict=True)]
    if ranged:
        parts += [frame.band(at, entry["low"], entry["high"], f"soft {kind}"), frame.line(at, entry["mean"], kind)]
    columns = zip(at, names, entry["mean"], entry["error"], entry["low"], entry["high"], strict=True)
    for x, name, mean, error, low, high in columns:
        if not ranged:
            parts.append(frame.box((x - side / 2, x + side / 2), (low, high), f"soft {kind}"))
        parts.append(frame.upright(x, mean - SURE * error, mean + SURE * error, kind))
        parts.append(frame.dot(x, mean, kind, f"{name}: {mean:+.3g} \N{PLUS-MINUS SIGN} {SURE * error:.2g}"))
    return drawing(WIDTH, HEIGHT, "what an action changes in a term", parts)


def response_bounds(entries: Iterable[Entry]) -> tuple[float, float]:
    """A range of y that holds all of them, intervals included."""
    values: list[float] = []
    for entry in entries:
        values += [*entry["low"], *entry["high"]]
        values += [mean + s * SURE * e for mean, e in zip(entry["mean"], entry["error"], strict=True) for s in (-1, 1)]
    return span(values, zero=True)


def trained(entry: Entry, kind: str) -> str:
    """One term's mean over training."""
    values = [value for value in entry["curve"]["mean"] if value is not None]
    frame = _frame((0, max(entry["steps"])), span(values, zero=_near_zero(values)))
    parts = [*frame.rows(), *frame.below(4), frame.title_x("steps of training")]
    parts.append(frame.line(entry["steps"], entry["curve"]["mean"], kind))
    return drawing(WIDTH, HEIGHT, "a term over training", parts)


def trained_shares(entries: Sequence[Entry], kinds: Sequence[str]) -> str:
    """The shares of a group's terms over training, a stacked column for each reading; those below 0 downwards."""
    steps = entries[0]["steps"]
    rows = list(zip(*(entry["curve"]["share"] for entry in entries), strict=True))
    known = [stacked(row) for row in rows if None not in row]
    ends = [end for row in known for pair in row for end in pair]
    frame = _frame((0, max(steps)), span([*ends, 1.0], zero=True), WIDE, TALL)
    edges = [0, *((one + other) / 2 for one, other in pairwise(steps)), steps[-1]]
    parts = [*frame.rows(percent=True), *frame.below(8), frame.title_x("steps of training")]
    for column, row in zip(pairwise(edges), rows, strict=True):
        if None not in row:
            parts += [frame.box(column, part, f"full {kind}") for part, kind in zip(stacked(row), kinds, strict=True)]
    return drawing(WIDE, TALL, "shares of the advantage over training", parts)


def player_colour(name: str) -> str:
    """The class of a way to behave."""
    return colour(PLAYERS.get(name, 7))


def _frame(x: tuple[float, float], y: tuple[float, float], width: float = WIDTH, height: float = HEIGHT) -> Frame:
    left = max(LEFT, 12 + max(width_of(short(value)) for value in ticks(*y)))
    return Frame(Scale(*x, left, width - RIGHT), Scale(*y, height - BOTTOM, TOP))


def _rows_frame(count: int, low: float, high: float, right: float) -> Frame:
    """Row 0 at the top."""
    return Frame(Scale(low, high, NAMES, WIDE - right), Scale(count - 0.5, -0.5, TOP + ROW * count, TOP))


def _share(entries: Sequence[Entry], agent: str, term: str, key: str) -> float:
    found = (entry[key] for entry in entries if (entry["agent"], entry["name"]) == (agent, term))
    return next(found, 0.0) or 0.0


def _near_zero(values: Sequence[float]) -> bool:
    """Whether 0 belongs into the plot: where it is not far from what is drawn."""
    low, high = span(values)
    return low > 0 > low - (high - low) or high < 0 < high + (high - low)


def _words(name: str) -> str:
    return name.replace("_", " ")
