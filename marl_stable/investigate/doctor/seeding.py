"""Whether a seed decides an episode: in any instance, beside any other, and whatever was played before."""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Mapping

import numpy as np

from marl_stable.investigate.doctor.comparing import Difference, first_difference, outcome, record, repeat, share_of
from marl_stable.investigate.doctor.findings import Notebook, short
from marl_stable.investigate.doctor.play import Moment, Play, PlayMaker
from marl_stable.investigate.doctor.watching import choose

STEPS = 60
HISTORIES = (1, 7, 33)  # steps that are played before; KAZ's leak shows after some histories only
SEEDS = (101, 202)
ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # of objects, in their texts
OWN_GENERATOR = "Draw all randomness from one generator of the environment's own, np.random.default_rng(seed) in reset."


def check_arguments(play: Play, notes: Notebook) -> None:
    """Whether reset takes what PettingZoo and Gymnasium hand it beside the seed."""
    try:
        parameters = inspect.signature(play.env.reset).parameters.values()
    except (TypeError, ValueError):  # nothing is known of its arguments
        return
    if not any(parameter.name == "options" or parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        what = "reset does not take the argument options, which others hand it together with seed."
        remedy = "Give reset the arguments seed=None and options=None."
        notes.note("unseeded", "warning", {"call": "reset"}, "options", what, remedy)


def seeded(make: PlayMaker, notes: Notebook, until: float) -> bool:
    """Two instances that take turns, by one seed and the same actions; whether they never differed."""
    for seed in SEEDS:
        if time.perf_counter() > until:
            break
        one, other = make(), make()
        try:
            found = _side_by_side(one, other, notes, seed, until)
            if found is not None:
                _tell_unseeded(make, notes, seed, found, until)
                return False
            _check_following(one, other, notes, seed)
        finally:
            one.close()
            other.close()
    return True


def leak_free(make: PlayMaker, notes: Notebook, until: float) -> bool:
    """Whether episodes of one seed are equal, whatever was played before."""
    fresh, used = make(), make()
    try:
        expected = record(fresh, SEEDS[0], STEPS, share_of(until, 4))
        for history in HISTORIES:
            if time.perf_counter() > until:
                break
            _play_some(used, history, until)
            if found := repeat(used, expected, until):
                what = (
                    f"After {history} steps of another episode, reset(seed={SEEDS[0]}) and the same actions lead to "
                    f"another {found.what} of {found.agent} in step {found.step} than in a new instance: something "
                    "survives reset. Exact resume is not promised."
                )
                remedy = "Set every attribute that step changes anew in reset."
                notes.note("reset_leak", "error", {"agent": found.agent}, found.step, what, remedy)
                return False
    finally:
        fresh.close()
        used.close()
    return True


def _side_by_side(one: Play, other: Play, notes: Notebook, seed: int, until: float) -> Difference | None:
    moment, twin = one.reset(seed), other.reset(seed)
    rng = np.random.default_rng(seed)
    for step in range(STEPS + 1):
        if found := first_difference(outcome(other, twin), outcome(one, moment), step):
            return found
        _compare_infos(moment, twin, notes, step)
        if moment.over or time.perf_counter() > until:
            break
        state = rng.bit_generator.state
        actions = choose(one, moment, rng)
        rng.bit_generator.state = state
        same = choose(other, twin, rng)
        moment, twin = one.step(actions), other.step(same)
    return None


def _compare_infos(moment: Moment, twin: Moment, notes: Notebook, step: int) -> None:
    """Infos are not learned from, so that it is no error where they alone differ."""
    if not (isinstance(moment.infos, Mapping) and isinstance(twin.infos, Mapping)):
        return
    for agent in (agent for agent in moment.infos if agent in twin.infos):
        one, other = (ADDRESS.sub("", repr(told.infos[agent])) for told in (moment, twin))
        if one != other:
            where = {"agent": agent, "part": "info"}
            told = f"{short(one)} and {short(other)}"
            what = f"Two instances with one seed and the same actions give {agent} different infos: {told}."
            notes.note("unseeded", "warning", where, step, what, OWN_GENERATOR)


def _tell_unseeded(make: PlayMaker, notes: Notebook, seed: int, found: Difference, until: float) -> None:
    where = {"agent": found.agent}
    moment = "in reset" if found.step == 0 else f"in step {found.step}"
    if _one_after_the_other(make, seed, until) is None:
        what = (
            f"Two instances with seed {seed} tell {found.agent} another {found.what} {moment} where they are stepped "
            "in turns, and the same where they are not: they share a global generator."
        )
    else:
        what = (
            f"Two instances with seed {seed} and the same actions tell {found.agent} another {found.what} {moment}. "
            "Exact resume is not promised."
        )
    notes.note("unseeded", "error", where, found.step, what, OWN_GENERATOR)


def _one_after_the_other(make: PlayMaker, seed: int, until: float) -> Difference | None:
    one, other = make(), make()
    try:
        recording = record(one, seed, STEPS, share_of(until, 2))
        return repeat(other, recording, until)
    finally:
        one.close()
        other.close()


def _check_following(one: Play, other: Play, notes: Notebook, seed: int) -> None:
    """The episode after a seeded one, begun without a seed."""
    one.reset(seed)
    other.reset(seed)
    found = first_difference(outcome(other, other.reset(None)), outcome(one, one.reset(None)), 0)
    if found is not None:
        what = f"After reset(seed={seed}), reset() without a seed begins another episode in another instance."
        remedy = "Make a generator only where a seed is given, and go on with it where none is."
        notes.note("unseeded", "warning", {"agent": found.agent, "call": "reset"}, 0, what, remedy)


def _play_some(play: Play, steps: int, until: float) -> None:
    rng = np.random.default_rng(steps)
    moment = play.reset(steps)
    for _ in range(steps):
        if moment.over:
            moment = play.reset(steps)
        if time.perf_counter() > until:
            return
        moment = play.step(choose(play, moment, rng))
