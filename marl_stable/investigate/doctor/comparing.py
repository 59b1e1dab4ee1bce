"""Two plays of the same actions, compared bit by bit: what each moment told every agent, as short digests."""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from marl_stable.investigate.doctor.observing import leaves
from marl_stable.investigate.doctor.play import Moment, Play
from marl_stable.investigate.doctor.watching import choose

Outcome = dict[tuple[str, str], bytes]
"""(what, agent) to a digest of it; `what` is observation, reward or end."""

Change = Callable[[Play, Moment, dict[str, Any]], dict[str, Any]]
"""Actions instead of those that were recorded."""


@dataclass
class Recording:
    """A play that can be repeated."""

    seed: int | None
    actions: list[dict[str, Any]]
    outcomes: list[Outcome]  # of the reset, then of each step


@dataclass(frozen=True)
class Difference:
    """Where two plays part."""

    step: int  # 0: the reset
    what: str
    agent: str


def outcome(play: Play, moment: Moment) -> Outcome:
    """Digests of everything that a moment told."""
    found: Outcome = {}
    for agent, value in moment.obs.items():
        if agent in play.possible:
            found["observation", agent] = digest(value, play.space("observation", agent))
    for agent, reward in moment.rewards.items():
        found["reward", agent] = digest(reward)
    for agent in moment.terminated:
        ends = (moment.terminated[agent], moment.truncated.get(agent))
        found["end", agent] = repr(ends).encode()
    return found


def digest(value: Any, space: Any = None) -> bytes:
    """A short text for any value; equal numbers have equal ones."""
    total = hashlib.blake2b(digest_size=12)
    for _, _, part in leaves(space, value):
        try:
            array = np.asarray(part)
            numbers = array.dtype.kind in "biuf"
            total.update((array + 0.0).tobytes() if array.dtype.kind == "f" else array.tobytes())
        except (ValueError, RuntimeError):  # a tensor that wants gradients
            numbers = False
        if not numbers:
            total.update(repr(part).encode())
    return total.digest()


def record(play: Play, seed: int | None, steps: int, until: float) -> Recording:
    """Play random legal actions."""
    rng = np.random.default_rng(0 if seed is None else seed)
    moment = play.reset(seed)
    found = Recording(seed, [], [outcome(play, moment)])
    while not moment.over and len(found.actions) < steps and time.perf_counter() < until:
        actions = choose(play, moment, rng)
        found.actions.append(copy.deepcopy(actions))
        moment = play.step(actions)
        found.outcomes.append(outcome(play, moment))
    return found


def repeat(play: Play, recording: Recording, until: float, change: Change | None = None) -> Difference | None:
    """Play a recording again, as far as time allows; where it first tells something else."""
    moment = play.reset(recording.seed)
    for step, expected in enumerate(recording.outcomes):
        if found := first_difference(outcome(play, moment), expected, step):
            return found
        if step < len(recording.actions):
            if time.perf_counter() > until:
                break
            actions = copy.deepcopy(recording.actions[step])
            if set(actions) != set(play.deciding()):
                return Difference(step, "turn", next(iter(actions)))
            moment = play.step(actions if change is None else change(play, moment, actions))
    return None


def first_difference(found: Outcome, expected: Outcome, step: int) -> Difference | None:
    """What two moments tell apart, if anything; observations before rewards."""
    for key in [*expected, *found]:
        if found.get(key) != expected.get(key):
            return Difference(step, *key)
    return None


def share_of(until: float, part: int) -> float:
    """The time at which one of `part` parts of what is left until then is over."""
    now = time.perf_counter()
    return now + (until - now) / part
