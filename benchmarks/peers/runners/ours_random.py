"""Random actions, drawn beforehand, in copies of an environment: batched ones, or of Python in worker processes."""

from __future__ import annotations

import torch

from benchmarks.peers.orders import serve, settings
from marl_stable.config import EnvConfig
from marl_stable.envs import catalog

given = settings()
copies, steps = given["copies"], given["steps"]
env = catalog.make(EnvConfig(id=given["env"], workers=given.get("workers", 0)), torch.device("cpu"), copies)
env.reset(1)
actions = [{"agent": torch.randint(5, (copies, 3))} for _ in range(25)]


def play() -> int:
    """Episodes begin anew by themselves."""
    for t in range(steps):
        env.step(actions[t % 25])
    return copies * steps


serve(play)
