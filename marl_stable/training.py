"""The loop: collect, learn, log, evaluate, save; and everything that a checkpoint must hold of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch

from marl_stable.agents.mappo import MAPPO, Stats
from marl_stable.config import RunConfig
from marl_stable.envs.base import BatchedEnv
from marl_stable.evaluation import Episodes, play_unless
from marl_stable.monitor.detectors import Incident, RepeatedAction
from marl_stable.types import PerGroup, Step

Status = Literal["finished", "interrupted"]
HISTOGRAM_EVERY = 10  # iterations; counts per agent and dimension cost more to write than all scalars together
EVAL_SEED = 1_000_003  # added to the run's: evaluation plays episodes of its own, the same at every evaluation
WATCHED_CALLS = 256  # of an evaluation, in which greedy actions are kept to see whether they repeat
COUNTERS = ("steps", "iteration", "seconds", "evaluation_due", "checkpoint_due")


class Observer(Protocol):
    """Who is told what happens; run.py writes it to files and to the terminal."""

    def logged(self, steps: int, row: dict[str, float], histograms: dict[str, list[int]]) -> None:
        """An iteration's figures, and now and then the counts of actions."""

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
    agent: MAPPO
    envs: BatchedEnv
    eval_env: BatchedEnv
    obs: PerGroup
    steps: int = 0
    iteration: int = 0
    seconds: float = 0.0
    returns: list[tuple[int, float]] = field(default_factory=list)  # (steps, evaluation return)
    evaluation_due: bool = False
    checkpoint_due: bool = False

    def __post_init__(self) -> None:
        self.episodes = EpisodeStatistics(self.envs)
        self.detector = RepeatedAction(self.envs.spec)
        self.greedy_detector = RepeatedAction(self.envs.spec)

    @property
    def watched(self) -> bool:
        """Whether anything is monitored."""
        return self.config.stability != "off"

    def advance(self, seconds: float) -> None:
        """Count an iteration, and note what its steps make due."""
        before, self.seconds = self.steps, seconds
        self.steps += self.agent.rollout_steps * self.envs.num_envs
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
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        for name in COUNTERS:
            setattr(self, name, state[name])
        self.returns = [(steps, value) for steps, value in state["returns"]]
        self.agent.load_state_dict(state["agent"])
        self.obs = self.envs.load_state_dict(state["envs"])
        self.episodes.load_state_dict(state["episodes"])
        self.detector.load_state_dict(state["detector"])
        self.greedy_detector.load_state_dict(state["greedy_detector"])


def train(run: Training, observer: Observer, interrupted: Callable[[], bool]) -> Status:
    """Train to `total_steps`, or until `interrupted` says so; either way the state can be saved and gone on with."""
    started = time.perf_counter() - run.seconds
    while not interrupted():
        if run.evaluation_due and not evaluate(run, observer, interrupted):
            break
        if run.checkpoint_due:
            run.checkpoint_due = False
            observer.save(run)
        if run.steps >= run.config.total_steps:
            return "finished"
        if not collect(run, interrupted):
            break
        stats = run.agent.update(run.steps / run.config.total_steps, interrupted)
        if stats is None:
            break
        run.advance(time.perf_counter() - started)
        observer.logged(run.steps, figures(run, stats, observer), histograms(run))
    return "interrupted"


def collect(run: Training, interrupted: Callable[[], bool]) -> bool:
    """Act until the batch is full; False where interrupted before that."""
    while not run.agent.ready():
        if interrupted():
            return False
        step = run.envs.step(run.agent.act(run.obs))
        run.agent.observe(step)
        run.episodes.add(step)
        run.obs = step.obs
    return True


def figures(run: Training, stats: Stats, observer: Observer) -> dict[str, float]:
    """The iteration's row: one transfer from the device, then plain numbers. Incidents are told on the way."""
    signals = run.agent.action_signals() if run.watched else {}
    found = to_host({**run.episodes.take(), **stats, **signals})
    incidents = []
    if run.watched:
        guarded = run.config.stability == "guard"
        incidents = non_finite_updates(run, found, "skipped_update" if guarded else "none")
        incidents += repeated_actions(run.detector, run, found)
    for incident in incidents:
        observer.happened(incident)
    row = {"seconds": run.seconds}
    if run.watched:
        shares = [_joined(found[f"non_finite/{network}"]) for network in NETWORKS]
        row["stability/non_finite_share"] = _mean([share for rows in shares for share in rows])
    for tag, groups in found.items():
        if tag in NOT_LOGGED:
            continue
        row[tag] = _mean(_joined(groups))  # over agents, where a figure is one per agent
        if len(groups) > 1:
            row |= {f"{tag}/{name}": _mean(values) for name, values in groups.items()}
    return row


def evaluate(run: Training, observer: Observer, interrupted: Callable[[], bool]) -> bool:
    """Greedy episodes on the evaluation environment; the same ones every time, from generators of their own.

    False where interrupted: then the evaluation is still due.
    """
    agent, config = run.agent, run.config
    seen: list[PerGroup] = []

    def act(obs: PerGroup) -> PerGroup:
        raw = {name: policy.mode() for name, policy in agent.policy(obs).items()}
        if run.watched and len(seen) < WATCHED_CALLS:
            seen.append(raw)
        return agent.to_env(raw)

    episodes = play_unless(interrupted, run.eval_env, act, config.eval_episodes, config.seed + EVAL_SEED)
    if episodes is None:
        return False
    run.evaluation_due = False
    value = float(episodes.mean_returns().mean())
    several_teams = len(run.envs.spec.teams) > 1
    best = several_teams or value > max((point for _, point in run.returns), default=-math.inf)
    run.returns.append((run.steps, value))
    observer.evaluated(run, episodes)
    if best or len(run.returns) == 1:
        observer.keep_policy(run)
    if seen:
        stacked = {name: torch.stack([raw[name] for raw in seen]) for name in seen[0]}
        for incident in repeated_actions(run.greedy_detector, run, to_host(agent.sameness(stacked))):
            observer.happened(incident)
    return True


def histograms(run: Training) -> dict[str, list[int]]:
    """Counts of executed actions, `agent/dimension -> bins`, every tenth iteration."""
    if not run.watched or run.iteration % HISTOGRAM_EVERY != 1:
        return {}
    return {place: counts.tolist() for place, counts in run.agent.action_counts().items()}


def non_finite_updates(run: Training, found: Host, action: str) -> list[Incident]:
    """One incident per network (and agent, where agents have their own) whose gradients were not finite."""
    incidents = []
    for network in NETWORKS:
        for group in run.envs.spec.groups:
            for row, share in enumerate(rows := found[f"non_finite/{network}"][group.name]):
                if share > 0:
                    place = {"agent": group.agents[row]} if len(rows) > 1 else {"group": group.name}
                    where = {"network": network, **place}
                    incidents.append(Incident(run.steps, "non_finite_gradient", where, share, 0.0, action, {}))
    return incidents


def repeated_actions(detector: RepeatedAction, run: Training, found: Host) -> list[Incident]:
    """Hand each agent's numbers to the detector."""
    names = [agent for group in run.envs.spec.groups for agent in group.agents]
    by_agent = {tag: _joined(groups) for tag, groups in found.items() if tag in EVIDENCE or tag == "sameness"}
    evidence = {
        agent: {tag.removeprefix("actions/"): by_agent[tag][i] for tag in EVIDENCE if tag in by_agent}
        for i, agent in enumerate(names)
    }
    return detector(run.steps, dict(zip(names, by_agent["sameness"], strict=True)), evidence)


NETWORKS = ("actor", "critic")
NOT_LOGGED = ("non_finite/actor", "non_finite/critic", "sameness")  # they become incidents
EVIDENCE = ("actions/saturation", "actions/repeat_ratio", "actions/responsiveness")
Host = dict[str, dict[str, list[float]]]
"""tag -> group -> numbers."""


def to_host(stats: Stats) -> Host:
    """All tensors in one transfer."""
    places = [(tag, group) for tag, groups in stats.items() for group in groups]
    tensors = [stats[tag][group].detach().to(torch.float64).reshape(-1) for tag, group in places]
    numbers = torch.cat(tensors).tolist()
    found: Host = {}
    for (tag, group), tensor in zip(places, tensors, strict=True):
        found.setdefault(tag, {})[group] = numbers[: len(tensor)]
        numbers = numbers[len(tensor) :]
    return found


class EpisodeStatistics:
    """Returns, lengths and rewards of training episodes, summed on the device between logged iterations.

    Shapes: E copies, A agents of a group.
    """

    def __init__(self, envs: BatchedEnv) -> None:
        copies, device = envs.num_envs, envs.device
        self.groups = [(g.name, len(g.agents)) for g in envs.spec.groups]
        self.running = {name: torch.zeros(copies, a, device=device) for name, a in self.groups}
        self.length = torch.zeros(copies, device=device)
        self._clear()

    def _clear(self) -> None:
        device = self.length.device
        self.done = torch.zeros((), device=device)
        self.lengths = torch.zeros((), device=device)
        self.returns = {name: torch.zeros(a, device=device) for name, a in self.groups}
        self.rewards = {name: torch.zeros(3, device=device) for name, _ in self.groups}  # count, sum, sum of squares

    def add(self, step: Step) -> None:
        """Take in one step of every copy."""
        self.length += 1
        for name, _ in self.groups:
            reward = step.reward[name]
            self.running[name] += reward
            counted = step.alive[name].sum()
            self.rewards[name] += torch.stack([counted, reward.sum(), reward.square().sum()])
        if step.next_obs is step.obs:  # nobody's episode ended
            return
        done = step.done.to(self.length.dtype)
        self.done += done.sum()
        self.lengths += (self.length * done).sum()
        self.length *= 1 - done
        for name, _ in self.groups:
            self.returns[name] += (self.running[name] * done.unsqueeze(1)).sum(0)
            self.running[name].masked_fill_(step.done.unsqueeze(1), 0.0)

    def take(self) -> Stats:
        """Means since the last call (NaN where no episode ended), still on the device."""
        everyone = {name: self.returns[name] / self.done for name, _ in self.groups}
        means = {name: x[1] / x[0] for name, x in self.rewards.items()}
        spread = {name: (x[2] / x[0] - means[name].square()).clamp_min(0).sqrt() for name, x in self.rewards.items()}
        length = dict.fromkeys(everyone, self.lengths / self.done)
        self._clear()
        return {
            "charts/return": everyone,
            "charts/episode_length": length,
            "rewards/mean": means,
            "rewards/std": spread,
        }

    def state_dict(self) -> dict[str, Any]:
        """All sums."""
        return {name: getattr(self, name) for name in ("running", "length", "done", "lengths", "returns", "rewards")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        for key, value in state.items():
            setattr(self, key, value)


def is_due(every: int, before: int, now: int) -> bool:
    """Whether a multiple of `every` lies in (before, now]; never for 0."""
    return every > 0 and before // every != now // every


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _joined(groups: dict[str, list[float]]) -> list[float]:
    return [value for values in groups.values() for value in values]
