"""Reads the ends of episodes as the user says, for environments that mislabel theirs (`env.time_limit_as`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from marl_stable.envs.base import BatchedEnv, lost
from marl_stable.types import PerGroup, Step

if TYPE_CHECKING:
    import torch


class EndsAs:
    """A batched environment in which every end is a truncation, or every end a termination."""

    def __init__(self, env: BatchedEnv, reading: Literal["truncation", "termination"]) -> None:
        self.env = env
        self.reading = reading
        self.spec = env.spec
        self.num_envs = env.num_envs
        self.device: torch.device = env.device
        self.replay_differs: tuple[int, ...] = ()

    def reset(self, seed: int) -> PerGroup:
        """Begin the first episode of every copy."""
        return self.env.reset(seed)

    def step(self, action: PerGroup) -> Step:
        """Advance every copy by one step."""
        step = self.env.step(action)
        ends = {name: step.terminated[name] | step.truncated[name] for name in step.terminated}
        if self.reading == "truncation":
            never = {name: end.new_zeros(end.shape) for name, end in ends.items()}
            return step._replace(terminated=never, truncated=ends)
        given_up = lost(step).unsqueeze(1)  # (E, 1): no end that the environment has labelled
        terminated = {name: end & ~given_up for name, end in ends.items()}
        return step._replace(terminated=terminated, truncated={name: end & given_up for name, end in ends.items()})

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly."""
        return self.env.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> PerGroup:
        """Go on where `state_dict` was taken."""
        obs = self.env.load_state_dict(state)
        self.replay_differs = self.env.replay_differs
        return obs

    def close(self) -> None:
        """Release what the copies hold."""
        self.env.close()
