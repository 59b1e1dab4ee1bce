"""Returns, lengths and rewards of training episodes.

Shapes: E copies, A agents of a group.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from marl_stable import distributed
from marl_stable.envs.base import BatchedEnv, lost
from marl_stable.types import PerGroup, Step


class EpisodeStatistics:
    """Sums on the device between logged iterations, and the running episodes' own."""

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
        """Take in one step of every copy. An episode that was given up counts for nothing."""
        self.length += 1
        for name, _ in self.groups:
            reward = step.reward[name]
            self.running[name] += reward
            counted = step.alive[name].sum()
            self.rewards[name] += torch.stack([counted, reward.sum(), reward.square().sum()])
        if step.next_obs is step.obs:  # nobody's episode ended
            return
        done = (step.done & ~lost(step)).to(self.length.dtype)
        self.done += done.sum()
        self.lengths += (self.length * done).sum()
        self.length.masked_fill_(step.done, 0.0)
        for name, _ in self.groups:
            self.returns[name] += (self.running[name] * done.unsqueeze(1)).sum(0)
            self.running[name].masked_fill_(step.done.unsqueeze(1), 0.0)

    def begin_anew(self, copies: Tensor) -> None:
        """The running episodes of `copies (E,)` are lost, and count for nothing."""
        self.length = self.length.masked_fill(copies, 0.0)
        self.running = {name: x.masked_fill(copies.unsqueeze(1), 0.0) for name, x in self.running.items()}

    def take(self) -> dict[str, PerGroup]:
        """Means since the last call (NaN where no episode ended), still on the device; over the episodes of all
        processes that train together."""
        ended, lengths = distributed.total(torch.stack([self.done, self.lengths]))
        everyone = {name: distributed.total(self.returns[name]) / ended for name, _ in self.groups}
        rewards = {name: distributed.total(x) for name, x in self.rewards.items()}
        means = {name: x[1] / x[0] for name, x in rewards.items()}
        spread = {name: (x[2] / x[0] - means[name].square()).clamp_min(0).sqrt() for name, x in rewards.items()}
        length = dict.fromkeys(everyone, lengths / ended)
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
