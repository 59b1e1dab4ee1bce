"""What all faults of an environment have in common: one thing of it is wrong, from some step of every copy on.

A fault wraps the batched environment below it, so a list of faults is a stack of wrappers. Whatever it draws comes from
a generator of its own, which `reset` seeds and the state holds.

Shapes: E copies, A agents of a group, O observation features, F of them measured (all but those that say which actions
are legal).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from marl_stable.acting import random_action
from marl_stable.conversion import require, unknown
from marl_stable.envs.base import BatchedEnv
from marl_stable.types import EnvSpec, Group, PerGroup, Step, UsageError, legal_features

STREAM = 1_000_033  # added to the seed at every level, so that no generator repeats another's numbers
COMMON = ("kind", "dose", "from", "agents")  # what every fault can be given
HIGH = 0.99  # quantile of rewards that counts as rare


class Clean(NamedTuple):
    """What is below a fault, under random actions; of every group."""

    obs_std: PerGroup  # (O,)
    reward_mean: PerGroup  # (A,)
    reward_std: PerGroup  # (A,)
    reward_high: PerGroup  # (A,): the 99% quantile


class Distortion:
    """A batched environment with one fault: {"kind": ..., "dose": x, "from": step, "agents": [...], its own options}.

    `dose` says how bad it is, `from` the step of a copy since the run began at which it begins, `agents` whom it hits
    (unset: all). A subclass says what is wrong by some of `declared`, `acted`, `outcome` and `observed`.
    """

    DOSE: ClassVar[float] = 1.0
    OPTIONS: ClassVar[dict[str, Any]] = {}
    MEMORY: ClassVar[dict[str, torch.dtype]] = {}  # what is remembered within an episode, (E, A) of each group
    REWARD: ClassVar[bool] = False  # falsifies the reward alone, so that scoring leaves it out
    DECLARED: ClassVar[bool] = False  # changes the spaces, so it can only hold from the beginning

    def __init__(self, env: BatchedEnv, fault: Mapping[str, Any], measure: Callable[[], Clean]) -> None:
        """`measure` plays what is below at random. UsageError for an unknown option or value."""
        self.env, self.device, self.num_envs = env, env.device, env.num_envs
        self.replay_differs: tuple[int, ...] = ()
        self.kind = str(fault["kind"])
        self.options = self.OPTIONS | {
            key: fault[key] for key in fault if key not in ("kind", "dose", "from", "agents")
        }
        for key in self.options.keys() - self.OPTIONS.keys():
            raise unknown(f"option of the fault {self.kind}:", key, [*COMMON, *self.OPTIONS])
        self.dose, self.onset = float(fault.get("dose", self.DOSE)), int(fault.get("from", 0))
        late = self.DECLARED and self.onset > 0
        require(not late, f"from of {self.kind}", self.onset, "0, for it changes what the environment declares")
        self.chosen = self._chosen(fault.get("agents"))  # (A,) bool: whom it hits
        self._measure = measure
        self.depth: int = getattr(env, "depth", 0) + 1
        self.generator = torch.Generator(self.device)
        self.began_at = 0  # steps of a copy that were played before the first reset
        self.steps = 0
        self.obs: PerGroup = {}
        self.memory = self._blank()
        self.spec = self.declared(env.spec)

    # ---- what a subclass may change

    def declared(self, spec: EnvSpec) -> EnvSpec:
        """What the environment says of itself."""
        return spec

    def acted(self, action: PerGroup) -> PerGroup:
        """What becomes of actions on their way down."""
        return action

    def outcome(self, step: Step, action: PerGroup) -> Step:
        """What becomes of rewards and flags; `action` as it came from above, for the observations `self.obs`."""
        return step

    def observed(self, obs: PerGroup) -> PerGroup:
        """What becomes of observations on their way up."""
        return obs

    # ---- a batched environment

    def reset(self, seed: int) -> PerGroup:
        """Begin the first episode of every copy."""
        self.generator.manual_seed(seed + STREAM * self.depth)
        self.steps, self.memory = self.began_at, self._blank()
        self.obs = self._seen(self.env.reset(seed))
        return self.obs

    def step(self, action: PerGroup) -> Step:
        """Advance every copy by one step."""
        if self.steps >= self.onset:
            step = self.outcome(self.env.step(self.acted(action)), action)
        else:
            step = self.env.step(action)
        self.steps += 1
        next_obs = obs = self._seen(step.next_obs)
        if step.next_obs is not step.obs:  # rows of running copies are the same, so they are distorted once
            self._forget(step.done)
            obs = _where(step.done, self._seen(step.obs), next_obs)
        self.obs = obs
        return step._replace(obs=obs, next_obs=next_obs)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly."""
        own = {name: getattr(self, name) for name in ("steps", "began_at", "obs")}
        memory = {key: dict(kept) for key, kept in self.memory.items()}
        return {"env": self.env.state_dict(), "generator": self.generator.get_state(), "memory": memory, **own}

    def load_state_dict(self, state: dict[str, Any]) -> PerGroup:
        """Go on where `state_dict` was taken."""
        below = self.env.load_state_dict(state["env"])
        self.steps, self.began_at = state["steps"], state["began_at"]
        self.generator.set_state(state["generator"].cpu())
        self.memory = {key: self._here(value) for key, value in state["memory"].items()}
        self.obs = self._here(state["obs"])
        self.replay_differs = self.env.replay_differs
        if self.replay_differs:
            anew = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
            anew[list(self.replay_differs)] = True
            self._forget(anew)
            self.obs = _where(anew, self._seen(below), self.obs)
        return self.obs

    def close(self) -> None:
        """Release what the copies hold."""
        self.env.close()

    # ---- tools for subclasses

    @cached_property
    def clean(self) -> Clean:
        """What is below, under random actions."""
        return self._measure()

    def rare(self, probability: float) -> Tensor:
        """`(E,)` true with `probability`, copy by copy."""
        return torch.rand(self.num_envs, generator=self.generator, device=self.device) < probability

    def normal(self, *shape: int) -> Tensor:
        """`shape` standard normal."""
        return torch.randn(shape, generator=self.generator, device=self.device)

    def repaid(self, step: Step, pay: Callable[[str, Tensor], Tensor]) -> Step:
        """`step` with rewards `(E, A)` as `pay(group, reward)` has them, for those whom the fault hits and who live."""
        rewards = {}
        for name, reward in step.reward.items():
            counts = self.chosen[name] if self.spec.turn_based else self.chosen[name] & step.alive[name]
            rewards[name] = torch.where(counts, pay(name, reward), reward)
        return step._replace(reward=rewards)

    def group(self, name: str) -> Group:
        """The group of this name, as the environment below has it."""
        return next(group for group in self.env.spec.groups if group.name == name)

    # ---- its own

    def _chosen(self, agents: list[str] | None) -> PerGroup:
        known = self.env.spec.agents
        for agent in agents or ():
            if agent not in known:
                raise unknown(f"agent of the fault {self.kind}:", agent, known)
        hit = set(known if agents is None else agents)
        groups = self.env.spec.groups
        return {g.name: torch.tensor([agent in hit for agent in g.agents], device=self.device) for g in groups}

    def _blank(self) -> dict[str, PerGroup]:
        groups = [(group.name, (self.num_envs, len(group.agents))) for group in self.env.spec.groups]
        return {
            key: {name: torch.zeros(shape, dtype=dtype, device=self.device) for name, shape in groups}
            for key, dtype in self.MEMORY.items()
        }

    def _forget(self, done: Tensor) -> None:
        over = done.unsqueeze(1)
        self.memory = {key: {n: x.masked_fill(over, 0) for n, x in kept.items()} for key, kept in self.memory.items()}

    def _seen(self, obs: PerGroup) -> PerGroup:
        return self.observed(obs) if self.steps >= self.onset or self.DECLARED else obs

    def _here(self, tensors: PerGroup) -> PerGroup:
        return {name: tensor.to(self.device) for name, tensor in tensors.items()}


def measured_at_random(env: BatchedEnv, steps: int) -> Clean:
    """Play `steps` steps of every copy of `env` with uniformly random legal actions, and describe what came of it."""
    draw = torch.Generator(env.device).manual_seed(0)
    obs = env.reset(0)
    seen: dict[str, list[Tensor]] = {name: [] for name in obs}
    paid: dict[str, list[Tensor]] = {name: [] for name in obs}
    for _ in range(steps):
        step = env.step({g.name: random_action(g, obs[g.name], draw) for g in env.spec.groups})
        obs = step.obs
        for name, reward in step.reward.items():
            seen[name].append(obs[name].flatten(0, 1))
            paid[name].append(reward)
    rewards = {name: torch.cat(values) for name, values in paid.items()}  # (N, A)
    return Clean(
        {name: torch.cat(values).std(0) for name, values in seen.items()},
        {name: reward.mean(0) for name, reward in rewards.items()},
        {name: reward.std(0) for name, reward in rewards.items()},
        {name: torch.quantile(reward, HIGH, dim=0) for name, reward in rewards.items()},
    )


def measured_features(group: Group) -> int:
    """F: features that are measured, without those that say which actions are legal."""
    return group.obs_size - legal_features(group)


def require_box(spec: EnvSpec, kind: str) -> None:
    """Refuse an environment where nobody has continuous actions."""
    if not any(hasattr(group.action, "low") for group in spec.groups):
        raise UsageError(f"the fault {kind} needs continuous actions, which {spec.id} has not; use another task.")


def _where(done: Tensor, new: PerGroup, old: PerGroup) -> PerGroup:
    rows = done.reshape(-1, 1, 1)
    return {name: torch.where(rows, new[name], old[name]) for name in old}
