"""What all the evidence says, in plain words: one function a cause, from the furthest upstream to what merely follows.

The order is the ranking: what is not a number, or is never paid, or an accident, or nobody can move, explains all that
comes below it; where accidents make the variance, nothing can be said of who moves it.
Nothing here changes a reward; remedies are for whoever designed it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from marl_stable.investigate.reward.candidates import Candidate, difference
from marl_stable.investigate.reward.control import CHANCE, LEAST
from marl_stable.investigate.reward.evidence import Evidence
from marl_stable.investigate.reward.fitting import to_come
from marl_stable.investigate.reward.incentives import (
    constant_action_is_optimal,
    episode_length_incentive,
    policy_is_worse,
    reward_hacking,
    shaping_changes_task,
)
from marl_stable.investigate.reward.play import Floats, known
from marl_stable.investigate.reward.statistics import middle, upper_bound
from marl_stable.investigate.reward.words import found, number
from marl_stable.monitor.case import Finding

SMALLEST, LARGEST = 0.01, 300.0  # deviations of returns that are learned without trouble: as the monitor's, mild ones
OFFSET = 50.0  # median reward in robust deviations; tasks without an offset have 1 to 3
MATTERS = 0.1  # share of the variance of returns from which a term nobody can move is a nuisance
SURE = 4.0  # standard errors
FEWEST_PAID = 10  # steps at which a term was paid, to judge it
DOMINATES, UNFELT = 0.95, 0.01  # shares of the advantage
FAINT = 0.1  # of the larger term's size, as a share of 0.01 is where the two have nothing to do with each other
DENSE = 0.9  # share of zeros above which a term is rare, and small shares are in its nature
OPPOSED, ALIKE = -0.8, 0.3  # correlation of two terms' advantages, and the least ratio of their sizes, in a fight
LAZY = 0.01  # of what the usual agent of the group changes
SAME = 1e-7


def judge(x: Evidence) -> list[Finding]:
    """All findings, the root first."""
    return [finding for look in ORDER for finding in look(x)]


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
            f"{_term(entry['name'])} of {entry['agent']} was NaN or infinite in {count:,} of {steps:,} steps of random "
            "play: one such number is enough to spoil a network.",
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
        f"once in {1 / bound:,.0f} steps, so that nothing can be learned from it.",
        "Check that the environment pays at all; where the goal is too rare to be met by chance, begin nearer to it or "
        "pay for approaching it (by the difference of a potential, which keeps the task the same).",
    )


def reward_uncontrollable(x: Evidence) -> list[Finding]:
    """Terms that vary, matter, and go their own way."""
    findings = []
    sums, whole = x.random.play.sums(), x.random.play.returns()
    for k, term in enumerate(x.who.terms):
        own = [
            n for n in np.flatnonzero(x.who.has[:, k]) if _paid_often(x, int(n), k) and float(sums[:, n, k].std()) > 0
        ]
        share = [float(sums[:, n, k].var() / max(whole[:, n].var(), sums[:, n, k].var())) for n in own]
        fixed = [n for n in own if not _moved(x, int(n), k)]
        if not fixed or len(fixed) < len(own) or max(share) < MATTERS:
            continue
        where = {"term": term} | ({"agent": x.who.agents[fixed[0]]} if len(fixed) == 1 else {})
        control = float(x.control.share[fixed, k].max())
        evidence = {"explained_by_actions": control, "p": float(x.control.p[fixed, k].min()), "of_return": max(share)}
        told = (
            f"Nobody can move {_term(term)}: drawing all actions anew explains {control:.2%} of its variance, "
            f"and it makes {max(share):.0%} of that of returns. For learning it is noise."
        )
        remedy = "Take the term out, or pay for something that actions change; more samples only average the noise."
        findings.append(found("reward_uncontrollable", 0.9, where, evidence, told, remedy))
    return findings


def _paid_often(x: Evidence, n: int, k: int) -> bool:
    values = known(x.random.play.terms[..., n, k])[x.random.play.live]
    return int((values != np.median(values)).sum()) >= FEWEST_PAID


def _moved(x: Evidence, n: int, k: int) -> bool:
    """Whether redrawn actions, or any candidate, changed the term by more than luck does."""
    if x.control.share[n, k] >= LEAST and x.control.p[n, k] <= CHANCE:
        return True
    before = x.random.play.sums()[:, n, k]
    for candidate in x.candidates.values():
        gap = candidate.play.sums()[:, n, k] - before
        error = float(gap.std(ddof=1) / np.sqrt(len(gap))) if len(gap) > 1 else np.inf
        if candidate is not x.random and abs(float(gap.mean())) > SURE * error + SAME * float(np.abs(before).max()):
            return True
    return False


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
        f"{_term(o.term)} in step {o.step} of copy {o.copy}, after action {did}; such were {o.share:.2%} of the steps."
    )
    remedy = "Clip or repair that term; normalised rewards and gradient clipping keep the damage small."
    config = {"algo.normalize_reward": True, "algo.max_grad_norm": "adaptive"}
    return [found("reward_outliers", 0.9, where, evidence, told, remedy, config)]


def reward_terms_conflict(x: Evidence) -> list[Finding]:
    """Two terms of an agent that pay for opposite things."""
    worst: tuple[float, int, int, int] | None = None
    for (n, i, j), value in x.together.items():
        sizes = sorted((float(x.spread[n, i]), float(x.spread[n, j])))
        fights = value < OPPOSED and sizes[0] >= ALIKE * sizes[1]
        if fights and (worst is None or value < worst[0]):
            worst = (value, n, i, j)
    if worst is None:
        return []
    value, n, i, j = worst
    one, other = x.who.terms[i], x.who.terms[j]
    evidence = {"correlation": value, "left": _left(x, n, i, j)}
    told = (
        f"{_term(one)} and {_term(other)} of {x.who.agents[n]} fight: what gains by one loses by the other "
        f"(correlation {value:.2f} of their advantages), and {evidence['left']:.0%} of their size is left in the sum."
    )
    remedy = "Decide which of the two is the task, and drop or shrink the other."
    return [found("reward_terms_conflict", 0.85, {"agent": x.who.agents[n], "term": one}, evidence, told, remedy)]


def _left(x: Evidence, n: int, i: int, j: int) -> float:
    one, other, r = x.spread[n, i], x.spread[n, j], x.together[n, i, j]
    return float(np.sqrt(max(0.0, one**2 + other**2 + 2 * r * one * other)) / (one + other))


def reward_term_dominates(x: Evidence) -> list[Finding]:
    """One term that is all that is felt, and others that are not."""
    if len(x.who.terms) < 2:
        return []
    share = [float(x.share[x.who.has[:, k], k].mean()) for k in range(len(x.who.terms))]
    k = int(np.argmax(share))
    unfelt = [j for j in range(len(share)) if j != k and abs(share[j]) < UNFELT and _to_be_felt(x, j, k)]
    if share[k] < DOMINATES or not unfelt:
        return []
    j = min(unfelt, key=lambda other: abs(share[other]))
    evidence = {"share": share[k], "share_of_the_other": share[j]}
    told = (
        f"{_term(x.who.terms[k])} makes {share[k]:.1%} of what agents learn from, and {_term(x.who.terms[j])} "
        f"{share[j]:.2%}: they cannot feel it."
    )
    remedy = f"Rescale the two until both are felt, or leave {x.who.terms[j]!r} out; nothing is rescaled for you."
    return [found("reward_term_dominates", 0.85, {"term": x.who.terms[k]}, evidence, told, remedy)]


def _to_be_felt(x: Evidence, j: int, k: int) -> bool:
    """Whether term `j` is dense, varies and can be moved, but for its size next to `k`'s."""
    own = [int(n) for n in np.flatnonzero(x.who.has[:, j])]
    entries = [entry for entry in x.terms if entry["name"] == x.who.terms[j]]
    dense = min(entry["zero"] if entry["zero"] is not None else 1.0 for entry in entries) < DENSE
    small = [n for n in own if 0 < x.spread[n, j] < FAINT * x.spread[n, k]]
    return dense and any(_moved(x, n, j) for n in small)


def lazy_agent(x: Evidence) -> list[Finding]:
    """An agent whose actions change nothing that anybody is paid, in a group whose others' do."""
    influence, start, findings = x.control.influence, 0, []
    for group in x.spec.groups if influence is not None else ():
        assert influence is not None
        paid = influence.paid[start : start + len(group.agents)]
        usual = float(np.median(np.sort(paid)[len(paid) // 2 :]))
        for i in np.flatnonzero(paid <= LAZY * usual) if len(paid) > 1 and usual > 0 else ():
            agent, ratio = group.agents[i], float(paid[i]) / usual
            told = (
                f"What {agent} does changes returns by {ratio:.1%} of what the others of its group change (medians "
                "over episodes): it can do as it likes."
            )
            remedy = (
                "Pay for what this agent is there to do, if anything: its own reward, or its difference to the team."
            )
            findings.append(found("lazy_agent", 0.8, {"agent": agent}, {"influence": ratio}, told, remedy))
        start += len(group.agents)
    return findings


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
        f"{agent} is paid about {number(level)} a step whatever it does, {ratio:,.0f} times the deviation of its "
        "rewards: what actions change of it drowns."
    )
    remedy = "Subtract the constant in the environment, or normalise rewards; where episodes can end early, a constant "
    remedy += "pays for living long, or for dying."
    evidence = {"offset_over_scale": ratio, "reward_mean": level}
    config: dict[str, Any] = {"algo.normalize_reward": True}
    return [found("reward_offset", 0.85, {"agent": agent}, evidence, told, remedy, config)]


def _offset(x: Evidence) -> tuple[str, float, float]:
    """The agent with the largest offset, in robust deviations, and its median reward."""
    worst = ("", 0.0, 0.0)
    for n, agent in enumerate(x.who.agents):
        values = known(x.random.play.reward[..., n][x.random.play.live])
        median, scale = middle(values)
        if scale > 0 and abs(median) / scale > worst[1]:
            worst = (agent, abs(median) / scale, median)
    return worst


def better(one: Candidate, other: Candidate) -> bool:
    """Whether `one` is paid more, for sure."""
    gap, error = difference(one, other)
    return gap > SURE * error and gap > 0


def _term(name: str) -> str:
    return "the reward" if name == "reward" else f"the term {name!r}"


Look = Callable[[Evidence], list[Finding]]
ORDER: tuple[Look, ...] = (
    reward_non_finite,
    no_reward_signal,
    reward_outliers,
    reward_uncontrollable,
    reward_hacking,
    episode_length_incentive,
    shaping_changes_task,
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
    "episode_length_incentive",
    "shaping_changes_task",
    "reward_terms_conflict",
    "reward_term_dominates",
    "lazy_agent",
    "constant_action_is_optimal",
    "reward_offset",
    "reward_scale_too_small",
    "reward_scale_too_large",
)
