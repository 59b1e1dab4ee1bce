"""The loop: collect, learn, log, evaluate, save; and everything that a checkpoint must hold of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch

from marl_stable import distributed
from marl_stable.acting import by_agent
from marl_stable.agents.base import DRAWS, Agent, Stats
from marl_stable.config import RunConfig
from marl_stable.defence import keep_snapshot, watch
from marl_stable.envs.base import BatchedEnv
from marl_stable.episodes import EpisodeStatistics
from marl_stable.evaluation import Episodes, play_unless
from marl_stable.monitor.detectors import Incident, RepeatedAction
from marl_stable.monitor.guard import Guard
from marl_stable.monitor.table import Host
from marl_stable.rewards import team_mean
from marl_stable.terms import TermAccount
from marl_stable.types import EnvironmentFailure, PerGroup, Step
from marl_stable.validation import Mended, Validation
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
GAE_LAMBDA = 0.95  # by which rewards are taken apart where the algorithm has none
OWN = ("envs", "episodes", "validation", "terms")  # of the state of several processes, what is each one's own
COUNTERS = ("steps", "iteration", "seconds", "evaluation_due", "checkpoint_due")


class Observer(Protocol):
    """Who is told what happens; run/ writes it to files and to the terminal."""

    def logged(self, steps: int, row: dict[str, float], found: Host, counts: dict[str, list[float]]) -> None:
        """An iteration's figures, the parts that they were made of, and now and then the counts of actions."""

    def evaluated(self, training: Training, episodes: Episodes) -> None:
        """Greedy episodes were played; their figures complete the last row."""

    def happened(self, incident: Incident) -> None:
        """The monitor saw something."""

    def save(self, training: Training) -> None:
        """A checkpoint is due."""

    def keep_policy(self, training: Training) -> None:
        """The policy is the best so far, or the latest where teams compete."""


@dataclass
class Training:
    """One run under way. What changes while it runs is in `state_dict`."""

    config: RunConfig
    agent: Agent
    envs: BatchedEnv
    eval_env: BatchedEnv
    obs: PerGroup
    steps: int = 0
    iteration: int = 0
    seconds: float = 0.0
    returns: list[tuple[int, float]] = field(default_factory=list)  # (steps, evaluation return)
    random_return: float | None = None  # of random play, where measured
    evaluation_due: bool = False
    checkpoint_due: bool = False

    def __post_init__(self) -> None:
        self.episodes = EpisodeStatistics(self.envs)
        self.detector = RepeatedAction(self.envs.spec)
        self.greedy_detector = RepeatedAction(self.envs.spec)
        self.validation = Validation(self.envs, self.acts)
        self.terms = self._account()
        self.guard = self._guard()
        if self.watched:
            self.obs = self.validation.first(self.obs)

    def _guard(self) -> Guard:
        spec = self.envs.spec
        agents = {group.name: group.agents for group in spec.groups}
        random_return = self.random_return if len(spec.teams) == 1 else None  # what one team gains another loses
        return Guard(agents, random_return, repairs=self.config.stability == "repair")

    def _account(self) -> TermAccount | None:
        """Of rewards by term; None where there are none, or nothing is watched."""
        spec, algo = self.envs.spec, self.agent.config
        if not self.watched or not any(group.terms for group in spec.groups):
            return None
        shared = self.config.env.reward == "mean"
        return TermAccount(spec, shared, float(algo.gamma), getattr(algo, "gae_lambda", GAE_LAMBDA))

    @property
    def watched(self) -> bool:
        """Whether anything is monitored."""
        return self.config.stability != "off"

    @property
    def acts(self) -> bool:
        """Whether the guard does anything about what is seen."""
        return self.config.stability in ("guard", "repair")

    @property
    def iteration_steps(self) -> int:
        """Steps of an iteration, all copies together."""
        return self.agent.rollout_steps * self.envs.num_envs * distributed.world_size()

    def lesson(self, step: Step) -> Step:
        """What the agent is told of a step: its own reward or its team's mean, and what not to learn from."""
        if self.config.env.reward == "mean":
            step = team_mean(step, self.envs.spec, self.validation.unpaid)
        return self.validation.exclude(step)

    def advance(self, seconds: float) -> None:
        """Count an iteration, and note what its steps make due."""
        before, self.seconds = self.steps, seconds
        self.steps += self.iteration_steps
        self.iteration += 1
        self.evaluation_due = is_due(self.config.eval_every, before, self.steps)
        self.checkpoint_due = is_due(self.config.checkpoint_every, before, self.steps)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly."""
        return {name: getattr(self, name) for name in COUNTERS} | {
            "returns": [list(point) for point in self.returns],
            "agent": self.agent.state_dict(),
            "envs": self.envs.state_dict(),
            "episodes": self.episodes.state_dict(),
            "detector": self.detector.state_dict(),
            "greedy_detector": self.greedy_detector.state_dict(),
            "validation": self.validation.state_dict(),
            "guard": self.guard.state_dict(),
            "terms": self.terms.state_dict() if self.terms else {},
        }

    def own_state(self) -> dict[str, Any]:
        """Of `state_dict`, what each of several processes has for itself: all but what they learned and decided."""
        state = self.state_dict()
        agent = state["agent"] | {"learning": {"generator": state["agent"]["learning"]["generator"]}}
        return {name: state[name] for name in OWN} | {"agent": agent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._load_decided(state)
        self.agent.load_state_dict(state["agent"])
        self.validation.load_state_dict(state["validation"])
        if self.terms:
            self.terms.load_state_dict(state.get("terms", {}))
        self.obs = self.envs.load_state_dict(state["envs"])
        if self.watched:
            self.obs = self.validation.first(self.obs)
        self.episodes.load_state_dict(state["episodes"])

    def take_over(self, state: dict[str, Any]) -> None:
        """Go on with what more or fewer processes had learned where `state_dict` was taken, in new episodes."""
        self._load_decided(state)
        seed = distributed.own_seed(self.config.seed) + self.steps  # no episode and no draw of the beginning once more
        self.agent.load_policy_state(state["agent"]["learning"])
        self.agent.generator.manual_seed(seed + DRAWS)
        self.obs = self.envs.reset(seed)
        if self.watched:
            self.obs = self.validation.first(self.obs)

    def _load_decided(self, state: dict[str, Any]) -> None:
        """What is the same in all processes, but for what they have learned."""
        for name in COUNTERS:
            setattr(self, name, state[name])
        self.returns = [(steps, value) for steps, value in state["returns"]]
        self.guard.load_state_dict(state["guard"])
        self.detector.load_state_dict(state["detector"])
        self.greedy_detector.load_state_dict(state["greedy_detector"])


def with_own(state: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """The `state_dict` of another process, from that of the first and its own state."""
    agent = state["agent"] | own["agent"] | {"learning": state["agent"]["learning"] | own["agent"]["learning"]}
    return state | own | {"agent": agent}


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
    several_teams = len(run.envs.spec.teams) > 1
    known = [point for _, point in run.returns if math.isfinite(point)]
    best = several_teams or (math.isfinite(value) and value > max(known, default=-math.inf))
    run.returns.append((run.steps, value))
    observer.evaluated(run, episodes)
    if best or len(run.returns) == 1:
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


def is_due(every: int, before: int, now: int) -> bool:
    """Whether a multiple of `every` lies in (before, now]; never for 0."""
    return every > 0 and before // every != now // every
