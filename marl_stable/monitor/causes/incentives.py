"""Rewards that are won otherwise than was meant, where the environment reports their terms.

Without a measure of what was meant, which a recording does not have, the run itself must say so: the reward rises by
one term while another, which even chance was paid, is given up. Costs that rise with what they buy are no sign of it.
"""

from __future__ import annotations

import numpy as np

from marl_stable.monitor.accounts import (
    DENSE,
    NOISES,
    SPARSE,
    Term,
    accounts,
    change,
    lacks_terms,
    latest,
    others,
    per_episode,
    per_step,
    steps_read,
)
from marl_stable.monitor.calibration import READS, began, onset
from marl_stable.monitor.case import Case, Hit, Stage, cause
from marl_stable.monitor.symptoms import shows

LONGER = 0.25  # relative change of the length of episodes
MODEST, RULES = 0.5, 0.9  # share of the variance of advantages
HALF = 0.5
LESS = 0.7  # of what chance paid
PINNED = 0.01  # spread of mean episode lengths, as a share of them
MORE_ALIKE = 0.2  # by which the share of the most frequent action rose


@cause(
    "episode_length_incentive",
    Stage.DATA,
    ("term_share", "ends_terminated", "charts/episode_length"),
    "{term} pays {who} {per_step:.3g} at every step, and episodes went from {length_before:.0f} to {length_after:.0f} "
    "steps for it, while all other terms went from {others_before:.3g} to {others_after:.3g} an episode.",
    "Pay nothing for the mere passing of time, or less than the task is worth; or let an early end cost what it saves.",
    lacks=lacks_terms,
)
def episode_length_incentive(case: Case) -> list[Hit]:
    """A term that pays alike at every step is won by living long, or escaped by an early end, and the others pay for
    it: by living long they lose, by an early end they win nothing."""
    lengths, ends = case.recording.mean("charts/episode_length"), case.recording.mean("ends_terminated")
    if lengths is None or ends is None or len(lengths.values) < 2 * READS or not (ends.values > 0).any():
        return []
    for terms in accounts(case):
        for term in (term for term in terms if term.flat):
            rate, rest = per_step([term]).before, per_episode(case, others(terms, term))
            length = change(lengths.values, _by_chance(term))
            lured = rate > 0 and length.rose and rest.fell
            driven = rate < 0 and length.fell and not rest.rose
            if (lured or driven) and abs(length.after - length.before) > LONGER * length.before:
                evidence = {"per_step": rate, "length_before": length.before, "length_after": length.after}
                evidence |= {"others_before": rest.before, "others_after": rest.after}
                return [Hit(0.85, 0, term.where, evidence)]
    return []


def _by_chance(flat: Term) -> float | None:
    """How long episodes of random play are: what they pay over what a step pays."""
    return flat.chance["per_episode"] / flat.chance["mean"] if flat.chance.get("mean") else None


SHAPED = (
    "{term} pays {who} more and more ({before:.3g} to {after:.3g} a step), while GOAL is met in {goal_after:.2%} of "
    "the steps, where chance met it in {goal_before:.2%}: the hint pays better than what it hints at."
)


def _no_goal(case: Case) -> str | None:
    """Whether no agent has a rare term that chance was paid beside a dense one."""
    for terms in accounts(case):
        for goal in terms:
            hints = [term for term in others(terms, goal) if _is_dense(term)]
            if goal.zero >= SPARSE and per_step([goal]).before > 0 and hints:
                return None
    return lacks_terms(case) or "a term for a rare goal that random play sometimes meets, beside a dense term"


@cause(
    "shaping_changes_task",
    Stage.DATA,
    ("term_share", "term_zero"),
    SHAPED,
    "Make the hint the difference of a potential (gamma times the next state's minus this one's), so that no loop "
    "pays, or pay it once.",
    lacks=_no_goal,
)
def shaping_changes_task(case: Case) -> list[Hit]:
    """A dense term is collected more and more, while a rare one, which even chance was paid, is met less than half as
    often as at first, by steps and by episodes: loops pay better than arriving."""
    for terms in accounts(case):
        if not per_step(terms).rose:
            continue
        for term in terms:
            pays, lost = per_step([term]), [goal for goal in others(terms, term) if _given_up(case, goal)]
            if lost and pays.rose and pays.after > 0 and _is_dense(term):
                before, after = _rates(lost[0])
                evidence = {"before": pays.before, "after": pays.after, "goal_before": before, "goal_after": after}
                return [Hit(0.85, 0, term.where, evidence, _with_name(SHAPED, "GOAL", lost[0]))]
    return []


def _is_dense(term: Term) -> bool:
    """Whether it pays at most steps, and not always the same."""
    return term.zero <= DENSE and not term.flat


def _given_up(case: Case, term: Term) -> bool:
    """Whether a rare term that pays is paid less than half as often as at first, by more than chance explains."""
    steps, episodes = steps_read(term).astype(np.float64), per_episode(case, [term])
    if len(term.figures["zero"]) != len(steps) or term.zero < SPARSE or per_step([term]).before <= 0:
        return False
    before, after = _rates(term)
    noise = np.sqrt(before / steps[:READS].sum() + after / latest(steps).sum())
    fewer = after < HALF * before and episodes.after < HALF * episodes.before
    return bool(fewer and before - after > NOISES * noise)


def _rates(term: Term) -> tuple[float, float]:
    """In which share of the steps it is paid, at first and of late."""
    rates = 1 - term.figures["zero"]
    return 1 - term.zero if term.chance else float(rates[:READS].mean()), float(latest(rates).mean())


def _with_name(sentence: str, mark: str, term: Term) -> str:
    return sentence.replace(mark, term.name.replace("{", "{{").replace("}", "}}"))


HACKED = (
    "Since {term} of {who} makes up {share:.0%} of what its policy is told ({share_before:.0%} at first), the reward "
    "rises while OTHER fell from {other_before:.3g} to {other_after:.3g} a step, below what chance was paid, and the "
    "agents do much the same all the time: it may be won otherwise than was meant."
)


def _nothing_to_neglect(case: Case) -> str | None:
    """Whether no agent has a dense term beside another that paid at most steps from the start."""
    for terms in accounts(case):
        for term in terms:
            paying = [other for other in others(terms, term) if other.zero <= DENSE and per_step([other]).before > 0]
            if _is_dense(term) and paying:
                return None
    return lacks_terms(case) or "two dense terms, one of which random play is paid; or a measure of what is meant"


@cause(
    "reward_hacking",
    Stage.DATA,
    ("term_share", "term_zero"),
    HACKED,
    "Watch an episode (`marl-stable render`) and measure what you mean by a number of your own; then bound that term, "
    "or pay for the outcome instead.",
    lacks=_nothing_to_neglect,
)
def reward_hacking(case: Case) -> list[Hit]:
    """Suspected: one term took over, the reward rises by it, and another that paid even chance was given up, while
    behaviour is pinned. Nothing but a measure of what was meant can prove it."""
    for terms in accounts(case):
        if not per_step(terms).rose or not _pinned(case):
            continue
        for term in terms:
            took_over = term.early("share") < MODEST and term.late("share") > RULES and per_step([term]).rose
            lost = [other for other in others(terms, term) if _neglected(other)]
            if took_over and lost and _is_dense(term):
                share, rest = term.figures["share"], per_step(lost[:1])
                since = onset(share > RULES, term.mean.steps) if len(share) == len(term.mean.steps) else None
                evidence = {"share": term.late("share"), "share_before": term.early("share")}
                evidence |= {"other_before": rest.before, "other_after": rest.after}
                says = _with_name(HACKED, "OTHER", lost[0])
                return [Hit(0.6, began(since or 0, term.mean.steps), term.where, evidence, says)]
    return []


def _neglected(term: Term) -> bool:
    """Whether a term that paid at most steps from the start pays far less than by chance."""
    pays = per_step([term])
    return pays.before > 0 and pays.after < LESS * pays.before and pays.fell and term.zero <= DENSE


def _pinned(case: Case) -> bool:
    """Whether episodes are all equally long by now, or actions much more alike than they were."""
    lengths = case.recording.mean("charts/episode_length")
    if lengths is not None and float(np.ptp(latest(lengths.values))) <= PINNED * float(lengths.values[-1]):
        return True
    alike = case.recording.mean("sameness")
    if alike is None:
        return False
    moves = change(alike.values)
    return shows(case, "repeated_action") or moves.after - moves.before > MORE_ALIKE
