"""`sweep --study` from end to end: take part in a study until it has its trials, and tell what all of them brought."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from marl_stable.config import RunConfig
from marl_stable.conversion import require
from marl_stable.interruption import signals_taken
from marl_stable.report.files import to_json
from marl_stable.report.page import flags
from marl_stable.report.sweep_page import page
from marl_stable.sweep.command import DONE, FAILED, INTERRUPTED, on_gpu
from marl_stable.sweep.grid import require_few
from marl_stable.sweep.plan import default_jobs
from marl_stable.sweep.processes import run_all
from marl_stable.sweep.search import Axis
from marl_stable.sweep.study import Study, description
from marl_stable.sweep.trials import Trials

TRIALS = 50


class Search(NamedTuple):
    """What is searched, and how."""

    place: str  # of the study: a database's URL or a file
    name: str | None
    axes: Sequence[Axis]
    configured: Callable[[dict[str, str]], RunConfig]  # settings to a run
    seeds: Sequence[int]
    trials: int | None
    prune: bool
    jobs: int | None


def take_part(
    search: Search,
    config: RunConfig,
    words: Sequence[str],
    answer: Callable[[str], None] | None,
    tell: Callable[[str], None],
) -> int:
    """Train trials until the study has them all; the exit code. `config`: one of the runs; the rest as for `sweep`.

    Raises UsageError for what cannot be searched, before anything is trained.
    """
    require(search.jobs is None or search.jobs > 0, "jobs", search.jobs, "at least 1")
    require(search.trials is None or search.trials > 0, "trials", search.trials, "at least 1")
    most = search.trials or TRIALS
    require_few(most * len(search.seeds))
    for seed in search.seeds:
        replace(config, seed=seed)  # refuses one that is out of range
    at_once = search.jobs or default_jobs([config], on_gpu([config]))
    study = Study(search.place, search.name, description(config, search.axes, search.seeds), config.seed)
    folder = Path(config.run_dir or Path("runs") / re.sub(r"[^\w.+-]", "_", study.name, flags=re.ASCII))
    if not config.quiet:
        before = len(study.results()["points"])
        known = f", {before} of them done before" if before else ""
        tell(f"{most} trials{known}, {at_once} run{'s' * (at_once != 1)} at once, in {folder}")

    def finished(number: int) -> None:
        if not config.quiet:
            tell(_line(study, number, most, len(search.seeds)))

    trials = Trials(study, search.axes, search.configured, search.seeds, most, search.prune, folder, finished)
    try:
        with signals_taken() as signals:
            signals.saving = True  # the first signal asks for an end, and everything is saved
            complete = run_all(trials.work(), at_once, signals, lambda member, seconds: trials.ended(member))
    finally:
        trials.release()
    if not complete:
        tell(f"interrupted; what was running is saved. Go on with: {shlex.join(['marl-stable', 'sweep', *words])}")
        return INTERRUPTED
    found = study.results() | {"folder": str(folder)}
    if answer:
        answer(to_json(found, indent=2))
    else:
        page(found)
    return DONE if all(point["state"] != "failed" for point in found["points"]) else FAILED


def _line(study: Study, number: int, most: int, seeds: int) -> str:
    """What is told of a trial that has ended here."""
    points = study.results()["points"]
    point, best = next(point for point in points if point["trial"] == number), points[0]
    head = f"[{len(points)}/{most}] trial {number}"
    if point["state"] == "failed":
        run = next((run for run in point["runs"] if run["return"] is None), {"reason": point.get("reason"), "path": ""})
        log = f" (see {run['path']}.log)" if run["path"] else ""
        return f"{head}: failed: {run.get('reason', 'its return is not finite')}{log}"
    pruned = f", pruned after {len(point['runs'])} of {seeds} seeds" if point["state"] == "pruned" else ""
    return (
        f"{head}: return {point['return']['iqm']:.2f}{pruned}, {flags(point['config'])}; best is trial {best['trial']}"
    )
