"""A trained policy by itself: PettingZoo dictionaries in, PettingZoo dictionaries out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from marl_stable.agents import algorithm
from marl_stable.agents.base import Agent
from marl_stable.checkpoint import Damaged, load_run, reading
from marl_stable.envs.decoding import action_decoder
from marl_stable.networks.heads import Answer, Categorical
from marl_stable.types import EnvSpec, Group, MultiDiscrete, PerGroup, UsageError, legal_features


class Loaded(NamedTuple):
    """A checkpoint's agent, ready to act."""

    agent: Agent
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
            return _loaded(run / "checkpoints" / f"{name}.pt", name, device or torch.device("cpu"))
        except Damaged as error:
            reasons.append(str(error))
    raise UsageError(f"{str(run)!r} has no checkpoint to load: {'; '.join(reasons)}. Is it a run folder?")


def _loaded(path: Path, name: str, device: torch.device) -> Loaded:
    state, steps, spec, algo = load_run(path, device)
    agent = algorithm(algo.name)(spec, algo.to_act(), 1, device, seed=0)
    with reading(path):
        agent.load_policy_state(state["policy"] if "policy" in state else state["training"]["agent"]["learning"])
    return Loaded(agent, spec, steps, name)


class Policy:
    """Acts for every agent of the environment that it was trained on."""

    def __init__(self, loaded: Loaded, deterministic: bool = True, seed: int = 0) -> None:
        self.spec, self.steps, self.deterministic = loaded.spec, loaded.steps, deterministic
        self._agent, self._player = loaded.agent, loaded.agent.player()
        self._generator = torch.Generator(loaded.agent.generator.device).manual_seed(seed)
        self._decoders = {g.name: action_decoder(g.action) for g in loaded.spec.groups}

    def reset(self) -> None:
        """Begin a new episode: forget the last one. Policies without memory have none; call it all the same."""
        self._player = self._agent.player()

    def __call__(
        self, observations: Mapping[str, Any], action_masks: Mapping[str, NDArray[Any] | None] | None = None
    ) -> dict[str, Any]:
        """Actions for the agents in `observations`, as training hands them on: in the shape and dtype of their spaces.

        `action_masks`: for discrete agents, 1 where an action is legal, or None where all are; an observation
        `{"observation": ..., "action_mask": ...}` brings its own. Raises UsageError for an unknown agent or an
        observation of another size than in training, EnvironmentFailure where an action that is not finite should be a
        whole number. A recurrent policy remembers from call to call: call it once in
        each step, with what all agents see (in turn-based games also those not to move).
        """
        known = set(self.spec.agents)
        if strangers := [agent for agent in observations if agent not in known]:
            raise UsageError(
                f"agent {strangers[0]!r} is not of this policy; it acts for {', '.join(self.spec.agents)}."
            )
        device = self._generator.device
        masks = {agent: mask for agent, mask in (action_masks or {}).items() if mask is not None}
        _require_maskable(self.spec, masks)
        obs = {
            g.name: torch.from_numpy(_stack(g, observations, masks)).to(device).unsqueeze(0) for g in self.spec.groups
        }
        raw: PerGroup = {}
        for name, policy in self._player(obs).items():
            masked = self._masked(name, policy, masks)
            raw[name] = masked.mode() if self.deterministic else masked.sample(self._generator)
        chosen = self._agent.to_env(raw)
        actions = {name: decode(chosen[name][0].cpu().numpy()) for name, decode in self._decoders.items()}
        return {
            agent: action
            for g in self.spec.groups
            for agent, action in zip(g.agents, actions[g.name], strict=True)
            if agent in observations
        }

    def _masked(self, name: str, policy: Answer, masks: Mapping[str, NDArray[Any]]) -> Answer:
        group = next(g for g in self.spec.groups if g.name == name)
        if not isinstance(policy, Categorical) or not any(agent in masks for agent in group.agents):
            return policy
        n = policy.logits.shape[-1]
        legal = np.stack([_mask_of(agent, masks.get(agent, np.ones(n)), n) for agent in group.agents])
        if barred := [agent for agent, row in zip(group.agents, legal, strict=True) if not row.any()]:
            raise UsageError(f"the action mask of {barred[0]} allows no action; allow one or more.")
        return Categorical(policy.logits, torch.from_numpy(legal).to(policy.logits.device).unsqueeze(0))


def load_policy(path: str | Path, deterministic: bool = True, checkpoint: str | None = None, seed: int = 0) -> Policy:
    """The policy of a run folder: `actions = policy(observations)`. Needs no environment."""
    return Policy(load_agent(Path(path), checkpoint), deterministic, seed)


def _require_maskable(spec: EnvSpec, masks: Mapping[str, Any]) -> None:
    kinds = {agent: group.action for group in spec.groups for agent in group.agents}
    for agent in masks:
        if agent not in kinds:
            raise UsageError(f"action_masks has {agent!r}; this policy acts for {', '.join(spec.agents)}.")
        if isinstance(kinds[agent], MultiDiscrete):
            raise UsageError(f"action_masks has {agent!r}, who makes several choices at once; leave its mask out.")


def _stack(group: Group, observations: Mapping[str, Any], masks: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """`(A, O)`; zeros for agents that are not there."""
    rows = np.zeros((len(group.agents), group.obs_size), np.float32)
    for i, agent in enumerate(group.agents):
        if agent in observations:
            _fill(rows[i], agent, group, observations[agent], masks.get(agent))
    return rows


def _fill(row: NDArray[np.float32], agent: str, group: Group, value: Any, mask: Any) -> None:
    """Write one agent's observation into its row `(O,)`; the legal actions of a masked group come last."""
    legal = legal_features(group)
    if isinstance(value, Mapping):
        if set(value) != {"observation", "action_mask"}:
            raise UsageError(
                f"the observation of {agent} has the parts {', '.join(map(str, value))}; {_how_to_flatten(legal)}."
            )
        value, mask = value["observation"], value["action_mask"] if mask is None else mask
    value = _numbers(agent, value, legal)
    if legal and value.size == len(row):
        value, last = value.reshape(-1)[:-legal], value.reshape(-1)[-legal:]
        if not np.isin(last, (0, 1)).all() or (value.any() and not last.any()):
            raise UsageError(
                f"the last {legal} of the {len(row)} numbers that {agent} observes must be its action mask, and are "
                f'{last.tolist()}; give {{"observation": ..., "action_mask": ...}} instead.'
            )
        mask = last if mask is None else mask
    features = row[: len(row) - legal]
    if legal:
        row[-legal:] = 1.0 if mask is None else _mask_of(agent, mask, legal)
    one_hot = len(features) > 1 or group.first_category is not None
    if value.ndim == 0 and np.issubdtype(value.dtype, np.integer) and one_hot:
        first = group.first_category or 0  # of categories, seen one-hot in training
        if not 0 <= int(value) - first < len(features):
            wanted = f"a category from {first} to {first + len(features) - 1}"
            raise UsageError(f"the observation of {agent} is {value}; in training it was {wanted}.")
        features[int(value) - first] = 1.0
        return
    if value.size != len(features):
        raise UsageError(f"the observation of {agent} has {value.size} numbers; in training it had {len(features)}.")
    features[:] = value.reshape(-1)


def _numbers(agent: str, value: Any, legal: int) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except ValueError:  # parts of unequal lengths
        array = np.empty(0, object)
    if array.dtype.kind not in "biuf":
        raise UsageError(f"the observation of {agent} is {value!r}, which is no array; {_how_to_flatten(legal)}.")
    return array


def _how_to_flatten(legal: int) -> str:
    """What to do with an observation of several parts."""
    if legal:
        return (
            'give {"observation": ..., "action_mask": ...}, with all parts but the mask flattened by '
            "gymnasium.spaces.flatten"
        )
    return "flatten it with gymnasium.spaces.flatten first"


def _mask_of(agent: str, mask: Any, n: int) -> NDArray[np.bool_]:
    """`(n,)` whether each action is legal."""
    legal: NDArray[np.bool_] = np.asarray(mask) > 0
    if legal.shape != (n,):
        wanted = f"one number for each of the {n} actions"
        raise UsageError(f"the action mask of {agent} has shape {legal.shape}; it must have {wanted}.")
    return legal
