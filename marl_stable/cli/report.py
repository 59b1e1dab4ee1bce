"""`marl-stable report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from marl_stable.cli.words import Usage, say
from marl_stable.report.files import require_writable, write_page
from marl_stable.types import UsageError

USAGE = Usage("report", "RUN [RUN ...] -o FILE.html")


@dataclass(frozen=True)
class Report:
    """Write a page of one file about runs, running, finished or crashed: diagnosis, curves, actions, gradients,
    incidents. Several are compared, a line each; a folder of runs, such as a sweep's, stands for them."""

    output: str | None = None
    """File to write, `-o` for short."""


def report(words: list[str]) -> int:
    """Write a page about runs: curves, actions, diagnosis"""
    others, asked = USAGE.read(words, Report())
    if not others:
        raise UsageError("RUN is missing; report needs run folders, one or more, and `ls runs` shows yours.")
    if asked.output is None:
        raise UsageError("-o has no value; report needs a file to write, such as -o report.html.")
    output = require_writable(asked.output)
    from marl_stable import reporting

    write_page(output, reporting.report([Path(run) for run in others]))
    say(str(output))
    return 0
