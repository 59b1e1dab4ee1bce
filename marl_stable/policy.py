"""A trained policy by itself: PettingZoo dictionaries in, PettingZoo dictionaries out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marl_stable.agents import algorithm
from marl_stable.agents.config import default_config
from marl_stable.agents.mappo import MAPPO
from marl_stable.checkpoint import Damaged, load
from marl_stable.config import override
from marl_stable.networks.heads import Categorical, Distribution
from marl_stable.types import Box, Discrete, EnvSpec, Group, PerGroup, UsageError, spec_from_dict


class Loaded(NamedTuple):
    """A checkpoint's agent, ready to act."""

    agent: MAPPO
    spec: EnvSpec
    steps: int
    checkpoint: str  # "best" or "last"


def load_agent(run: Path, checkpoint: str | None = None, device: torch.device | None = None) -> Loaded:
    """The agent of a run's best checkpoint, else its last; `checkpoint` ("best" or "last") insists on one.

    Raises UsageError where `run` has none that can be read.
    """
    wanted = (checkpoint,) if checkpoint else ("best", "last")
    reasons = []
    for name in wanted:
        try:
            state = load(run / "checkpoints" / f"{name}.pt", device or torch.device("cpu"))
        except Damaged as error:
            reasons.append(str(error))
            continue
        spec = spec_from_dict(state["spec"])
        config = replace(
            override(default_config(state["algo"]["name"]), state["algo"]), batch_size=1, num_minibatches=1
        )
        agent = algorithm(config.name)(spec, config, 1, device or torch.device("cpu"), seed=0)
        agent.load_policy_state(state["policy"] if "policy" in state else state["training"]["agent"]["learning"])
        return Loaded(agent, spec, state["steps"], name)
    raise UsageError(f"{str(run)!r} has no checkpoint to load: {'; '.join(reasons)}. Is it a run folder?")


class Policy:
    """Acts for every agent of the environment that it was trained on."""

    def __init__(self, loaded: Loaded, deterministic: bool = True, seed: int = 0) -> None:
        self.spec, self.steps, self.deterministic = loaded.spec, loaded.steps, deterministic
        self._agent = loaded.agent
        self._generator = torch.Generator(loaded.agent.generator.device).manual_seed(seed)

    def reset(self) -> None:
        """Begin a new episode. Policies without memory have nothing to forget; call it all the same."""

    def __call__(
        self, observations: Mapping[str, Any], action_masks: Mapping[str, NDArray[Any]] | None = None
    ) -> dict[str, Any]:
        """Actions for the agents in `observations`, in the shape and dtype of their spaces.

        `action_masks`: for discrete agents, 1 where an action is legal. Raises UsageError for an unknown agent or an
        observation of another size than in training.
        """
        known = set(self.spec.agents)
        if strangers := [agent for agent in observations if agent not in known]:
            raise UsageError(
                f"agent {strangers[0]!r} is not of this policy; it acts for {', '.join(self.spec.agents)}."
            )
        device = self._generator.device
        obs = {g.name: torch.from_numpy(_stack(g, observations)).to(device).unsqueeze(0) for g in self.spec.groups}
        raw: PerGroup = {}
        for name, policy in self._agent.policy(obs).items():
            masked = self._masked(name, policy, action_masks or {})
            raw[name] = masked.mode() if self.deterministic else masked.sample(self._generator)
        actions = self._agent.to_env(raw)
        return {
            agent: _in_space(g, actions[g.name][0, i])
            for g in self.spec.groups
            for i, agent in enumerate(g.agents)
            if agent in observations
        }

    def _masked(self, name: str, policy: Distribution, masks: Mapping[str, NDArray[Any]]) -> Distribution:
        group = next(g for g in self.spec.groups if g.name == name)
        if not isinstance(policy, Categorical) or not any(agent in masks for agent in group.agents):
            return policy
        everything = np.ones(policy.logits.shape[-1])
        rows = [np.asarray(masks.get(agent, everything)) for agent in group.agents]
        if wrong := [row.shape for row in rows if row.shape != everything.shape]:
            wanted = f"one number for each of the {len(everything)} actions"
            raise UsageError(f"an action mask of group {name!r} has shape {wrong[0]}; it must have {wanted}.")
        legal = torch.from_numpy(np.stack(rows)) > 0
        if not bool(legal.any(-1).all()):
            raise UsageError(f"an action mask of group {name!r} allows no action; allow one or more.")
        return Categorical(policy.logits.masked_fill(~legal.to(policy.logits.device), -torch.inf))


def load_policy(path: str | Path, deterministic: bool = True, checkpoint: str | None = None, seed: int = 0) -> Policy:
    """The policy of a run folder: `actions = policy(observations)`. Needs no environment."""
    return Policy(load_agent(Path(path), checkpoint), deterministic, seed)


def _stack(group: Group, observations: Mapping[str, Any]) -> NDArray[np.float32]:
    """`(A, O)`; zeros for agents that are not there."""
    rows = np.zeros((len(group.agents), group.obs_size), np.float32)
    for i, agent in enumerate(group.agents):
        if agent not in observations:
            continue
        value = np.asarray(observations[agent])
        if value.ndim == 0 and np.issubdtype(value.dtype, np.integer) and group.obs_size > 1:
            # a category, seen one-hot in training
            if not 0 <= int(value) < group.obs_size:
                wanted = f"a category from 0 to {group.obs_size - 1}"
                raise UsageError(f"the observation of {agent} is {value}; in training it was {wanted}.")
            rows[i, int(value)] = 1.0
            continue
        if value.size != group.obs_size:
            raise UsageError(
                f"the observation of {agent} has {value.size} numbers; in training it had {group.obs_size}."
            )
        rows[i] = value.reshape(-1)
    return rows


def _in_space(group: Group, action: Tensor) -> Any:
    kind = group.action
    if isinstance(kind, Discrete):
        return np.int64(int(action) + kind.start)
    assert isinstance(kind, Box)
    return action.cpu().numpy().astype(np.float32).reshape(kind.shape or (len(kind.low),))
