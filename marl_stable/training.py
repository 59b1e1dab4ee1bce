"""One run under way: its parts, its counts, and everything that a checkpoint must hold of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from marl_stable import distributed
from marl_stable.agents.base import DRAWS, Agent
from marl_stable.config import RunConfig
from marl_stable.envs.base import BatchedEnv
from marl_stable.episodes import EpisodeStatistics
from marl_stable.evaluation import Episodes
from marl_stable.monitor.detectors import Incident, RepeatedAction
from marl_stable.monitor.guard import Guard
from marl_stable.monitor.table import Host
from marl_stable.rewards import team_mean
from marl_stable.terms import TermAccount
from marl_stable.types import PerGroup, Step
from marl_stable.validation import Validation

GAE_LAMBDA = 0.95  # by which rewards are taken apart where the algorithm has none
OWN = ("envs", "episodes", "validation", "terms")  # of the state of several processes, what is each one's own
COUNTERS = ("steps", "iteration", "seconds", "evaluation_due", "checkpoint_due")
PARTS = ("returns", "agent", "envs", "episodes", "detector", "greedy_detector", "validation", "guard")
SAVED = (*COUNTERS, *PARTS)  # what nothing goes on without


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
    best: float | None = None  # the evaluation return that `best.pt` was kept for; None without one
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
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Tell everybody of the episodes that the environment could not repeat: what follows belongs to new ones."""
        copies = torch.zeros_like(self.episodes.length, dtype=torch.bool)
        copies[list(self.envs.replay_differs)] = True
        copies &= self.episodes.length > 0  # an episode without a step leaves nothing behind
        if copies.any():
            self.agent.begin_anew(copies, self.obs)
            self.episodes.begin_anew(copies)
            if self.terms:
                self.terms.begin_anew(copies)

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


def is_due(every: int, before: int, now: int) -> bool:
    """Whether a multiple of `every` lies in (before, now]; never for 0."""
    return every > 0 and before // every != now // every
