"""The particle world of mpe2 1.1.1, every copy at once on the device: `particle/NAME` is the twin of `mpe2/NAME`.

Physics, rewards and observations equal mpe2's within 1e-6 over whole episodes; initial states are drawn by a generator
of our own. `world.py` holds what tasks share (episodes, motion), `contacts.py` the collisions, `geometry.py` the
constant matrices. Each task is the file of its name; `chase.py`, `forests.py`, `formation.py` with `assignment.py` and
`nearest.py` are parts of one or two of them. A new task is one such file and a line below.
"""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

import torch

from marl_stable.conversion import require, unknown
from marl_stable.envs.particle.collect_treasure import CollectTreasure
from marl_stable.envs.particle.simple import Simple
from marl_stable.envs.particle.simple_adversary import SimpleAdversary
from marl_stable.envs.particle.simple_crypto import SimpleCrypto
from marl_stable.envs.particle.simple_formation import SimpleFormation
from marl_stable.envs.particle.simple_line import SimpleLine
from marl_stable.envs.particle.simple_push import SimplePush
from marl_stable.envs.particle.simple_reference import SimpleReference
from marl_stable.envs.particle.simple_speaker_listener import SimpleSpeakerListener
from marl_stable.envs.particle.simple_spread import SimpleSpread
from marl_stable.envs.particle.simple_tag import SimpleTag
from marl_stable.envs.particle.simple_world_comm import SimpleWorldComm
from marl_stable.envs.particle.world import ParticleEnv

__all__ = ["TASKS", "ParticleEnv", "make"]

TASKS: dict[str, type[ParticleEnv]] = {
    "simple_v3": Simple,
    "simple_adversary_v3": SimpleAdversary,
    "simple_crypto_v3": SimpleCrypto,
    "simple_push_v3": SimplePush,
    "simple_reference_v3": SimpleReference,
    "simple_speaker_listener_v4": SimpleSpeakerListener,
    "simple_spread_v3": SimpleSpread,
    "simple_tag_v3": SimpleTag,
    "simple_world_comm_v3": SimpleWorldComm,
    "simple_formation_v1": SimpleFormation,
    "simple_line_v1": SimpleLine,
    "collect_treasure_v1": CollectTreasure,
}

KINDS: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),  # true is none
    float: ((int, float), "a number"),
}
"""What a task takes for an argument of a type, and how that is called."""


def make(name: str, num_envs: int, device: torch.device, **kwargs: Any) -> ParticleEnv:
    """The task called `name` with mpe2's arguments; UsageError for an unknown task and an unfit argument."""
    if name not in TASKS:
        raise unknown("environment", f"particle/{name}", [f"particle/{task}" for task in TASKS])
    build: Any = TASKS[name]  # each task has arguments of its own
    known = [p for p in inspect.signature(build).parameters if p not in ("num_envs", "device")]
    for key in kwargs:
        if key not in known:
            remedy = f"particle/{name} takes {', '.join(known)} in env.kwargs; mpe2/{name} takes all that mpe2 has."
            raise unknown("argument", key, known, remedy)
    kinds = get_type_hints(build.__init__)
    for key, value in kwargs.items():
        taken, wanted = KINDS[kinds[key]]
        require(type(value) in taken, f"env.kwargs {key}", value, wanted)
    env: ParticleEnv = build(num_envs, device, **kwargs)
    return env
