"""The stress suite: pathological, yet learnable conditions, the framework as it is beside the same without measures.

    python -m benchmarks.stress                    # trains what is missing (hours), then writes the table
    python -m benchmarks.stress --only 'rate x30'  # jobs whose 'condition task algorithm arm' contains a text
    python -m benchmarks.stress --part 1/2         # every second job, for two processes at once
    python -m benchmarks.stress --wide             # a second task for each family as well
    python -m benchmarks.stress --times 4          # conditions that learn slowly, with four times the budget
    python -m benchmarks.stress --table            # the table alone

The mark (score 1) is the framework's own training without the condition, at the same budget, mean over seeds: a lower
mark than a tuned reference would set, and cheaper. Score 0 is the better of random play and the best constant action.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import marl_stable as ms
from benchmarks.provenance import ROOT, made_with, outdated
from benchmarks.sabotage import at_boundaries, keep_clocks_together, sabotaged
from benchmarks.scoring import latest, same_figures, worth
from benchmarks.stress_conditions import ARMS, BY_NAME, CONDITIONS, Condition, Place
from benchmarks.stress_table import table
from benchmarks.trials import RESULTS, part_of, read
from marl_stable.run.resuming import resume
from marl_stable.training import Training
from marl_stable.types import UsageError

FILE, TABLE = RESULTS / "stress.jsonl", RESULTS / "stress.md"
SEEDS = 3
STRIKES_AT = 0.4  # of the run, when an environment goes wrong
KILLED_BETWEEN = (0.2, 0.8)
NAMED = ("condition", "task", "algo", "arm", "seed")  # what a job is called, but for its budget
BEGIN = "import json, sys, marl_stable as ms; ms.train(**json.loads(sys.argv[1]))"


class Job(NamedTuple):
    """One training of the suite."""

    condition: str
    task: str
    algo: str
    arm: str
    seed: int
    times: int = 1  # the usual budget

    @property
    def about(self) -> Condition:
        """Its condition."""
        return BY_NAME[self.condition]

    @property
    def place(self) -> Place:
        """Its task and algorithm."""
        return self.task, self.algo

    def flags(self) -> dict[str, Any]:
        """As for `ms.train`."""
        return self.about.flags_for(self.place, self.times) | ARMS[self.arm] | {"seed": self.seed, "quiet": True}

    def key(self) -> tuple[Any, ...]:
        """What makes it the same job."""
        return (*self[: len(NAMED)], self.flags()["total_steps"])


def jobs(seeds: int, wide: bool = False, times: int = 1) -> list[Job]:
    """All of them, seed by seed, so that an unfinished table is a fair one; marks are trained by default alone."""
    if times > 1:
        slow = [condition for condition in CONDITIONS if condition.slow]
        marks = {condition.reference for condition in slow}
        return [
            Job(condition.name, *place, "default", seed, times)
            for seed in range(1, seeds + 1)
            for condition in CONDITIONS
            if condition.slow or condition.name in marks
            for place in condition.places
        ]
    return [
        Job(condition.name, *place, arm, seed)
        for seed in range(1, seeds + 1)
        for condition in CONDITIONS
        for place in (*condition.places, *(condition.wide if wide else ()))
        for arm in (("default",) if condition.mark_alone else ARMS)
    ]


def key_of(entry: dict[str, Any]) -> tuple[Any, ...]:
    """:meth:`Job.key` of an entry."""
    return tuple(entry[name] for name in (*NAMED, "total_steps"))


def of_former_defaults(entry: dict[str, Any]) -> bool:
    """Whether the job would be trained with other settings today."""
    return outdated(entry, Job(*(entry[name] for name in Job._fields)).flags())


# ---- one job


def perform(job: Job) -> dict[str, Any]:
    """Train, and say how it ended, what the policy is worth, and what the diagnosis named."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        with contextlib.ExitStack() as stack:
            stack.enter_context(at_boundaries(keep_clocks_together))
            if job.about.sabotage:
                stack.enter_context(sabotaged(*job.about.sabotage))
            run, told = EVENTS[job.about.event](job, place)
        if run is None:
            return told | {"status": "failed", "named": []}
        return told | measured(job, run)


def measured(job: Job, run: ms.Run) -> dict[str, Any]:
    """What a run left behind."""
    found: dict[str, Any] = {"status": run.status, "reason": run.folder.metadata.get("reason", "")}
    mends = ARMS[job.arm].get("stability") != "off"
    with contextlib.suppress(UsageError):  # no checkpoint that can be loaded
        found |= worth(run.path, job.about.scored_on(job.place, job.times), mends)._asdict()
    kinds = [f"{entry['kind']}: {entry['action']}" for entry in run.incidents]
    found["incidents"] = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
    return found | {"named": [finding["cause"] for finding in run.diagnose()["findings"]]}


def _trained(job: Job, folder: Path, **more: Any) -> tuple[ms.Run | None, dict[str, Any]]:
    return _tried(lambda: ms.train(**job.flags() | more, run_dir=str(folder / "run")))


def _tried(call: Callable[[], ms.Run]) -> tuple[ms.Run | None, dict[str, Any]]:
    try:
        return call(), {}
    except UsageError:
        raise
    except Exception as error:  # what no user should ever see is a result as well
        return None, {"reason": f"{type(error).__name__}: {error}"}


def _struck(job: Job, folder: Path) -> tuple[ms.Run | None, dict[str, Any]]:
    """An environment raises or hangs, once."""
    token, flags = folder / str(job.about.event), job.flags()
    struck: list[int] = []

    def strike(training: Training) -> None:
        if not struck and training.steps >= STRIKES_AT * flags["total_steps"]:
            struck.append(training.steps)
            token.touch()

    with at_boundaries(strike):
        run, told = _trained(job, folder, env__kwargs={**flags["env__kwargs"], "token": str(token)})
    return run, told | {"struck_at": struck[0] if struck else None, "happened": not token.exists()}


def _killed(job: Job, folder: Path) -> tuple[ms.Run | None, dict[str, Any]]:
    """Killed without warning and gone on with; and the same left alone, to compare."""
    flags, path = job.flags(), folder / "run"
    share = random.Random(f"{job}").uniform(*KILLED_BETWEEN)
    words = json.dumps(flags | {"run_dir": str(path)})
    process = subprocess.Popen([sys.executable, "-c", BEGIN, words], cwd=ROOT)
    try:
        while process.poll() is None and _steps_of(path) < share * flags["total_steps"]:
            time.sleep(0.05)
    finally:
        process.kill()
    ended = process.wait()
    run, told = _tried(lambda: resume(path, quiet=True))
    if run is None:
        return None, told
    alone, told = _trained(job, folder / "alone")
    if alone is None:
        return None, told
    same = same_figures(_rows(path), _rows(alone.path))
    return run, {"killed_at": round(share, 2), "killed": ended == -signal.SIGKILL, "exact": same}


def _steps_of(path: Path) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int((path / "metrics.csv").read_text().splitlines()[-1].split(",")[0])
    return 0


def _rows(path: Path) -> list[dict[str, Any]]:
    with (path / "metrics.csv").open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


EVENTS = {None: _trained, "raise": _struck, "hang": _struck, "kill": _killed}


# ---- the script


def run_missing(wanted: Iterable[Job], file: Path) -> Iterator[dict[str, Any]]:
    """Train what `file` does not hold yet, what crashed, and what had other defaults; hand on what is appended."""
    file.parent.mkdir(parents=True, exist_ok=True)
    found = latest(read(file), key_of)
    done = {key_of(entry) for entry in found if entry["status"] != "failed" and not of_former_defaults(entry)}
    for job in wanted:
        if job.key() in done:
            continue
        began = time.perf_counter()
        told = perform(job)
        if told["status"] == "interrupted":
            raise SystemExit(f"{' '.join(map(str, job))} was interrupted; nothing is kept of it")
        entry = job._asdict() | {"total_steps": job.flags()["total_steps"], "flags": job.flags()} | told
        entry |= {"seconds": round(time.perf_counter() - began, 1)} | made_with(job.flags())
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(entry) + "\n")
        yield entry


def main() -> None:
    """Train what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--only", default="", help="jobs whose 'condition task algorithm arm' contains this")
    parser.add_argument("--part", default="1/1", help="i/n: the i-th of n interleaved parts")
    parser.add_argument("--wide", action="store_true", help="a second task for each family")
    parser.add_argument("--times", type=int, default=1, help="of the usual budget, for what learns slowly")
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    if not asked.table:
        chosen = [
            job for job in jobs(asked.seeds, asked.wide, asked.times) if asked.only in " ".join(map(str, job[:4]))
        ]
        for entry in run_missing(part_of(chosen, asked.part), FILE):
            told = {name: entry.get(name) for name in ("status", "value", "low", "named", "seconds")}
            print(*(entry[name] for name in NAMED), told, flush=True)
    entries = latest(read(FILE), key_of)
    written = table(entries, former=sum(map(of_former_defaults, entries)))
    TABLE.write_text(written, encoding="utf-8")
    print(written)


if __name__ == "__main__":
    main()
