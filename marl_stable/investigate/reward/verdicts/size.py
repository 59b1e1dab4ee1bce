"""Is what is paid of a size that networks learn: the scale of returns, and constants that drown all else."""

from __future__ import annotations

from typing import Any

import numpy as np

from marl_stable.investigate.reward.evidence import Evidence
from marl_stable.investigate.reward.fitting import to_come
from marl_stable.investigate.reward.play import Floats, Played, known
from marl_stable.investigate.reward.statistics import middle
from marl_stable.investigate.reward.words import found, number
from marl_stable.monitor.case import Finding

SMALLEST, LARGEST = 0.01, 300.0  # deviations of returns that are learned without trouble: as the monitor's, mild ones
OFFSET = 50.0  # median reward in what it differs by; tasks without an offset have 1 to 8


def reward_scale(x: Evidence) -> list[Finding]:
    """Returns whose size no fresh network has."""
    std = {agent: value for agent, value in _return_std(x).items() if value > 0}
    if not std:
        return []
    agent = max(std, key=lambda name: abs(np.log(std[name])))
    value = std[agent]
    if SMALLEST <= value <= LARGEST or (value > LARGEST and _offset(x)[1] > OFFSET):
        return []
    cause = "reward_scale_too_small" if value < SMALLEST else "reward_scale_too_large"
    harm = (
        "less than the errors of a fresh critic, which actors then follow"
        if value < SMALLEST
        else "a scale that the critic's small steps take very long to reach"
    )
    told = f"Discounted returns of {agent} deviate by {number(value)} at random: {harm}."
    remedy = "Normalise rewards (the default does), or rescale them so that returns deviate by about 1 to 10."
    config: dict[str, Any] = {"algo.normalize_reward": True}
    return [found(cause, 0.85, {"agent": agent}, {"return_std": value}, told, remedy, config)]


def _return_std(x: Evidence) -> dict[str, float]:
    play = x.random.play
    horizon = max(2.0, float(play.lengths.mean()))
    future = to_come(known(play.reward), play.live, 1 - 1.25 / horizon)
    return {agent: float(future[..., n][play.live].std()) for n, agent in enumerate(x.who.agents)}


def reward_offset(x: Evidence) -> list[Finding]:
    """A constant that dwarfs what actions change."""
    agent, ratio, level = _offset(x)
    if ratio <= OFFSET:
        return []
    told = (
        f"{agent} is paid about {number(level)} a step whatever it does, {ratio:,.0f} times what its rewards "
        "differ by: what actions change of it drowns."
    )
    remedy = "Subtract the constant in the environment, or normalise rewards; where episodes can end early, a constant "
    remedy += "pays for living long, or for dying."
    evidence = {"offset_over_scale": ratio, "reward_mean": level}
    config: dict[str, Any] = {"algo.normalize_reward": True}
    return [found("reward_offset", 0.85, {"agent": agent}, evidence, told, remedy, config)]


def _offset(x: Evidence) -> tuple[str, float, float]:
    """The agent with the largest offset, in what its reward differs by, and its median reward.

    It differs by its robust deviation in random play, or by what ways to behave change of its mean: where chance hardly
    ever reaches what is paid for, a distance from it stands still, and is no offset.
    """
    worst = ("", 0.0, 0.0)
    steps = {name: _per_step(candidate.play) for name, candidate in x.candidates.items()}
    reach = np.ptp(np.stack(list(steps.values())), axis=0)  # (N,)
    for n, agent in enumerate(x.who.agents):
        values = known(x.random.play.reward[..., n][x.random.play.live])
        median, scale = middle(values)
        differs = max(scale, float(reach[n]))
        if scale > 0 and abs(median) / differs > worst[1]:
            worst = (agent, abs(median) / differs, median)
    return worst


def _per_step(play: Played) -> Floats:
    """`(N,)` mean reward of a step."""
    found: Floats = play.returns().sum(0) / play.lengths.sum()
    return found
