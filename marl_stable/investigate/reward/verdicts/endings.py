"""What an episode's length is worth: dying early, living long, or never finishing may pay most."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from marl_stable.investigate.reward.candidates import Candidate
from marl_stable.investigate.reward.evidence import Evidence
from marl_stable.investigate.reward.play import Floats, known
from marl_stable.investigate.reward.words import found, number
from marl_stable.monitor.case import Finding

FEWEST = 8  # episodes that ended early, to judge what ending pays
VARIES = 0.1  # spread of episode lengths, as a share of the longest
ALWAYS = 0.9
BY_LENGTH = 0.8  # share of the variance of returns


class Endings(NamedTuple):
    """Episodes that ended by themselves before the longest."""

    lengths: Floats  # (M,) of all episodes
    returns: Floats  # (M,)
    early: np.ndarray[tuple[int], np.dtype[np.bool_]]  # (M,) terminated, and not at the very end
    last: Floats  # (M,) what the last step was paid
    before: Floats  # (M,) what a step before it was paid on average


def endings(candidates: list[Candidate]) -> Endings:
    """Of all episodes of these candidates, agents' means."""
    rows = []
    for candidate in candidates:
        play = candidate.play
        reward, lengths = known(play.reward).mean(2), play.live.sum(0)
        for e, length in enumerate(lengths):
            paid = reward[:length, e]
            over = bool(play.terminated[length - 1, e].any()) and bool(play.over[e])
            rows.append((length, paid.sum(), over, paid[-1], paid[:-1].mean() if length > 1 else paid[0]))
    lengths, returns, early, last, before = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    return Endings(lengths, returns, (early > 0) & (lengths < lengths.max()), last, before)


def bonus_unclaimed(one: Candidate, others: list[Candidate]) -> float:
    """What the ends that `others` came to were paid beyond a usual step of `one`; 0 where it comes to them as well."""
    e, mine = endings([one, *others]), len(one.play.lengths)
    if int(e.early.sum()) < FEWEST or e.early[:mine].any():
        return 0.0
    return float(e.last[e.early].mean() - e.before[:mine].mean())


def episode_length_incentive(x: Evidence) -> list[Finding]:
    """Dying early, living long, or not finishing pays."""
    e = endings(list(x.candidates.values()))
    if int(e.early.sum()) < FEWEST or np.ptp(e.lengths) < VARIES * e.lengths.max():
        return []
    return _dying(e) or _not_finishing(e) or _living(x, e)


def _dying(e: Endings) -> list[Finding]:
    """Steps cost, and an end costs less than those it spares."""
    rate = float(np.average(e.before, weights=e.lengths))
    costs = float((e.before < 0).mean())
    spared = -rate * float((e.lengths.max() - e.lengths[e.early]).mean())
    price = -float(e.last[e.early].mean())
    r = np.corrcoef(e.lengths, e.returns)[0, 1] if e.returns.std() > 0 else 0.0
    if costs < ALWAYS or price < rate * 1e-9 or price > spared or r > -0.5:
        return []
    evidence = {"reward_per_step": rate, "price_of_ending": price, "spared": spared, "correlation": float(r)}
    told = (
        f"Ending early pays: a step costs {number(-rate)} on average, an early end {number(price)}, and it spares "
        f"{number(spared)} of steps that would follow (return and length correlate by {r:.2f})."
    )
    remedy = "Make the end cost more than what living on does, or pay for each step so that it is worth living."
    return [found("episode_length_incentive", 0.85, {}, evidence, told, remedy)]


def _not_finishing(e: Endings) -> list[Finding]:
    """An end is paid, but less than what going on would have been."""
    some = e.early & (e.lengths > 1)
    if int(some.sum()) < FEWEST:
        return []
    bonus, rate = float(e.last[some].mean()), float(e.before[some].mean())
    forgone = rate * float((e.lengths.max() - e.lengths[some]).mean())
    if bonus <= rate or rate <= 0 or bonus >= forgone or float((e.last[some] > e.before[some]).mean()) < ALWAYS:
        return []
    evidence = {"reward_per_step": rate, "paid_for_ending": bonus, "forgone": forgone}
    told = (
        f"Not finishing pays: the step that ends an episode is paid {number(bonus)}, and the steps it cuts off would "
        f"have been paid {number(forgone)}; an agent does well to stay near the end and never reach it."
    )
    remedy = "Pay more for finishing than for lingering, or make steps cost a little instead of paying."
    return [found("episode_length_incentive", 0.85, {}, evidence, told, remedy)]


def _living(x: Evidence, e: Endings) -> list[Finding]:
    """A term that is paid for being there is nearly all that returns differ by."""
    play = x.random.play
    whole = play.returns().mean(1)
    for k, term in enumerate(x.who.terms):
        if len(x.who.terms) < 2 or whole.std() == 0:
            return []
        values = known(play.terms[..., k])[play.live][:, x.who.has[:, k]]
        paid = values[values != 0]
        alike = len(paid) > 0.8 * values.size and paid.std() < 1e-6 * abs(paid.mean())
        if not alike or paid.mean() <= 0:
            continue
        sums = play.sums()[..., k].mean(1)
        share = float(np.cov(sums, whole)[0, 1] / whole.var(ddof=1))
        rest = [float((c.values - c.play.sums()[..., k].mean(1)).mean()) for c in x.candidates.values()]
        others, bonus = float(np.ptp(rest)), float(paid.mean()) * float(np.ptp(e.lengths))
        if share < BY_LENGTH or others > (1 - BY_LENGTH) * bonus:
            continue
        evidence = {"share_of_returns": share, "worth_of_living": bonus, "worth_of_the_rest": others}
        told = (
            f"Living on is all that pays: the term {term!r}, {number(float(paid.mean()))} for every step, makes "
            f"{share:.0%} of what returns differ by; it is worth {number(bonus)} an episode, all else {number(others)}."
        )
        remedy = "Shrink what is paid for being there until the task is worth more, or drop it."
        return [found("episode_length_incentive", 0.85, {"term": term}, evidence, told, remedy)]
    return []
