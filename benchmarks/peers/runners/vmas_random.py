"""Random actions, drawn beforehand, in VMAS's simple_spread; episodes of 25 steps, as in mpe2."""

from __future__ import annotations

import torch
import vmas

from benchmarks.peers.orders import serve, settings

given = settings()
copies, steps = given["copies"], given["steps"]
env = vmas.make_env("simple_spread", num_envs=copies, device="cpu", continuous_actions=False, seed=1)
actions = torch.randint(5, (25, len(env.agents), copies))


def play() -> int:
    """VMAS leaves resets to its caller."""
    for t in range(steps):
        env.step([action.unsqueeze(-1) for action in actions[t % 25]])
        if t % 25 == 24:
            env.reset()
    return copies * steps


serve(play)
