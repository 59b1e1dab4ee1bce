"""What all the evidence says, in plain words: one function a cause, from the furthest upstream to what merely follows.

The order is the ranking: what is not a number, or is never paid, or an accident, or nobody can move, explains all that
comes below it; where accidents make the variance, nothing can be said of who moves it. Where circles pay, so does not
finishing.
Nothing here changes a reward; remedies are for whoever designed it.
"""

from __future__ import annotations

from collections.abc import Callable

from marl_stable.investigate.reward.evidence import Evidence
from marl_stable.investigate.reward.verdicts.endings import episode_length_incentive
from marl_stable.investigate.reward.verdicts.incentives import (
    constant_action_is_optimal,
    policy_is_worse,
    reward_hacking,
    shaping_changes_task,
)
from marl_stable.investigate.reward.verdicts.influence import lazy_agent, reward_uncontrollable
from marl_stable.investigate.reward.verdicts.signal import no_reward_signal, reward_non_finite, reward_outliers
from marl_stable.investigate.reward.verdicts.size import reward_offset, reward_scale
from marl_stable.investigate.reward.verdicts.terms import reward_term_dominates, reward_terms_conflict
from marl_stable.monitor.case import Finding

Look = Callable[[Evidence], list[Finding]]
ORDER: tuple[Look, ...] = (
    reward_non_finite,
    no_reward_signal,
    reward_outliers,
    reward_uncontrollable,
    reward_hacking,
    shaping_changes_task,
    episode_length_incentive,
    reward_terms_conflict,
    reward_term_dominates,
    lazy_agent,
    constant_action_is_optimal,
    reward_offset,
    reward_scale,
    policy_is_worse,
)
CHECKED = (
    "reward_non_finite",
    "no_reward_signal",
    "reward_outliers",
    "reward_uncontrollable",
    "reward_hacking",
    "shaping_changes_task",
    "episode_length_incentive",
    "reward_terms_conflict",
    "reward_term_dominates",
    "lazy_agent",
    "constant_action_is_optimal",
    "reward_offset",
    "reward_scale_too_small",
    "reward_scale_too_large",
)


def judge(x: Evidence) -> list[Finding]:
    """All findings, the root first."""
    return [finding for look in ORDER for finding in look(x)]


def checked(x: Evidence) -> list[str]:
    """The causes that could be judged.

    Hacking takes an expert, or a policy and a metric; whether an agent is lazy takes several, and plays that repeat.
    """
    compared = "expert" in x.candidates or (x.metric is not None and "policy" in x.candidates)
    known = {"reward_hacking": compared, "lazy_agent": x.control.influence is not None}
    return [cause for cause in CHECKED if known.get(cause, True)]
