"""Random actions, drawn beforehand, in copies of an environment written in Python, in worker processes."""

from __future__ import annotations

import torch

from benchmarks.peers.orders import serve, settings
from marl_stable.config import EnvConfig
from marl_stable.envs import catalog

given = settings()
copies, steps = given["copies"], given["steps"]
config = EnvConfig(id="mpe2/simple_spread_v3", workers=given["workers"])
env = catalog.make(config, torch.device("cpu"), copies)
env.reset(1)
actions = [{"agent": torch.randint(5, (copies, 3))} for _ in range(25)]


def play() -> int:
    """Episodes begin anew by themselves."""
    for t in range(steps):
        env.step(actions[t % 25])
    return copies * steps


serve(play)
