"""A diagnosis as a page of plain text: what, since when, why, the evidence, what to change, what was found well."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from marl_stable.report.files import to_json

WIDTH = 100
VERDICTS = {
    "healthy": "healthy: nothing was found that explains bad behaviour",
    "warning": "warning: no symptom yet, but something that brings one",
    "failing": "failing",
}
HARMLESS = "warning: what it shows does no harm that was measured, and has a cause"


def page(found: Mapping[str, Any], name: str) -> str:
    """`found` is the content of diagnosis.json; `name` is how the user calls the run."""
    return "\n".join(_lines(found, name))


def _lines(found: Mapping[str, Any], name: str) -> Iterator[str]:
    borne = found["verdict"] == "warning" and found["symptoms"]
    yield f"{name}: {HARMLESS if borne else VERDICTS.get(found['verdict'], found['verdict'])}"
    if found["symptoms"]:
        yield from _wrapped("symptoms: ", ", ".join(_words(symptom) for symptom in found["symptoms"]))
    yield from _returns(found)
    for rank, finding in enumerate(found["findings"]):
        yield ""
        yield from _finding(finding, rank)
    if found["actions_taken"]:
        acts = (
            f"{act['count']} x {_words(act['action'])} (first at {act['steps']:,} steps)"
            for act in found["actions_taken"]
        )
        yield ""
        yield from _wrapped("the guard acted: ", ", ".join(acts))
    yield ""
    yield from _wrapped(*_checked(found))
    if missing := found.get("not_judged"):  # files of an older release have no such list
        told = "; ".join(f"{_words(entry['cause'])} needs {entry['needs']}" for entry in missing)
        yield from _wrapped(f"could not be judged ({len(missing)}): ", told)


def _returns(found: Mapping[str, Any]) -> Iterator[str]:
    if found["return"] is None:
        return
    baselines = {name: entry for name, entry in found["baselines"].items() if entry is not None}
    beside = [f"{_words(name)} {number(entry['return'])}" for name, entry in baselines.items()]
    yield f"return {number(found['return'])}" + (f" ({', '.join(beside)})" if beside else "")


def _finding(finding: Mapping[str, Any], rank: int) -> Iterator[str]:
    title = "root cause" if rank == 0 else "also"
    where = ", ".join(f"{part} {name}" for part, name in finding["where"].items())
    place = f" in {where}" if where else ""
    told = (
        f"{_words(finding['cause'])}{place}, {since(finding['onset_steps'])} (confidence {finding['confidence']:.0%})"
    )
    yield from _wrapped(f"{title}: ", told)
    yield from _wrapped("  why       ", finding["explanation"])
    if finding["evidence"]:
        numbers = (f"{_words(key)} {number(value)}" for key, value in finding["evidence"].items())
        yield from _wrapped("  evidence  ", ", ".join(numbers))
    yield from _wrapped("  remedy    ", finding["remedy"])
    if finding["config"]:
        yield f"  flags     {flags(finding['config'])}"


def since(steps: int) -> str:
    """An onset in words."""
    return "from the start" if steps <= 0 else f"since {steps:,} steps"


def flags(config: Mapping[str, Any]) -> str:
    """Settings as flags to paste."""
    return " ".join(f"--{key.replace('_', '-')} {shlex.quote(_value(value))}" for key, value in config.items())


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, Mapping):
        return to_json(dict(value))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(str(item) for item in value)
    return "none" if value is None else str(value)


def _checked(found: Mapping[str, Any]) -> tuple[str, str]:
    named = {finding["cause"] for finding in found["findings"]}
    well = [_words(cause) for cause in found["checked"] if cause not in named]
    return f"checked and found well ({len(well)}): ", ", ".join(well) or "nothing; too little was recorded"


def _wrapped(head: str, text: str) -> Iterator[str]:
    indent = " " * len(head) if head.startswith("  ") else "  "
    yield from textwrap.wrap(text, WIDTH, initial_indent=head, subsequent_indent=indent, break_on_hyphens=False)


def _words(name: str) -> str:
    return name.replace("_", " ")


def number(value: float | None) -> str:
    """Three significant digits."""
    return "not finite" if value is None else f"{value:,.3g}" if abs(value) < 1e6 else f"{value:.2e}"
