"""Rewards with one known flaw each, and sound ones, on tasks of mpe2, vmas and sisl, as wrappers that report terms.

The same design runs on batched environments and, through `infos`, on PettingZoo's. mpe2's tasks are mostly played on
their batched twins, whose physics are the same.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from benchmarks.reward_designs.flawed import flawed
from benchmarks.reward_designs.later import later
from benchmarks.reward_designs.newest import newest
from benchmarks.reward_designs.playing import Redesigned, Single
from benchmarks.reward_designs.sound import sound
from benchmarks.reward_designs.tasks import PLAYED_SINCE
from marl_stable.config import EnvConfig
from marl_stable.envs import catalog

TAUGHT = (
    *("progress, adversary", "glitch, tag", "ignored, navigation", "speed, simple", "potential, navigation"),
    *("glitch, push", "progress, dropout", "potential, dropout"),
)
"""New tasks where the first verdict was wrong: what was changed because of them makes them part of the building."""
ALL = flawed(True) | flawed(False) | sound(True) | sound(False) | later() | newest()
DESIGNS = {name: replace(d, built_on=d.built_on or name in TAUGHT or d.task in PLAYED_SINCE) for name, d in ALL.items()}


def batched(design: str, num_envs: int, device: torch.device) -> Any:
    """The batched environment of a design, for `env.kwargs`."""
    chosen = DESIGNS[design]
    return Redesigned(catalog.make(EnvConfig(id=chosen.task, kwargs=chosen.kwargs), device, num_envs), chosen)


def single(design: str) -> Any:
    """The PettingZoo environment of a design."""
    chosen = DESIGNS[design]
    return Single(catalog.make_single(chosen.task, chosen.kwargs), chosen)
