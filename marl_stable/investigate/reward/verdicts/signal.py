"""Is anything paid that can be learned from: numbers, ever anything else, and no accidents."""

from __future__ import annotations

import numpy as np

from marl_stable.investigate.reward.evidence import Evidence
from marl_stable.investigate.reward.play import Floats, known
from marl_stable.investigate.reward.statistics import upper_bound
from marl_stable.investigate.reward.words import found, number, the_term
from marl_stable.monitor.case import Finding

SAME = 1e-7


def reward_non_finite(x: Evidence) -> list[Finding]:
    """NaN or infinity, by whom and in which term."""
    bad = [(entry["non_finite"], entry) for entry in x.terms if entry["non_finite"]]
    if not bad:
        return []
    count, entry = max(bad, key=lambda pair: pair[0])
    steps = int(x.random.play.live.sum())
    return [
        found(
            "reward_non_finite",
            0.99,
            {"agent": entry["agent"], "term": entry["name"]},
            {"non_finite_share": count / steps},
            f"{the_term(entry['name'])} of {entry['agent']} was NaN or infinite in {count:,} of {steps:,} steps of "
            "random play: one such number is enough to spoil a network.",
            "Repair the term, most often a division, a logarithm or a root of something that can be 0 or negative.",
        )
    ]


def no_reward_signal(x: Evidence) -> list[Finding]:
    """Nothing anybody tried was ever paid otherwise."""
    values = np.concatenate([known(c.play.reward)[c.play.live].ravel() for c in x.candidates.values()])
    lengths = np.concatenate([c.play.lengths for c in x.candidates.values()])
    size = float(np.abs(values).max(initial=0.0))
    if np.ptp(values) <= SAME * size or size == 0:
        if size > 0 and np.ptp(lengths) > 0:
            return []  # paid for time, as where a pole is to be balanced
        return [_never(x, values)]
    if x.sharing == "zero-sum" and len(x.spec.teams) == 1:
        return [
            found(
                "no_reward_signal",
                0.85,
                {},
                {"team_reward_std": 0.0},
                "What one agent of the team is paid, the others lose: the team's mean reward is always 0, so that "
                "nothing can be won together, and each is best off keeping out of the others' way.",
                "Pay the team for its task, or name opposing teams with --env.teams if the agents are opponents.",
            )
        ]
    return []


def _never(x: Evidence, values: Floats) -> Finding:
    tries = sum(int(c.play.live.sum()) for c in x.candidates.values())
    level, bound = float(values[0]) if len(values) else 0.0, upper_bound(0, tries)
    return found(
        "no_reward_signal",
        0.95,
        {},
        {"reward": level, "steps": float(tries), "chance_below": bound},
        f"Every reward of {tries:,} steps was {number(level)}, whatever was done: anything else is met less often than "
        f"once in {1 / bound:,.0f} steps, so that nothing can be learned from it.{_left_off(x)}",
        "Check that the environment pays at all; where the goal is too rare to be met by chance, begin nearer to it or "
        "pay for approaching it (by the difference of a potential, which keeps the task the same).",
    )


def _left_off(x: Evidence) -> str:
    """What is not known where episodes go on beyond what was played."""
    play = x.random.play
    return "" if play.over.all() else f" Episodes were left off after {len(play.live)} steps."


def reward_outliers(x: Evidence) -> list[Finding]:
    """Accidents."""
    if x.outlier is None:
        return []
    o = x.outlier
    where = {"agent": o.agent, "term": o.term, "copy": o.copy}
    evidence = {"reward_p999_over_scale": o.ratio, "value": o.value, "share": o.share, "step": float(o.step)}
    did = ", ".join(number(value) for value in o.action)
    told = (
        f"Single rewards of {o.agent} lie {o.ratio:,.0f} deviations from the median: {number(o.value)} of "
        f"{the_term(o.term)} in step {o.step} of copy {o.copy}, after action {did}; such were {o.share:.2%} of all "
        "steps."
    )
    remedy = "Clip or repair that term; normalised rewards and gradient clipping keep the damage small."
    config = {"algo.normalize_reward": True, "algo.max_grad_norm": "adaptive"}
    return [found("reward_outliers", 0.9, where, evidence, told, remedy, config)]
