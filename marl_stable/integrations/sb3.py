"""A callback that watches a Stable-Baselines3 model: `model.learn(..., callback=StabilityCallback())`.

Shapes: T steps, E copies, D action dimensions. Importing this module without the library is a UsageError.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from marl_stable.monitor.stability_monitor import StabilityMonitor
from marl_stable.types import UsageError

try:
    _callbacks = import_module("stable_baselines3.common.callbacks")
except ImportError as error:
    raise UsageError(
        "marl_stable.integrations.sb3 needs Stable-Baselines3; install it with `pip install stable-baselines3`."
    ) from error

READINGS = 1_000  # of a training: more would say no more, and cost
PROBED = 256  # observations at which the policy is asked for its greedy action
TRAINED = {  # what the library logs -> what the monitor calls it
    "value_loss": "critic_loss",
    "critic_loss": "critic_loss",
    "loss": "loss",
    "policy_gradient_loss": "actor_loss",
    "policy_loss": "actor_loss",
    "actor_loss": "actor_loss",
    "approx_kl": "approx_kl",
    "clip_fraction": "clip_fraction",
}


class StabilityCallback(_callbacks.BaseCallback):  # type: ignore[misc, name-defined]
    """Watches PPO, A2C, DDPG, TD3, SAC and DQN; `report()` says what is wrong, also while training goes on.

    One reading per rollout, of shorter ones about every `every` steps, as of an algorithm with a replay; of long
    trainings about 1,000. A model that goes on learning is one report, whether the library counts its steps from 0
    again or not; with another model a new one begins. At the end of training it is saved in `folder`, if one is named,
    for `marl-stable diagnose FOLDER`.
    """

    def __init__(self, folder: str | Path | None = None, every: int = 200, verbose: int = 0) -> None:
        super().__init__(verbose)
        self._folder, self._every = folder, every
        self._watched: StabilityMonitor | None = None
        self._model_watched: Any = None
        self._before = self._reached = 0  # steps of the model's trainings before this one, and of all of them so far
        self._steps: list[dict[str, Any]] = []  # of an algorithm with a replay, since the last reading

    @property
    def monitor(self) -> StabilityMonitor:
        """What watches; UsageError before training began."""
        if self._watched is None:
            raise UsageError("StabilityCallback has seen no training yet; call model.learn(..., callback=it) first.")
        return self._watched

    def report(self) -> dict[str, Any]:
        """What is wrong so far: verdict, findings with the root cause first, symptoms."""
        return self.monitor.report()

    # ---- called by the library

    def _on_training_start(self) -> None:
        if self._watched is None or self._model_watched is not self.model:
            self._begin_anew()
        if self._before + self.num_timesteps < self._reached:  # the library counts from 0 again, in fresh episodes
            self._before = self._reached - self.num_timesteps
            if self._steps:
                self._steps[-1]["truncated"] = ~self._steps[-1]["terminated"]
        total = self._before + int(self.model._total_timesteps)
        self.monitor.total_steps, self.monitor.every = total, self._handed_over_per_reading(total)

    def _on_step(self) -> bool:
        self._reached = self._before + self.num_timesteps
        if not self._on_policy:
            seen = {"reward": self.locals["rewards"], "action": self.locals["buffer_actions"], **self._ends()}
            seen["observation"] = getattr(self.model, "_last_obs", None)
            self._steps.append({name: np.array(x) for name, x in seen.items() if isinstance(x, np.ndarray)})
            if len(self._steps) >= self._every:
                self._read_steps()
        return True

    def _on_rollout_end(self) -> None:
        if self._on_policy:
            self._read_rollout()

    def _on_training_end(self) -> None:
        if self._folder is not None:
            self.monitor.save(self._folder)

    # ---- what is handed to the monitor

    @property
    def _on_policy(self) -> bool:
        return hasattr(self.model, "rollout_buffer")

    def _begin_anew(self) -> None:
        if self._watched is not None:
            self._watched.close()
        self._watched, self._model_watched = self._begin(), self.model
        self._before = self._reached = 0
        self._steps = []

    def _handed_over_per_reading(self, total: int) -> int:
        """How many rollouts, or `every` steps, make a reading, of `total` steps."""
        model: Any = self.model
        each: int = model.n_envs * (model.n_steps if self._on_policy else self._every)
        return max(1, self._every // each, -(-total // (each * READINGS)))

    def _begin(self) -> StabilityMonitor:
        """A monitor for the model's networks and spaces."""
        model: Any = self.model
        space, kind = model.action_space, dict[str, Any]()
        if hasattr(space, "n"):
            kind = {"num_actions": int(space.n)}
        elif hasattr(space, "low") and self._on_policy:
            kind = {"action_low": space.low, "action_high": space.high}
        elif hasattr(space, "low"):  # replays hold actions from -1 to 1
            kind = {"action_low": -1.0, "action_high": 1.0}
        entropy = hasattr(model, "ent_coef") and not self._on_policy
        config = {"algo.lr": float(model.lr_schedule(1.0))}
        gamma = None if entropy else float(model.gamma)
        monitor = StabilityMonitor(1, gamma=gamma, config=config, **kind)
        for name, module, optimizer in networks(model):
            monitor.watch(name, module, optimizer)
        return monitor

    def _read_rollout(self) -> None:
        buffer = self.model.rollout_buffer
        after = np.concatenate([buffer.episode_starts[1:], self._rows(self.locals["dones"])])
        given = {"reward": buffer.rewards, "value": buffer.values, "action": buffer.actions, "done": after}
        given["observation"] = buffer.observations if isinstance(buffer.observations, np.ndarray) else None
        self._hand_over(given)

    def _read_steps(self) -> None:
        given: dict[str, Any] = {
            name: np.stack([step[name] for step in self._steps])
            for name in self._steps[0]
            if all(name in step for step in self._steps)
        }
        self._steps = []
        self._hand_over(given)

    def _hand_over(self, given: dict[str, Any]) -> None:
        logged = {key.removeprefix("train/"): x for key, x in self.logger.name_to_value.items() if "train/" in key}
        losses = {TRAINED[name]: x for name, x in logged.items() if name in TRAINED}
        if "entropy_loss" in logged:
            losses["entropy"] = -logged["entropy_loss"]
        ended = [episode["r"] for episode in self.model.ep_info_buffer or ()]
        if ended:
            losses["episode_return"] = float(np.mean(ended[-20:]))
            losses["episode_length"] = float(np.mean([episode["l"] for episode in self.model.ep_info_buffer][-20:]))
        if given.get("observation") is not None:
            given |= self._greedy(given["observation"])
        if "critic_loss" in losses:
            losses.pop("loss", None)
        self.monitor.step(steps=self._before + self.num_timesteps, **given, **losses)

    @torch.no_grad()
    def _greedy(self, observation: np.ndarray[Any, Any]) -> dict[str, Any]:
        """What the policy answers to some of the observations, and what the critic says of that."""
        model: Any = self.model
        rows = observation.reshape(-1, *model.observation_space.shape)
        rows = rows[:: -(-len(rows) // PROBED)]
        obs, _ = model.policy.obs_to_tensor(rows)
        if self._on_policy:
            law = model.policy.get_distribution(obs).distribution
            if isinstance(law, torch.distributions.Categorical):
                return {"logits": law.logits}
            return {"greedy_action": law.mean} if isinstance(law, torch.distributions.Normal) else {}
        if hasattr(model, "q_net"):
            return {}
        was = model.policy.training
        model.policy.set_training_mode(False)
        action = model.actor(obs, deterministic=True) if hasattr(model, "ent_coef") else model.actor(obs)
        model.policy.set_training_mode(was)
        return {"greedy_action": action}

    def _ends(self) -> dict[str, Any]:
        done = self._rows(self.locals["dones"])[0]
        cut = [bool(info.get("TimeLimit.truncated", False)) for info in self.locals["infos"]]
        return {"terminated": done & ~np.array(cut), "truncated": done & np.array(cut)}

    def _rows(self, x: Any) -> np.ndarray[Any, Any]:
        return np.asarray(x).reshape(1, -1)


def networks(model: Any) -> Iterator[tuple[str, nn.Module, torch.optim.Optimizer]]:
    """Names, modules and optimisers of a model."""
    policy = model.policy
    if hasattr(model, "rollout_buffer"):
        parts = policy.mlp_extractor
        yield "actor", nn.ModuleList([parts.policy_net, policy.action_net]), policy.optimizer
        yield "critic", nn.ModuleList([parts.value_net, policy.value_net]), policy.optimizer
        if any(True for _ in policy.features_extractor.parameters()):
            yield "features", policy.features_extractor, policy.optimizer
    elif hasattr(model, "q_net"):
        yield "critic", model.q_net, policy.optimizer
    else:
        yield "actor", model.actor, model.actor.optimizer
        yield "critic", model.critic, model.critic.optimizer
