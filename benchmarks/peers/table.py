"""From turns to the lines of the table."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.peers.orders import Turn

HEAD = (
    "| work | ours, steps/s | beside | steps/s | ours over it (lowest to highest of how many turns) "
    "| by processor time | seconds of the first turn, not counted | target |\n"
    "|---|---|---|---|---|---|---|---|"
)


def ratio(ours: list[Turn], other: list[Turn]) -> tuple[float, float, float]:
    """Ours over the other, turn by turn: the median, the lowest, the highest."""
    each = [a.rate / b.rate for a, b in zip(ours, other, strict=True)]
    return float(np.median(each)), min(each), max(each)


def by_processor(ours: list[Turn], other: list[Turn]) -> float:
    """The same of steps per second of processor time, which others on the machine hardly move."""
    each = [(a.steps / a.processor) / (b.steps / b.processor) for a, b in zip(ours, other, strict=True)]
    return float(np.median(each))


def steps_per_second(turns: list[Turn]) -> str:
    """The median, as a cell."""
    return f"{np.median([turn.rate for turn in turns]):,.0f}"


def lines(entry: dict[str, Any]) -> list[str]:
    """The lines of one row of results: one for each that ours stands beside."""
    arms = {
        name: turns if isinstance(turns, str) else [Turn(*x) for x in turns] for name, turns in entry["arms"].items()
    }
    ours, *others = arms.items()
    if isinstance(ours[1], str):
        return [f"| {entry['title']} | {ours[1]} | | | | | | |"]
    return [_line(entry, ours[1], name, turns, leads=i == 0) for i, (name, turns) in enumerate(others)]


def _line(entry: dict[str, Any], ours: list[Turn], name: str, turns: list[Turn] | str, leads: bool) -> str:
    own = f"| {entry['title']} | {steps_per_second(ours)}" if leads else "| the same |"
    if isinstance(turns, str):
        return f"{own} | {name} | | {turns} | | | |"
    middle, low, high = ratio(ours, turns)
    alone = f"{by_processor(ours, turns):.2f}" if entry["one_process"] else ""
    target = entry["targets"].get(name)
    met = "" if target is None else f"{target:g}: {'met' if middle >= target else 'missed'}"
    begun = entry["first_turn_seconds"]
    first = f"{begun['ours']:.0f}, {begun[name]:.0f}"
    cells = (steps_per_second(turns), f"{middle:.2f} ({low:.2f} to {high:.2f} of {len(turns)})", alone, first, met)
    return f"{own} | {name} | {' | '.join(cells)} |"


def page(entries: list[dict[str, Any]], machine: str) -> list[str]:
    """The whole page; the last line ends with a newline."""
    pins = sorted({pin for entry in entries for names in entry["peers"].values() for pin in names})
    commits = sorted({entry["commit"][:10] for entry in entries})
    return [
        f"`python -m benchmarks.peers` at {', '.join(commits)}, {machine}, one thread of torch; medians over turns. "
        f"Beside: {', '.join(pins)}.",
        "",
        HEAD,
        *(line for entry in entries for line in lines(entry)),
        "",
    ]
