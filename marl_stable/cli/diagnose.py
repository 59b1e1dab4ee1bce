"""`marl-stable diagnose`."""

from __future__ import annotations

from dataclasses import dataclass

from marl_stable.cli.words import Usage, say, tell
from marl_stable.report.files import to_json

USAGE = Usage("diagnose", "RUN [--experiment] [--json]")


@dataclass(frozen=True)
class Diagnose:
    """Say what went wrong in a run, running, finished or crashed: why, since when, and what to change. Reads only."""

    experiment: bool = False
    """Try one remedy after the other, in short trainings beside an unchanged one: minutes. Leaves the run alone."""
    json: bool = False
    """Print the content of diagnosis.json."""


def diagnose(words: list[str]) -> int:
    """Say what went wrong in a run, and why"""
    others, asked = USAGE.read(words, Diagnose())
    run = USAGE.run_folder(others)
    from marl_stable import diagnosing
    from marl_stable.report.aside import prints_aside
    from marl_stable.report.page import page

    if asked.experiment:
        from marl_stable import experiment

        with prints_aside():
            found = experiment.examine(run, tell)[0]
    else:
        found = diagnosing.diagnose_run(run)
    say(to_json(found, indent=2) if asked.json else page(found, str(run)))
    return 0
