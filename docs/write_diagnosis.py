"""Writes docs/diagnosis.md from the code: every symptom, cause and signal in the words that stand there.

python docs/write_diagnosis.py
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

from marl_stable.monitor import diagnosis
from marl_stable.monitor.case import CAUSES, Stage
from marl_stable.monitor.symptoms import SYMPTOMS
from marl_stable.monitor.table import SIGNALS

PAGE = Path(__file__).with_suffix("").with_name("diagnosis.md")
STAGES = {
    Stage.ENVIRONMENT: "environment",
    Stage.DATA: "data",
    Stage.OBJECTIVE: "what is learned",
    Stage.OPTIMISER: "optimiser",
    Stage.NETWORK: "networks",
    Stage.ACTION: "actions",
    Stage.RESPONSE: "response",
}
HEAD = f"""
How a run's behaviour becomes a cause. `marl-stable diagnose RUN` reads `recording/`, `metrics.csv`, `incidents.jsonl`
and `metadata.json` of a run folder; nothing is trained and nothing changed. `marl_stable/monitor/` is the code:
`signals/` makes numbers of tensors, `table.py` names them, `causes/` has one function per cause, `diagnosis.py` orders
what they find. This page is written from it by `python docs/write_diagnosis.py`.

The root cause is told from its consequences by time and by place in a chain. Of what was found with some certainty,
that which began first is named first; of what began together (within {diagnosis.READINGS} readings, or
{diagnosis.TOGETHER:.0%} of the run), that which is furthest upstream: {", ".join(STAGES.values())}. Causes marked
*last* describe an end state that many faults share (saturated actors, collapsed entropy, ...), and are named first only
where nothing else was found. A symptom that no cause explains gives `unknown`, with what was excluded. A cause that a
run could not show, such as a goal that is given up where no term is for a rare goal, is not called well: it stands
apart (`not_judged`), with what it needs.

Thresholds are physical (a tanh whose slope is 2%, a ratio that must be 1 before the first step) or come from the run
itself (robust deviations, change points; `monitor/calibration.py`), and where a signal alone proves no harm, a symptom
is asked for as well: an alarm on a healthy run is worse than a mild fault missed.

The verdict is `failing` where a symptom does harm, `warning` where something was found and nothing suffers by it, else
`healthy`. To repeat one action does no harm where it pays, more than random play and no less than the best constant
action, nor while the return of a run under way is rising; what is not finite does none where it is left out and
learning goes on. A run under way that has not begun to learn, without any further sign, is not `unknown`: it may yet.
"""
SIGNALS_HEAD = """
By row of the optimiser (one where agents share parameters, else one per agent), agent, dimension of the action,
feature, layer or unit. `metrics.csv` has of each the mean or the largest over its parts.
"""


def page() -> str:
    """The whole page."""
    parts = [
        f"# Diagnosis\n\n{_filled(HEAD)}\n",
        _table(f"{len(SYMPTOMS)} symptoms: what a user sees", "symptom | when it is told", _symptoms()),
        _table(f"{len(CAUSES)} causes", "cause | stage | what to do", _causes()),
        _table(f"{len(SIGNALS)} signals", "signal | by | what", _signals(), _filled(SIGNALS_HEAD)),
    ]
    return "\n".join(parts)


def _filled(text: str) -> str:
    """Paragraphs of lines of one length, whatever was put into them."""
    return "\n\n".join(textwrap.fill(part, 118, break_on_hyphens=False) for part in text.strip().split("\n\n"))


def _symptoms() -> Iterator[str]:
    for look in SYMPTOMS:
        yield f"`{look.__name__}` | {_one_line(look.__doc__)}"


def _causes() -> Iterator[str]:
    for kind in sorted(CAUSES.values(), key=lambda kind: (kind.last_resort, kind.stage)):
        last = " *last*" if kind.last_resort else ""
        remedy = kind.remedy + (f" Where that is so already: {kind.otherwise}" if kind.otherwise else "")
        yield f"`{kind.name}`{last}: {_one_line(kind.look.__doc__)} | {STAGES[kind.stage]} | {remedy}"


def _signals() -> Iterator[str]:
    for name, signal in SIGNALS.items():
        yield f"`{name}` | {', '.join(signal.axes) or 'group'} | {signal.says}"


def _table(title: str, columns: str, rows: Iterator[str], text: str = "") -> str:
    rule = "|".join("---" for _ in columns.split("|"))
    lines = [f"## {title}", "", *([text, ""] if text else []), f"| {columns} |", f"|{rule}|"]
    return "\n".join([*lines, *(f"| {row} |" for row in rows), ""])


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
