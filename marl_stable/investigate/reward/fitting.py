"""What is still to come, and how features of a state foretell it: by least squares, without training.

All targets are fitted by one and the same linear operator, so that values of terms sum to the value of the whole.

Shapes: T steps, E copies, N rows, K targets, A agents of a group, O observation features, F features of a state.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marl_stable.investigate.reward.play import Bools, Floats, known
from marl_stable.types import Group

BENDS = 96  # random tanh features of a state
RIDGE = 1e-3  # per row, of standardised features
CLIP = 5.0


class Sight(NamedTuple):
    """Turns observations of a group into features: standardised, and random bends of them."""

    mean: Floats  # (O,)
    std: Floats
    mix: Floats  # (O + agents + 1, BENDS)
    agents: int

    def of(self, obs: NDArray[Any]) -> Floats:
        """`(..., A, O)` to `(..., A, F)`: agents one-hot (a constant among them), features, bends."""
        plain = self.plain(obs)
        return np.concatenate([plain, np.tanh(plain @ self.mix)], axis=-1)

    def plain(self, obs: NDArray[Any]) -> Floats:
        """The same without bends, `(..., A, agents + O)`."""
        z = np.clip((known(obs.astype(np.float64)) - self.mean) / self.std, -CLIP, CLIP)
        who = np.broadcast_to(np.eye(self.agents), (*z.shape[:-1], self.agents))
        return np.concatenate([who, z], axis=-1)


def sight(obs: NDArray[Any], group: Group) -> Sight:
    """From observations `(N, A, O)` of the group."""
    rows = known(obs.astype(np.float64)).reshape(-1, obs.shape[-1])
    std, mean = np.asarray(rows.std(0), np.float64), np.asarray(rows.mean(0), np.float64)
    width = obs.shape[-1] + len(group.agents)
    mix = np.random.default_rng(0).normal(size=(width, BENDS)) * float(1.5 / width**0.5)
    std[std <= 1e-8] = 1.0
    return Sight(mean, std, np.asarray(mix, np.float64), len(group.agents))


def solve(x: Floats, y: Floats) -> Floats:
    """`(F, K)` the ridge solution for `x (N, F)` and `y (N, K)`."""
    gram = x.T @ x + RIDGE * len(x) * np.eye(x.shape[1])
    return np.asarray(np.linalg.solve(gram, x.T @ y), np.float64)


def to_come(rewards: Floats, live: Bools, gamma: float) -> Floats:
    """Discounted sums `(T, E, ...)` of what is still to come of the episode, the step itself included."""
    mask = live.reshape(*live.shape, *[1] * (rewards.ndim - 2))
    known_rewards = np.where(mask, rewards, 0.0)
    found = np.empty_like(known_rewards)
    running = np.zeros_like(known_rewards[0])
    for t in range(len(rewards) - 1, -1, -1):
        running = known_rewards[t] + gamma * running
        found[t] = running
    return found
