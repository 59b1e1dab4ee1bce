"""`marl-stable selftest`: is the machinery sound on this machine? Seconds, for every algorithm.

Each plays the probe games, whose answers are known, and takes an update apart: on a fixed batch the critic's loss must
fall and the actor's objective rise, and one update must move every tensor. What fails says what it probably means.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch

from marl_stable.agents.config import default_config
from marl_stable.investigate.dissection import overfit, update
from marl_stable.investigate.probing import play
from marl_stable.investigate.questions import ITERATIONS, Check, answered, remembers
from marl_stable.report.files import to_json


class Skipped(NamedTuple):
    """A question that an algorithm is not asked."""

    name: str
    algorithm: str
    reason: str


def run(algorithms: Sequence[str], tell: Callable[[Check], None] | None = None) -> list[Check]:
    """Every check of the algorithms so called; `tell` hears of each as soon as it is made.

    What raises is a failed check. Raises UsageError for an unknown algorithm, before anything is played.
    """
    names = [default_config(name).name for name in algorithms]
    checks = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks are tiny, and threads that wait for one another many times slower
    try:
        for check in (check for name in names for check in _checks(name)):
            checks.append(check)
            if tell:
                tell(check)
    finally:
        torch.set_num_threads(threads)
    return checks


def skipped(algorithms: Sequence[str]) -> list[Skipped]:
    """What `run` does not ask, and why."""
    reason = "it has no recurrent networks"
    return [Skipped("remember", name, reason) for name in algorithms if not remembers(name)]


def _checks(algorithm: str) -> Iterator[Check]:
    games = [game for game in ITERATIONS if game != "Remember" or remembers(algorithm)]
    for game in games:
        yield from _guarded(game, algorithm, play)
    yield from _guarded("Aim", algorithm, overfit)
    for game in ["Aim", *(["Remember"] if "Remember" in games else [])]:
        yield from _guarded(game, algorithm, update)


def _guarded(game: str, algorithm: str, ask: Callable[[str, str], list[Check]]) -> list[Check]:
    """What `ask` finds; where it raises, a failed check that says so."""
    began = time.perf_counter()
    try:
        return ask(game, algorithm)
    except Exception as error:
        meaning = " ".join(f"it raised {type(error).__name__}: {error}".split())
        seconds = time.perf_counter() - began
        return [answered(game, ask.__name__, algorithm, (math.nan, math.nan, 0.0), seconds, meaning)]


# ---- in words


def report(algorithms: Sequence[str], as_json: bool, say: Callable[[str], None]) -> bool:
    """Run every check and `say` what is found: a line each as it is made, or one JSON object. Whether all passed."""
    began, skips = time.perf_counter(), skipped(algorithms)
    if as_json:
        checks = run(algorithms)
        found = {"checks": [check._asdict() for check in checks], "skipped": [skip._asdict() for skip in skips]}
        say(to_json({"passed": all(check.ok for check in checks), **found}))
    else:
        for skip in skips:
            say(f"skip  {skip.name:19}  {skip.algorithm:7}  {skip.reason}")
        checks = run(algorithms, lambda check: say(in_words(check)))
        say(f"{sum(check.ok for check in checks)} of {len(checks)} passed in {time.perf_counter() - began:.1f} s")
    return all(check.ok for check in checks)


def in_words(check: Check) -> str:
    """One line, aligned with all others; after a failure with what it probably means."""
    line = f"{'ok' if check.ok else 'FAIL':4}  {check.name:19}  {check.algorithm:7}  found {check.found:7.3f}"
    line += f"  expected {check.expected:6.3f} +- {check.tolerance:.2f}  {check.seconds:5.2f} s"
    meaning = check.meaning + (f": cause {check.cause}" if check.cause else "")
    return f"{line}  {meaning}" if meaning else line
