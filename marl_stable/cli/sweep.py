"""`marl-stable sweep`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from marl_stable.cli.configured import configured, fields_of, run_config
from marl_stable.cli.words import Usage, say, tell
from marl_stable.config import RunConfig
from marl_stable.envs import catalog
from marl_stable.sweep import grid, search
from marl_stable.types import UsageError

USAGE = Usage("sweep", "[PRESET] [flags] [--seeds 1..5] [--grid KEY=V1,V2]")
OWN = ("seeds", "grid", "jobs", "study", "study_name", "search", "trials", "prune", "json")
OF_STUDIES = ("study_name", "search", "trials", "prune")


@dataclass(frozen=True)
class Sweep(RunConfig):
    """Train seeds and grids of settings, several runs at once; with the same --run-dir, go on where it was stopped.
    With --study, search ranges of settings, on any number of machines at once; the same command goes on."""

    run_dir: str | None = None
    """The folder for all runs, each in one of its own; default runs/sweep-TIME, and for a study runs/NAME."""
    seeds: str | None = None
    """Seeds of every point, such as 1,2,3 or 1..5; unset: `seed` alone."""
    grid: str | None = None
    """KEY=V1,V2 for any flag of train, or several of them: every combination is a point. Where values hold commas
    themselves, `;` is between them: "algo.network.hidden=64,64;128,128"."""
    jobs: int | None = None
    """Runs at once; unset: as many as there are cores for their threads and workers, and 1 on a GPU."""
    study: str | None = None
    """Where an Optuna study is kept that processes with this same command share: a database's URL such as
    sqlite:///study.db, or a journal file, for disks that machines share. Needs marl_stable[optuna]."""
    study_name: str | None = None
    """Its name there; unset: that of the file or database."""
    search: str | None = None
    """KEY=LOW..HIGH, KEY=log:LOW..HIGH or KEY=V1,V2 for any flag of train, or several of them: what trials draw."""
    trials: int | None = None
    """Trials of the study, from all machines together; unset: 50."""
    prune: bool = False
    """Spares a trial its other seeds where, over those that have ended, it is worse than the median of other trials."""
    json: bool = False
    """Print one JSON object."""


def sweep(words: list[str]) -> int:
    """Train seeds and grids of settings, several at once"""
    rest, axes = grid.taken(words)
    rest, ranges = grid.taken(rest, search.FLAG, search.SHAPE)
    searched = search.axes(ranges)

    def asked_with(settings: dict[str, str]) -> Sweep:
        asked = configured([*rest, *grid.flags(settings)], USAGE, lambda base: Sweep(**fields_of(base)))
        catalog.require_known(asked.env.id)
        return asked

    combinations = search.corners(searched) if searched else grid.points(axes)
    found = [(settings, asked_with(settings)) for settings in combinations]
    first = found[0][1]
    seeds = grid.seeds(first.seeds) if first.seeds is not None else [first.seed]
    _require_whole(first, bool(axes), bool(searched))
    if first.study is not None:
        return _search(first, searched, lambda settings: run_config(asked_with(settings), OWN), seeds, words)
    from marl_stable.sweep import command
    from marl_stable.sweep.plan import Point

    points = [Point(settings, run_config(asked, OWN)) for settings, asked in found]
    return command.sweep(points, seeds, first.jobs, words, say if first.json else None, tell)


def _search(
    asked: Sweep,
    axes: Sequence[search.Axis],
    configured: Callable[[dict[str, str]], RunConfig],
    seeds: list[int],
    words: list[str],
) -> int:
    """Take part in a study of settings along `axes`; `configured`: the run with some of them."""
    from marl_stable.sweep import study_command

    where = (asked.study or "", asked.study_name)
    study = study_command.Search(*where, axes, configured, seeds, asked.trials, asked.prune, asked.jobs)
    return study_command.take_part(study, run_config(asked, OWN), words, say if asked.json else None, tell)


def _require_whole(asked: Sweep, gridded: bool, searched: bool) -> None:
    """Flags of a study belong together."""
    if asked.study is None:
        alone = [name for name in OF_STUDIES if (name == "search" and searched) or getattr(asked, name)]
        if alone:
            raise UsageError(f"--{alone[0].replace('_', '-')} needs a study; name where it is kept with --study.")
    elif gridded:
        raise UsageError("--grid trains every combination and --study searches; give --search instead of --grid.")
    elif not searched:
        raise UsageError(f"--study needs something to search; add --search {search.SHAPE}.")
