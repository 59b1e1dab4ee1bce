"""Findings as parts of a page: one card each, with what, where, since when, why, and what to try."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from marl_stable.report.page import flags, number, since


def cards(findings: Sequence[Mapping[str, Any]], unknown: str = "unknown", timed: bool = True) -> Iterator[str]:
    """The first is the root cause. `unknown`: what to call that; `timed`: whether onsets mean anything."""
    for rank, finding in enumerate(findings):
        cause = unknown if finding["cause"] == "unknown" else finding["cause"].replace("_", " ")
        where = ", ".join(f"{part} {place}" for part, place in finding["where"].items())
        numbers = ", ".join(f"{key.replace('_', ' ')} {number(value)}" for key, value in finding["evidence"].items())
        rows = {
            "where": where,
            "since": since(finding["onset_steps"]) if timed else "",
            "why": finding["explanation"],
            "evidence": numbers,
            "try": finding["remedy"],
        }
        told = "".join(f"<dt>{head}</dt><dd>{escape(words)}</dd>" for head, words in rows.items() if words)
        if finding["config"]:
            told += f"<dt>flags</dt><dd><code>{escape(flags(finding['config']))}</code></dd>"
        sure = f'<span class="faint">(confidence {finding["confidence"]:.0%})</span>'
        yield f'<div class="card"><h3>{rank + 1}. {escape(cause)} {sure}</h3><dl>{told}</dl></div>'
