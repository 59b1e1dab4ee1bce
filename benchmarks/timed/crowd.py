"""Many agents of one group: whether what an update costs for each of them falls with their number.

Their observations are as wide whatever their number is. With local critics (IPPO) nothing else grows; critics that see
all agents side by side grow with their number, and critics that pool do not. Shapes: E copies, A agents, O features.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch

from benchmarks.timed.turns import Work
from marl_stable.agents import algorithm
from marl_stable.agents.config import MADDPGConfig, default_config
from marl_stable.generators import go_on
from marl_stable.types import Discrete, EnvSpec, Group, PerGroup, Step

FEATURES, CHOICES, LENGTH = 16, 5, 25
COPIES, BATCH = 32, 256
REPLAYED, UPDATES = 64, 4  # rows of an off-policy update, of which so many are timed at once


class Crowd:
    """Every agent sees noise, and is paid for naming the largest of its first five numbers; 25 steps an episode."""

    def __init__(self, agents: int, num_envs: int, device: torch.device) -> None:
        names = tuple(f"agent_{i}" for i in range(agents))
        group = Group("agent", names, FEATURES, Discrete(CHOICES), "team")
        self.spec = EnvSpec("crowd", names, (group,))
        self.num_envs, self.device = num_envs, device
        self.replay_differs: tuple[int, ...] = ()
        self.generator = torch.Generator(device)
        self.t, self.seen = 0, torch.zeros(num_envs, agents, FEATURES, device=device)
        self.no = torch.zeros(num_envs, agents, dtype=torch.bool, device=device)

    def reset(self, seed: int) -> PerGroup:
        """Begin the first episode of every copy."""
        self.generator.manual_seed(seed)
        self.t = 0
        return self._look()

    def step(self, action: PerGroup) -> Step:
        """Pay what was named, and show new noise; all episodes end together."""
        reward = (action["agent"] == self.seen[..., :CHOICES].argmax(dim=-1)).float()
        next_obs = self._look()
        self.t += 1
        over = self.t == LENGTH
        self.t %= LENGTH
        obs = self._look() if over else next_obs
        cut_off = self.no | over
        terminated, truncated, alive = ({"agent": x} for x in (self.no, cut_off, ~self.no))
        return Step(obs, next_obs, {"agent": reward}, terminated, truncated, alive, cut_off[:, 0])

    def state_dict(self) -> dict[str, Any]:
        """What is seen, the step of the episode and the generator."""
        return {"t": self.t, "seen": self.seen, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> PerGroup:
        """Go on where `state_dict` was taken."""
        self.t, self.seen = state["t"], state["seen"].to(self.device)
        go_on(self.generator, state["generator"])
        return {"agent": self.seen}

    def close(self) -> None:
        """Nothing to release."""

    def _look(self) -> PerGroup:
        self.seen = torch.randn(self.seen.shape, generator=self.generator, device=self.device)
        return {"agent": self.seen}


def update_seconds(agents: int, share: bool = True, algo: str = "ippo", **settings: Any) -> Work:
    """Seconds of an update per agent, with the defaults but for the batch and `settings`."""
    device = torch.device("cpu")
    config = replace(default_config(algo), gamma=0.95, batch_size=BATCH, share=share, **settings)
    updates = 1
    if isinstance(config, MADDPGConfig):
        updates = UPDATES
        config = replace(config, batch_size=REPLAYED, buffer_size=10 * BATCH, warm_up=0)
        config = replace(config, train_every=BATCH, steps_per_update=BATCH // UPDATES)
    env = Crowd(agents, COPIES, device)
    agent = algorithm(algo)(env.spec, config, COPIES, device, seed=1)
    obs = env.reset(1)

    def update() -> float:
        nonlocal obs
        while not agent.ready():
            step = env.step(agent.act(obs))
            agent.observe(step)
            obs = step.obs
        began = time.perf_counter()
        agent.update(0.0, lambda: False)
        return (time.perf_counter() - began) / (agents * updates)

    return update
