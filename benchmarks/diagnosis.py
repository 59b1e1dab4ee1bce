"""The diagnosis benchmark: runs with known faults and healthy ones, each recorded once, and what is made of them.

    python -m benchmarks.diagnosis --runs 60       # trains what is missing of the first 60 (and twins), then the table
    python -m benchmarks.diagnosis --part 1/2      # every second of them, for two processes at once
    python -m benchmarks.diagnosis --only NaN      # runs whose folder's name contains a text
    python -m benchmarks.diagnosis --healthy       # healthy runs alone, to bound the rate of false alarms
    python -m benchmarks.diagnosis --measures none # of the plain algorithms, watched alone
    python -m benchmarks.diagnosis --rejudge       # detectors anew on all recordings, no training
    python -m benchmarks.diagnosis --table         # the table alone

Recordings stay in a cache outside of git; labels, worth and findings are lines of benchmarks/results/diagnosis.jsonl.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import marl_stable as ms
from benchmarks.diagnosis_plan import CONSTANT, CONVERGED, Trial, draw, with_twins
from benchmarks.judging import pages
from benchmarks.provenance import code_commit, made_with, outdated, told
from benchmarks.sabotage import SABOTAGE, at_boundaries, keep_clocks_together, sabotaged
from benchmarks.scoring import latest, worth
from benchmarks.trials import RESULTS, part_of, read
from marl_stable.diagnosing import read_case
from marl_stable.folder import METADATA, RunFolder
from marl_stable.monitor.case import Case
from marl_stable.monitor.diagnosis import diagnose
from marl_stable.report.files import replace_file
from marl_stable.types import UsageError

FILE, TABLE = RESULTS / "diagnosis.jsonl", RESULTS / "diagnosis.md"
CACHE = Path(__file__).parent / ".cache"
RUNS = 300
LOOKS = 50  # of a run, at which it is asked whether the cause is named by then
HEALTHY_LOOKS = 10  # of what is healthy, at which false alarms are looked for


# ---- one run


def record(trial: Trial, cache: Path) -> dict[str, Any]:
    """Train, keep the recording in `cache`, and say how the run ended and what its policy is worth."""
    folder = cache / trial.slug()
    if not folder.exists():
        making = cache / f"making-{os.getpid()}-{folder.name}"
        shutil.rmtree(making, ignore_errors=True)
        try:
            found = _trained(trial, making, cache)
            (making / "found.json").write_text(json.dumps(found), encoding="utf-8")
            _strip(making, keeps_policy=trial == trial.twin())
            with contextlib.suppress(OSError):  # another process was faster
                making.rename(folder)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return dict(json.loads((folder / "found.json").read_text(encoding="utf-8")))


def _trained(trial: Trial, path: Path, cache: Path) -> dict[str, Any]:
    flags = trial.flags() | {"run_dir": str(path)}
    if trial.name == CONVERGED:
        record(trial.twin(), cache)
        flags |= {"init_from": str(cache / trial.twin().slug())}
    found: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        stack.enter_context(at_boundaries(keep_clocks_together))
        if trial.name in SABOTAGE:
            stack.enter_context(sabotaged(trial.name, trial.dose, trial.onset))
        try:
            run = ms.train(**flags)
            found |= {"status": run.status, "reason": run.folder.metadata.get("reason", "")}
        except Exception as error:  # a crash is a harm as well, unless nothing has begun
            if isinstance(error, UsageError) or not (path / METADATA).exists():
                raise
            return {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
    if run.status == "interrupted":
        raise SystemExit(f"{trial.slug()} was interrupted; nothing is kept of it")
    with contextlib.suppress(UsageError):  # no checkpoint that can be loaded
        found |= worth(path, trial.scored_on(), mends=trial.measures == "default")._asdict()
    return found


def _strip(path: Path, keeps_policy: bool) -> None:
    """Leave what a diagnosis reads, and the best weights where another run begins with them."""
    folder = RunFolder(path)
    shutil.rmtree(folder.replay if keeps_policy else folder.checkpoints, ignore_errors=True)
    for file in (
        *path.glob("events.out.tfevents.*"),
        folder.checkpoints / "last.pt",
        folder.checkpoints / "previous.pt",
    ):
        file.unlink(missing_ok=True)


def entry_of(trial: Trial, found: dict[str, Any], cache: Path) -> dict[str, Any]:
    """A line of the results, detectors apart."""
    metadata = RunFolder.open(cache / trial.slug()).metadata
    groups = (metadata.get("spec") or {}).get("groups", [])
    return trial._asdict() | {
        "total_steps": trial.steps,
        "cause": trial.cause,
        "healthy": trial.healthy,
        "rare": trial.rare,
        "place": trial.place(),
        "agent_of": {group["name"]: group["agents"][0] for group in groups if len(group["agents"]) == 1},
        **found,
    }


# ---- detectors on a recording


def judged(trial: Trial, cache: Path) -> dict[str, Any]:
    """What the detectors say of the whole recording, when they first named the cause, and what they named too early."""
    case = read_case(cache / trial.slug())
    found = diagnose(case)
    parts = ("cause", "confidence", "onset_steps", "where")
    return {
        "verdict": found["verdict"],
        "findings": [{part: finding[part] for part in parts} for finding in found["findings"]],
        "symptoms": found["symptoms"],
        "first": first_named(case, trial) if trial.cause in _names(found) else None,
        "before": named_before(case, trial),
        "commit": code_commit(),
    }


def known_at(case: Case, steps: int) -> Case:
    """What could be known at `steps`."""
    incidents = [entry for entry in case.facts.get("incidents") or () if entry["steps"] <= steps]
    facts = {**case.facts, "incidents": incidents, "steps": steps, "status": "running"}
    facts.pop("contributions", None)  # measured once a run is over
    return replace(case, recording=case.recording.until(steps), facts=facts)


def first_named(case: Case, trial: Trial) -> int | None:
    """The first look after the fault began at which its cause is among what is named."""
    steps = case.recording.steps
    for now in looks(steps, trial.onset, int(steps[-1]), LOOKS):
        if trial.cause in _names(diagnose(known_at(case, now))):
            return now
    return None


def named_before(case: Case, trial: Trial) -> list[str]:
    """All that is named while nothing is wrong: all along a healthy run, else until the fault begins."""
    steps = case.recording.steps
    end = int(steps.max(initial=0)) if trial.healthy else trial.onset
    named = {name for now in looks(steps, 0, end, HEALTHY_LOOKS) for name in _names(diagnose(known_at(case, now)))}
    return sorted(named - ({trial.cause} if trial.name == CONSTANT else set()))


def looks(steps: NDArray[np.int64], begin: int, end: int, count: int) -> list[int]:
    """Of logged `steps` in (begin, end], the last one in each of `count` equal parts that has any."""
    inside = steps[(steps > begin) & (steps <= end)]
    parts = np.ceil((inside - begin) / max(1, end - begin) * count)
    return [int(inside[parts == part].max()) for part in np.unique(parts)]


def _names(found: dict[str, Any]) -> list[str]:
    return [finding["cause"] for finding in found["findings"]]


# ---- the script


def run_missing(trials: Iterable[Trial], file: Path, cache: Path) -> Iterator[dict[str, Any]]:
    """Record what `file` does not hold yet, what crashed, and what had other defaults; hand on what is appended."""
    prepare(cache)
    file.parent.mkdir(parents=True, exist_ok=True)
    entries = {trial_of(entry): entry for entry in read(file)}
    for trial in trials:
        if entry := entries.get(trial):
            if entry["status"] != "failed" and not outdated(entry, trial.flags()):
                continue
            shutil.rmtree(cache / trial.slug(), ignore_errors=True)
        began = time.perf_counter()
        entry = entry_of(trial, record(trial, cache), cache) | {"judged": judged(trial, cache)}
        entry |= {"seconds": round(time.perf_counter() - began, 1)} | made_with(trial.flags())
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(entry) + "\n")
        yield entry


def rejudge(file: Path, cache: Path) -> int:
    """Detectors anew on every recording that is still there; how many of the entries of `file` have changed hands."""
    entries, count = latest(read(file), trial_of), 0
    for entry in entries:
        trial = trial_of(entry)
        if (cache / trial.slug()).exists():
            entry["judged"] = judged(trial, cache)
            count += 1
    replace_file(file, [(json.dumps(entry) + "\n").encode() for entry in entries])
    return count


def trial_of(entry: dict[str, Any]) -> Trial:
    """The trial that an entry is of."""
    return Trial(**{name: entry[name] for name in Trial._fields})


def prepare(cache: Path) -> None:
    """Make the cache, which git is to leave alone."""
    cache.mkdir(parents=True, exist_ok=True)
    (cache / ".gitignore").write_text("*\n", encoding="utf-8")


def main() -> None:
    """Record what is missing, or judge anew, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=RUNS, help="how many, twins apart; the first ones of one plan")
    parser.add_argument("--measures", choices=("default", "none"), default="default")
    parser.add_argument("--healthy", action="store_true", help="a plan of healthy runs alone")
    parser.add_argument("--only", default="", help="runs whose folder's name contains this")
    parser.add_argument("--part", default="1/1", help="i/n: the i-th of n interleaved parts")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--rejudge", action="store_true")
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    if asked.rejudge:
        print(f"{rejudge(FILE, asked.cache)} recordings judged anew")
    elif not asked.table:
        plan = with_twins(draw(asked.runs, asked.measures, asked.healthy))
        chosen = [trial for trial in plan if asked.only in trial.slug()]
        for entry in run_missing(part_of(chosen, asked.part), FILE, asked.cache):
            named = [finding["cause"] for finding in entry["judged"]["findings"]]
            print(trial_of(entry).slug(), entry["status"], entry["cause"], named, entry["seconds"], flush=True)
    entries = latest(read(FILE), trial_of)
    former = sum(outdated(entry, trial_of(entry).flags()) for entry in entries)
    written = f"{pages(entries)}\nRecordings of {len(entries)} runs.{told(former, len(entries))}\n"
    TABLE.write_text(written, encoding="utf-8")
    print(written)


if __name__ == "__main__":
    main()
