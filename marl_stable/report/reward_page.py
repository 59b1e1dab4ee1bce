"""What `reward` found, as a page of plain text: terms, ways to behave, and what is wrong with what is paid."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from marl_stable.report.page import flags, number

WIDTH = 100
SHARING = {
    "shared": "all agents are paid the same",
    "zero-sum": "what one is paid, others lose",
    "own": "each agent is paid its own",
}
LEARNED = "; in training each learns from the mean over its team (env.reward mean)"
TERM_HEAD = ("term", "agent", "mean", "deviation", "zero", "share", "by actions", "felt after")
TRAINING_HEAD = ("in training", "group", "mean at first", "of late", "share at first", "of late")
MOST_ROWS = 24
NOISE = 0.2  # correlation of critic and environment below which it points nowhere


def page(found: Mapping[str, Any], name: str) -> str:
    """`found` is what `reward --json` prints; `name` is how the user calls the environment or the run."""
    return "\n".join(_lines(found, name))


def _lines(found: Mapping[str, Any], name: str) -> Iterator[str]:
    count = len(found["findings"])
    told = "nothing was found against this reward" if not count else f"{count} finding{'s' * (count > 1)}"
    yield f"{name}: {told}"
    yield from _wrapped("", how_played(found))
    if left_out := found["played"]["left_out"]:
        told = "time was short on this machine, so that the following was left out, and another call may tell more: "
        yield from _wrapped("", told + ", ".join(left_out))
    yield ""
    yield from _table([TERM_HEAD, *map(term_cells, found["terms"][:MOST_ROWS])])
    if len(found["terms"]) > MOST_ROWS:
        yield f"... and {len(found['terms']) - MOST_ROWS} more; --json has them all"
    if found["training"]:
        yield ""
        yield from _table([TRAINING_HEAD, *map(_trained, found["training"][:MOST_ROWS])])
    yield ""
    rows = [("way to behave", "return", "95%"), *_ways(found)]
    yield from _table(rows)
    if found["metric"]:
        yield ""
        yield from _metric(found["metric"])
    if found["critic"]:
        yield ""
        yield from _wrapped("", critic_told(found["critic"]))
    for rank, finding in enumerate(found["findings"]):
        yield ""
        yield from _finding(finding, rank)
    named = {finding["cause"] for finding in found["findings"]}
    well = [cause.replace("_", " ") for cause in found["checked"] if cause not in named]
    yield ""
    yield from _wrapped(f"checked and found well ({len(well)}): ", ", ".join(well))


def how_played(found: Mapping[str, Any]) -> str:
    """How much was played, and who is paid what."""
    played = found["played"]
    return (
        f"{played['steps']:,} steps in {played['seconds']:.0f} s, {played['copies']} copies, episodes of up to "
        f"{played['longest']} steps; {SHARING[found['rewards']]}{LEARNED * (found['learns_from'] == 'mean')}"
    )


def term_cells(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """A term's row below `TERM_HEAD`."""
    lag = entry["lag"]
    return (
        entry["name"],
        entry["agent"],
        number(entry["mean"]),
        number(entry["std"]),
        percent(entry["zero"]),
        percent(entry["share"]),
        percent(entry["explained_by_actions"]),
        "never" if lag is None else f"{lag} step{'s' * (lag != 1)}",
    )


def _trained(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """First and last third of what was recorded while the run was trained."""
    mean, share = entry["mean"], entry["share"]
    told = number(mean["first"]), number(mean["last"]), percent(share["first"]), percent(share["last"])
    return (entry["term"], entry["group"], *told)


def _ways(found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, entry in (found["baselines"] | found["others"]).items():
        if entry is not None:
            low, high = entry["ci95"]
            yield name.replace("_", " "), number(entry["return"]), f"{number(low)} to {number(high)}"


def _metric(metric: Mapping[str, Any]) -> Iterator[str]:
    rows = [(who, entry) for who, entry in metric.items() if who != "name"]
    yield from _table(
        [
            ("way to behave", metric["name"], "return"),
            *((who, number(entry["metric"]), number(entry["return"])) for who, entry in rows),
        ]
    )


def critic_told(critic: Mapping[str, Any]) -> str:
    """Whether the run's critic knows which way is up."""
    told = "points nowhere" if critic["correlation"] < NOISE else "knows which way is up"
    return (
        f"the policy's critic {told}: what it says another action gains and what that gained in {critic['cases']} real "
        f"plays correlate by {critic['correlation']:.2f} (same sign in {critic['signs']:.0%})"
    )


def _finding(finding: Mapping[str, Any], rank: int) -> Iterator[str]:
    where = ", ".join(f"{part} {name}" for part, name in finding["where"].items())
    cause = finding["cause"].replace("_", " ") if finding["cause"] != "unknown" else "not the reward"
    place = f" in {where}" if where else ""
    yield from _wrapped(f"{rank + 1}. ", f"{cause}{place} (confidence {finding['confidence']:.0%})")
    yield from _wrapped("   why       ", finding["explanation"])
    numbers = (f"{key.replace('_', ' ')} {number(value)}" for key, value in finding["evidence"].items())
    yield from _wrapped("   evidence  ", ", ".join(numbers))
    yield from _wrapped("   try       ", finding["remedy"])
    if finding["config"]:
        yield f"   flags     {flags(finding['config'])}"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns as wide as they must be; names to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    named = 2 if rows[0][1] in ("agent", "group") else 1
    for row in rows:
        cells = (c.ljust(w) if i < named else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        yield "  ".join(cells).rstrip()


def _wrapped(head: str, text: str) -> Iterator[str]:
    indent = " " * len(head) if head.startswith("  ") else "  "
    yield from textwrap.wrap(text, WIDTH, initial_indent=head, subsequent_indent=indent, break_on_hyphens=False)


def percent(value: float | None) -> str:
    """A share in words; small ones with a digit more."""
    return "unknown" if value is None else f"{round(value, 3) + 0.0:.1%}" if abs(value) < 0.1 else f"{value:.0%}"
