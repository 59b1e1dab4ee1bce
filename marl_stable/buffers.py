"""What the agents of a group saw and did since the last update, preallocated on the training device.

Shapes: T steps, E environment copies, A agents, O observation features; raw actions are (T, E, A) or (T, E, A, D).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from marl_stable.types import Discrete, Group, Step


class Rollout:
    """T steps of E copies. Values are raw: they are normalised when they are read."""

    def __init__(self, steps: int, copies: int, group: Group, device: torch.device) -> None:
        shape = (steps, copies, len(group.agents))
        features = () if isinstance(group.action, Discrete) else (len(group.action.low),)
        dtype = torch.int64 if isinstance(group.action, Discrete) else torch.float32
        self.obs = torch.zeros(steps + 1, *shape[1:], group.obs_size, device=device)  # the last row is what comes next
        self.action = torch.zeros(*shape, *features, dtype=dtype, device=device)
        self.log_prob = torch.zeros(shape, device=device)
        self.reward = torch.zeros(shape, device=device)
        self.terminated = torch.zeros(shape, dtype=torch.bool, device=device)
        self.ended = torch.zeros(shape, dtype=torch.bool, device=device)  # terminated or truncated
        self.alive = torch.zeros(shape, dtype=torch.bool, device=device)
        self.final_obs: dict[int, Tensor] = {}  # step -> (E, A, O), only where some copy's episode ended

    def write(self, t: int, obs: Tensor, action: Tensor, log_prob: Tensor) -> None:
        """Keep what was seen and done at step `t`."""
        self.obs[t], self.action[t], self.log_prob[t] = obs, action, log_prob

    def write_outcome(self, t: int, name: str, step: Step) -> None:
        """Keep what followed step `t` for group `name`; `next_obs` takes room only where an episode ended."""
        obs, next_obs = step.obs[name], step.next_obs[name]
        terminated, truncated = step.terminated[name], step.truncated[name]
        self.reward[t], self.alive[t] = step.reward[name], step.alive[name]
        self.terminated[t] = terminated
        torch.logical_or(terminated, truncated, out=self.ended[t])
        self.obs[t + 1] = obs
        if next_obs is not obs:
            self.final_obs[t] = next_obs.clone()

    def clear(self) -> None:
        """Forget the final observations; everything else is overwritten."""
        self.final_obs = {}

    def next_values(self, value: Tensor, final_value: Tensor) -> Tensor:
        """`(T, E, A)` values of what actions led to, from those of `obs (T + 1, E, A)` and `final_obs (K, E, A)`."""
        next_value = value[1:].clone()
        for row, t in enumerate(self.final_obs):
            next_value[t] = final_value[row]
        return next_value

    def all_obs(self) -> Tensor:
        """`(T + 1 + K, E, A, O)`: every observation that needs a value, final ones last."""
        return torch.cat([self.obs, *(x.unsqueeze(0) for x in self.final_obs.values())])

    def state_dict(self) -> dict[str, Any]:
        """All tensors, and final observations by step."""
        tensors = {key: value.clone() for key, value in vars(self).items() if isinstance(value, Tensor)}
        return tensors | {"final_obs": {t: obs.clone() for t, obs in self.final_obs.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        for key, value in state.items():
            if key == "final_obs":
                self.final_obs = {t: obs.to(self.obs.device) for t, obs in value.items()}
            else:
                getattr(self, key).copy_(value)
