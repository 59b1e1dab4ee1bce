"""Whether an argument that sets a time limit ends episodes by termination: seen by setting it low.

In random play most episodes may end before the limit, so that it shows in none of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from marl_stable.investigate.doctor.ends import LIMIT_NAMES, LIMIT_REMEDY, terminated
from marl_stable.investigate.doctor.findings import Fault, Notebook
from marl_stable.investigate.doctor.play import Moment, Play
from marl_stable.investigate.doctor.watching import choose

LIMITS = (17, 23)  # steps; two of them, so that it is no coincidence

LimitedMaker = Callable[[str, int], Play | None]
"""Makes the environment with one more argument; None where it takes no such argument."""


def try_limits(make: LimitedMaker, notes: Notebook, until: float) -> None:
    """Set each known argument that the environment takes."""
    for argument in LIMIT_NAMES:
        ends = [_end_under(make, argument, limit, until) for limit in LIMITS]
        if all(ends):
            what = f"With {argument}={LIMITS[0]} episodes end by termination after exactly {LIMITS[0]} steps."
            notes.note("time_limit_as_termination", "warning", {"argument": argument}, LIMITS[0], what, LIMIT_REMEDY)
            return


def _end_under(make: LimitedMaker, argument: str, limit: int, until: float) -> bool:
    """Whether the limit was reached, and told as nothing but termination; a second play where it was not reached."""
    play = None if time.perf_counter() > until else make(argument, limit)
    if play is None:
        return False
    try:
        for seed in range(3):
            length, last = _play_out(play, seed, limit, until)
            if last is not None and length == limit:
                return terminated(last)
    except Fault:  # the environment does not work like this, which is not asked here
        return False
    finally:
        play.close()
    return False


def _play_out(play: Play, seed: int, limit: int, until: float) -> tuple[int, Moment | None]:
    """Steps, and the last moment of an episode that ended within the limit."""
    rng = np.random.default_rng(seed)
    moment = play.reset(seed)
    for length in range(1, limit + 2):
        moment = play.step(choose(play, moment, rng))
        if moment.over:
            return length, moment
        if not play.deciding() or time.perf_counter() > until:
            break
    return 0, None
