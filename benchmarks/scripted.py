"""A hand-written expert for `simple_spread_v3`: good, not optimal, and a yardstick that needs no training.

Each step it assigns landmarks to agents so that the sum of distances is least (Hungarian method), and each agent steers
to its own by proportional-derivative control.

    python -m benchmarks.scripted         # the expert beside random and no-op agents; writes results/baselines.md
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from benchmarks.trials import RESULTS
from marl_stable.evaluation import describe

TABLE = RESULTS / "baselines.md"

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


def spread_return(continuous: bool, episodes: int, seed: int, kind: str = "scripted") -> NDArray[np.float64]:
    """`(episodes,)` per-agent mean, undiscounted, on mpe2; `kind`: scripted, random, or no-op for ever."""
    from mpe2 import simple_spread_v3  # type: ignore[import-untyped]

    env = simple_spread_v3.parallel_env(continuous_actions=continuous)
    for agent in env.possible_agents:
        env.action_space(agent).seed(seed)
    nothing = np.zeros(5, np.float32) if continuous else 0
    returns = []
    for episode in range(episodes):
        observations, _ = env.reset(seed=seed + episode)
        total = 0.0
        while env.agents:
            if kind == "scripted":
                actions = spread_actions(observations, continuous)
            else:
                actions = {a: nothing if kind == "no-op" else env.action_space(a).sample() for a in env.agents}
            observations, rewards, *_ = env.step(actions)
            total += float(np.mean(list(rewards.values())))
        returns.append(total)
    return np.array(returns)


def main() -> None:
    """Measure the yardsticks and write their table."""
    lines = ["| policy on mpe2 1.1.1, 1,000 episodes | discrete | continuous |", "|---|---|---|"]
    for kind in ("scripted", "no-op", "random"):
        found = [describe(spread_return(continuous, 1_000, 0, kind)) for continuous in (False, True)]
        cells = [f"{x['mean']:.2f} ({x['ci95'][0]:.2f} to {x['ci95'][1]:.2f})" for x in found]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(TABLE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
