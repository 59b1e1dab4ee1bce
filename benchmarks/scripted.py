"""A hand-written expert for `simple_spread_v3`: good, not optimal, and a yardstick that needs no training.

Each step it assigns landmarks to agents so that the sum of distances is least (Hungarian method), and each agent steers
to its own by proportional-derivative control. Measured on mpe2 1.1.1: -7.8 (discrete), -6.1 (continuous).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

DAMPING = 0.25  # seconds: how far ahead the velocity is counted
GAIN = 16.0  # of full thrust per unit of distance


def spread_actions(observations: dict[str, NDArray[np.float32]], continuous: bool) -> dict[str, object]:
    """Actions of all agents from their observations (velocity, position, landmarks relative to the agent, ...)."""
    agents = list(observations)
    n = len(agents)
    to_landmark = np.stack([observations[agent][4 : 4 + 2 * n].reshape(n, 2) for agent in agents])  # (N, L, 2)
    _, chosen = linear_sum_assignment(np.linalg.norm(to_landmark, axis=-1))
    actions: dict[str, object] = {}
    for i, agent in enumerate(agents):
        velocity = observations[agent][:2]
        thrust = GAIN * (to_landmark[i, chosen[i]] - DAMPING * velocity)
        actions[agent] = _box(thrust) if continuous else _move(thrust)
    return actions


def _box(thrust: NDArray[np.float32]) -> NDArray[np.float32]:
    x, y = np.clip(thrust, -1, 1)
    return np.array([0, max(-x, 0), max(x, 0), max(-y, 0), max(y, 0)], np.float32)


def _move(thrust: NDArray[np.float32]) -> int:
    """The one direction that helps most; none where little is missing."""
    axis = int(np.argmax(np.abs(thrust)))
    if abs(thrust[axis]) < 0.5:
        return 0
    return 1 + 2 * axis + int(thrust[axis] > 0)


def spread_return(continuous: bool, episodes: int, seed: int) -> NDArray[np.float64]:
    """`(episodes,)` per-agent mean, undiscounted, on mpe2."""
    from mpe2 import simple_spread_v3  # type: ignore[import-untyped]

    env = simple_spread_v3.parallel_env(continuous_actions=continuous)
    returns = []
    for episode in range(episodes):
        observations, _ = env.reset(seed=seed + episode)
        total = 0.0
        while env.agents:
            observations, rewards, *_ = env.step(spread_actions(observations, continuous))
            total += float(np.mean(list(rewards.values())))
        returns.append(total)
    return np.array(returns)
