"""Playing batched environments without an agent, for the tests of this folder."""

from __future__ import annotations

import torch

from marl_stable.acting import at_random
from marl_stable.envs.base import BatchedEnv
from marl_stable.types import PerGroup


def random_actions(env: BatchedEnv, generator: torch.Generator) -> PerGroup:
    """Uniformly random ones; for groups without masks, which would have to be seen."""
    unseen = {group.name: torch.empty(env.num_envs, len(group.agents), 0) for group in env.spec.groups}
    return at_random(env.spec, generator)(unseen)
