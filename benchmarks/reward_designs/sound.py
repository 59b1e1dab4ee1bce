"""Rewards without a flaw, of which nothing may be said."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.reward_designs.design import Design, Pay
from benchmarks.reward_designs.parts import cover, goal, landmarks, moves
from benchmarks.reward_designs.tasks import (
    ADVERSARY,
    BALANCE,
    DISPERSION,
    NAVIGATION,
    REFERENCE,
    SIMPLE,
    SPREAD,
    TAG,
    WALK,
    WHEEL,
)


def sound(built_on: bool) -> dict[str, Design]:
    """On tasks that were played while thresholds were chosen, or on others."""

    def d(task: str, says: str, pay: Pay | None = None, **more: Any) -> Design:
        return Design(task, None, pay, says, built_on, **more)

    if built_on:
        return {
            "as it is, spread": d("mpe2/simple_spread_v3", "the task's own"),
            "as it is, listener": d("mpe2/simple_speaker_listener_v4", "the task's own"),
            "as it is, balance": d(BALANCE, "the task's own"),
            "as it is, walkers": d(WALK, "the task's own"),
            "terms, spread": d(
                SPREAD,
                "the task's own in two terms",
                lambda m: {"cover": 0.5 * cover(m.next_obs), "touch": m.reward - 0.5 * cover(m.next_obs)},
            ),
            "potential, spread": d(
                SPREAD,
                "shaping by the difference of a potential",
                lambda m: {
                    "task": m.reward,
                    "shaping": 5 * (landmarks(m.obs)[..., 0] - 0.99 * landmarks(m.next_obs)[..., 0]),
                },
            ),
            "little effort, spread": d(
                SPREAD, "effort costs a little", lambda m: {"cover": cover(m.next_obs), "effort": -0.2 * moves(m)}
            ),
        }
    return {
        "as it is, navigation": d(NAVIGATION, "the task's own"),
        "as it is, dispersion": d(DISPERSION, "the task's own"),
        "as it is, wheel": d(WHEEL, "the task's own"),
        "as it is, reference": d(REFERENCE, "the task's own"),
        "as it is, tag": d(TAG, "the task's own"),
        "as it is, adversary": d(ADVERSARY, "the task's own"),
        "potential, navigation": d(
            NAVIGATION,
            "shaping by the difference of a potential",
            lambda m: {"task": -0.1 * goal(m.next_obs, 4), "shaping": goal(m.obs, 4) - 0.99 * goal(m.next_obs, 4)},
        ),
        "arrival, simple": d(
            SIMPLE,
            "steps cost a little, arriving pays and ends",
            lambda m: {
                "time": torch.full_like(m.reward, -0.1) - 0.1 * goal(m.next_obs, 2),
                "goal": 10 * m.over.float().unsqueeze(1).expand(m.reward.shape),
            },
            single=True,
            ends=lambda m: goal(m.next_obs, 2)[:, 0] < 0.3,
        ),
    }
