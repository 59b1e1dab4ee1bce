"""The loop: collect, learn, log, evaluate, save."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Literal

import torch

from marl_stable import distributed
from marl_stable.acting import by_agent
from marl_stable.agents.base import Stats
from marl_stable.defence import keep_snapshot, watch
from marl_stable.evaluation import play_unless
from marl_stable.training import Observer, Training
from marl_stable.types import EnvironmentFailure, PerGroup
from marl_stable.validation import Mended
from marl_stable.watching import (
    non_finite_share,
    of_all,
    repeated_actions,
    row_of,
    to_host,
    worker_failures,
)

Status = Literal["finished", "interrupted"]
HISTOGRAM_EVERY = 10  # iterations; counts per agent and dimension cost more to write than all scalars together
EVAL_SEED = 1_000_003  # added to the run's: evaluation plays episodes of its own, the same at every evaluation
WATCHED_CALLS = 256  # of an evaluation, in which greedy actions are kept to see whether they repeat


def train(run: Training, observer: Observer, interrupted: Callable[[], bool]) -> Status:
    """Train to `total_steps`, or until `interrupted` says so; either way the state can be saved and gone on with.

    Several processes stop together, between iterations.
    """
    within = interrupted if distributed.world_size() == 1 else _never
    started = time.perf_counter() - run.seconds
    if run.acts:
        keep_snapshot(run)
    while not distributed.anyone(interrupted()):
        if run.evaluation_due and not evaluate(run, observer, interrupted):
            break
        if run.checkpoint_due:
            run.checkpoint_due = False
            observer.save(run)
        if run.steps >= run.config.total_steps:
            return "finished"
        began = time.perf_counter()
        with distributed.together(EnvironmentFailure):
            if not collect(run, observer, within):
                break
        stats = run.agent.update(run.steps / run.config.total_steps, within)
        if stats is None:
            break
        now = time.perf_counter()
        run.advance(now - started)
        log(run, stats, now - began, observer)
    return "interrupted"


def collect(run: Training, observer: Observer, interrupted: Callable[[], bool]) -> bool:
    """Act until the batch is full; False where interrupted before that."""
    while not run.agent.ready():
        if interrupted():
            return False
        step = run.envs.step(run.agent.act(run.obs))
        report_failures(run, observer)
        if run.watched:
            step = run.validation.check(step)
        lesson = run.lesson(step)
        run.agent.observe(lesson)
        run.episodes.add(step)
        if run.terms:
            run.terms.add(lesson)
        run.obs = step.obs
    return True


def log(run: Training, stats: Stats, seconds: float, observer: Observer) -> None:
    """Hand on the figures of an iteration that took `seconds`, and let monitor and guard make of them what they do.

    Raises Stopped where the guard ends the run.
    """
    figures = {**run.episodes.take(), **stats}
    if run.watched:
        probe = run.iteration % run.agent.probe_every == 1 % run.agent.probe_every
        figures |= run.agent.signals(probe) | run.validation.take()
    if run.terms:
        figures |= run.terms.take()
    found = of_all(to_host(figures))
    speed = run.iteration_steps / seconds
    row = {"seconds": run.seconds, "charts/steps_per_second": speed} | row_of(found)
    counts: dict[str, list[float]] = {}
    if run.watched:
        row["stability/non_finite_share"] = non_finite_share(found)
        if run.iteration % HISTOGRAM_EVERY == 1:
            bins = of_all(to_host({"counts": run.agent.action_counts()}))["counts"]
            counts = {place: (distributed.world_size() * values).tolist() for place, values in bins.items()}
    observer.logged(run.steps, row, found if run.watched else {}, counts)
    if run.watched:
        watch(run, found, observer)


def evaluate(run: Training, observer: Observer, interrupted: Callable[[], bool]) -> bool:
    """Greedy episodes on the evaluation environment; the same ones every time, from generators of their own.

    Of several processes the first plays them. False where interrupted: then the evaluation is still due.
    """
    with distributed.together(EnvironmentFailure), distributed.alone():
        done = distributed.leads() and _evaluate(run, observer, interrupted)
    done, run.returns = distributed.told((done, run.returns))
    run.evaluation_due = run.evaluation_due and not done
    return done


def _evaluate(run: Training, observer: Observer, interrupted: Callable[[], bool]) -> bool:
    agent, config = run.agent, run.config
    seen: list[PerGroup] = []

    def look(raw: PerGroup) -> None:
        if run.watched and len(seen) < WATCHED_CALLS:
            seen.append(raw)

    act = by_agent(agent, look=look)
    mended = Mended(act) if run.acts else None  # else an observation that is not a number makes actions that are none
    episodes = play_unless(interrupted, run.eval_env, mended or act, config.eval_episodes, config.seed + EVAL_SEED)
    report_failures(run, observer)
    for incident in mended.incidents(run.steps, agent.spec) if mended else []:
        observer.happened(incident)
    if episodes is None:
        return False
    value = float(episodes.mean_returns().mean())
    run.returns.append((run.steps, value))
    observer.evaluated(run, episodes)
    several_teams = len(run.envs.spec.teams) > 1
    worth = value if math.isfinite(value) else -math.inf
    if several_teams or run.best is None or worth > run.best:
        run.best = worth
        observer.keep_policy(run)
    if seen:
        stacked = {name: torch.stack([raw[name] for raw in seen]) for name in seen[0]}
        found = to_host(agent.sameness(stacked))
        for incident in repeated_actions(run.greedy_detector, run.steps, agent.spec, found):
            observer.happened(incident)
    return True


def _never() -> bool:
    return False


def report_failures(run: Training, observer: Observer) -> None:
    """Hand on what failed in workers; the episodes it cost have been given up already."""
    for env in (run.envs, run.eval_env):
        for incident in worker_failures(run.steps, env):
            observer.happened(incident)
