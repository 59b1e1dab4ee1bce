"""The command from end to end: look at what is there, run what is missing, and tell what came of it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

from marl_stable.config import RunConfig
from marl_stable.conversion import require
from marl_stable.interruption import signals_taken
from marl_stable.report.files import to_json
from marl_stable.report.sweep_page import page
from marl_stable.sweep.grid import require_few
from marl_stable.sweep.plan import Member, Point, claim, default_folder, default_jobs, members, todo
from marl_stable.sweep.processes import run_all
from marl_stable.sweep.results import collect, outcome

DONE, FAILED, INTERRUPTED = 0, 1, 130


def sweep(
    points: Sequence[Point],
    seeds: Sequence[int],
    jobs: int | None,
    words: Sequence[str],
    answer: Callable[[str], None] | None,
    tell: Callable[[str], None],
) -> int:
    """Run every point with every seed; the exit code. `words`: the command's own, to be told how to go on.

    `answer` is given the JSON; None: a table is shown. `tell` is told what happens meanwhile. Raises UsageError for
    what cannot be run, before anything is.
    """
    require(jobs is None or jobs > 0, "jobs", jobs, "at least 1")
    require_few(len(points) * len(seeds))
    asked = points[0].config.run_dir
    folder = Path(asked) if asked else default_folder()
    runs, configs = members(points, seeds, folder), [point.config for point in points]
    at_once = jobs or default_jobs(configs, on_gpu(configs))
    again = shlex.join(["marl-stable", "sweep", *words, *([] if asked else ["--run-dir", str(folder)])])
    claimed = claim(folder)
    try:
        complete = _run(runs, at_once, folder, tell)
    finally:
        claimed.release()
    if not complete:
        tell(f"interrupted; what was running is saved. Go on with: {again}")
        return INTERRUPTED
    found = collect(runs) | {"folder": str(folder)}
    if answer:
        answer(to_json(found, indent=2))
    else:
        page(found)
    return DONE if all(run["status"] == "finished" for point in found["points"] for run in point["runs"]) else FAILED


def _run(runs: Sequence[Member], jobs: int, folder: Path, tell: Callable[[str], None]) -> bool:
    """Run what is missing, telling each end; False where interrupted."""
    work = [(member, what) for member in runs if (what := todo(member)) != "keep"]
    quiet = runs[0].config.quiet
    number = len(runs) - len(work)
    if not quiet:
        kept = f", {number} of them done before" if number else ""
        at_once = min(jobs, max(1, len(work)))
        tell(f"{len(runs)} run{'s' * (len(runs) != 1)}{kept}, {at_once} at once, in {folder}")

    def ended(member: Member, seconds: float) -> None:
        nonlocal number
        number += 1
        run = outcome(member)
        if run["status"] != "finished":
            tell(f"[{number}/{len(runs)}] {member.name}: {run['status']}: {run['reason']} (see {member.log})")
        elif not quiet:
            value = "not finite" if run["return"] is None else f"{run['return']:.2f}"
            tell(f"[{number}/{len(runs)}] {member.name}: return {value} after {timedelta(seconds=round(seconds))}")

    with signals_taken() as signals:
        signals.saving = True  # the first signal asks for an end, and everything is saved
        return run_all(work, jobs, signals, ended)


def on_gpu(found: Sequence[RunConfig]) -> bool:
    """Whether any of these runs will be on a GPU. Loads torch where nothing else can tell."""
    devices = {config.device for config in found}
    if "cuda" in devices:
        return True
    if "auto" not in devices:
        return False
    from torch import cuda

    return cuda.is_available()
