"""What the environment doctor found, as a page of plain text: what, where, the value, why, what to do about it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

WIDTH = 100
INDENT = "         "


def page(found: Mapping[str, Any], played: str) -> str:
    """`found` is what `check --json` prints; `played` says by how much play."""
    return "\n".join(_lines(found, played))


def _lines(found: Mapping[str, Any], played: str) -> Iterator[str]:
    yield f"{found['env']}: {_verdict(found)} ({played})"
    for finding in found["findings"]:
        yield ""
        yield f"{finding['severity']:8} {finding['id']}{_place(finding['where'])}: {_value(finding['value'])}"
        for text in (finding["explanation"], finding["remedy"]):
            yield from textwrap.wrap(
                text, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT, break_on_hyphens=False
            )


def _verdict(found: Mapping[str, Any]) -> str:
    severities = [finding["severity"] for finding in found["findings"]]
    counts = [_counted(severities.count(severity), severity) for severity in ("error", "warning")]
    told = " and ".join(count for count in counts if count) or "nothing is wrong"
    return f"{'passed' if found['passed'] else 'failed'}, {told}"


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}" if number else ""


def _place(where: Mapping[str, Any]) -> str:
    return f" in {', '.join(f'{name} {value}' for name, value in where.items())}" if where else ""


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
