"""Trainings of a benchmark, each done once: results are appended to a file of JSON lines and found there again.

A script can be stopped and started anew, and its table is made from the file alone. What was trained with other
defaults than today's is trained again.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import marl_stable as ms
from benchmarks.provenance import made_with, outdated

RESULTS = Path(__file__).parent / "results"


class Trial(NamedTuple):
    """One training: what it is called, the task, the seed, and its flags (as for `ms.train`)."""

    variant: str
    task: str
    seed: int
    flags: dict[str, Any]

    def key(self) -> tuple[Any, ...]:
        """What makes it the same trial."""
        return (self.variant, self.task, self.seed, self.flags["total_steps"])


def run_missing(trials: Iterable[Trial], file: Path, measure: Callable[[ms.Run], dict[str, Any]]) -> None:
    """Train what `file` does not hold yet, and append what `measure` finds in each run."""
    file.parent.mkdir(parents=True, exist_ok=True)
    done = {entry_key(entry) for entry in read(file) if not outdated(entry, entry["flags"])}
    for trial in trials:
        if trial.key() in done:
            continue
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            run = ms.train(**trial.flags, seed=trial.seed, run_dir=str(Path(folder) / "run"), quiet=True)
            if run.status != "finished":
                raise SystemExit(
                    f"{trial.variant} {trial.task} seed {trial.seed} was {run.status}; nothing is kept of it"
                )
            found = measure(run)
        entry = {
            "variant": trial.variant,
            "task": trial.task,
            "seed": trial.seed,
            "total_steps": trial.flags["total_steps"],
            "flags": trial.flags,
            **found,
            "seconds": round(time.perf_counter() - began, 1),
            "device": run.folder.metadata["device"],
            **made_with(trial.flags),
        }
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(entry) + "\n")
        print(f"{trial.variant} {trial.task} seed {trial.seed}: {found} in {entry['seconds']} s", flush=True)


def part_of(everything: list[Any], text: str) -> list[Any]:
    """The i-th of n interleaved parts, from "i/n"; SystemExit where the text is no such thing."""
    i, _, n = text.partition("/")
    if not (i.isdigit() and n.isdigit() and 1 <= int(i) <= int(n)):
        raise SystemExit(f"--part is {text!r}; it must be like 1/2: the first of two parts.")
    return everything[int(i) - 1 :: int(n)]


def read(file: Path) -> Iterator[dict[str, Any]]:
    """All entries of a results file."""
    if file.exists():
        for line in file.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def told_mean(values: list[float]) -> str:
    """What a table says of one training with several seeds: their mean (the lowest; how many)."""
    return f"{np.mean(values):.2f} ({min(values):.2f}; {len(values)})" if values else ""


def entry_key(entry: dict[str, Any]) -> tuple[Any, ...]:
    """:meth:`Trial.key` of an entry."""
    return (entry["variant"], entry["task"], entry["seed"], entry["total_steps"])
