"""Faults in what a reward is made up of, where the environment reports its terms.

Nobody knows what a term is meant for, so that no share and no correlation is a fault by itself: a term that rules may
be the task. So each function asks as well what became of the run.
"""

from __future__ import annotations

import numpy as np

from marl_stable.monitor.accounts import (
    UNMOVED,
    Term,
    accounts,
    lacks_terms,
    latest,
    median,
    middle,
    moved,
    others,
    paid,
    per_step,
    uncontrolled,
)
from marl_stable.monitor.calibration import READS, lasting
from marl_stable.monitor.case import Case, Hit, Stage, cause, place
from marl_stable.monitor.gains import gained
from marl_stable.monitor.recording import Series
from marl_stable.monitor.symptoms import fails, shows

RULES = 0.9  # share of the variance of advantages
NOISY = 0.5  # such a share of what nobody can move drowns the rest
OPPOSED, UNDONE = 0.9, 0.98  # of what both vary by; a price takes back some of what it buys, but not nearly all
AVOIDED = 0.2  # of what a cost was at first
WHOLE = "reward"  # what the preflight calls the reward of an environment without terms
TOLD, UNTOLD = 0.5, 0.2  # share of the variance of returns that a critic explains
LASTS = 0.25  # of the run
OUT_OF_REACH = (
    "What {who} is paid has hung on nothing that it does or sees {since}: a critic that told {before:.0%} of how "
    "returns differ tells {after:.0%}, while rewards go on varying."
)
STUCK = ("no_learning", "repeated_action", "oscillation")


def _lacks_play(case: Case) -> str | None:
    """What must be known before a reward can be called one that actions move."""
    if not any(moved(case).values()):
        return "rewards that differ between plays of chance"
    still = any(by_term.get(WHOLE, 1.0) <= UNMOVED for by_term in moved(case).values())
    return "a longer run, since no action of random play moved the reward" if still and not gained(case) else None


@cause(
    "reward_uncontrollable",
    Stage.DATA,
    ("preflight",),
    "No action of anybody moves {term} of {who}, which makes up {share:.0%} of what its policy is told: it is paid "
    "alike whatever is done, and all else drowns in it.",
    "Take out of the reward what actions cannot change, or pay for the part of it that they can.",
    lacks=_lacks_play,
)
def reward_uncontrollable(case: Case) -> list[Hit]:
    """A term, or without terms the whole reward, that was equal in two plays in which everybody acted otherwise, though
    it varies; it makes up most of the advantages, and nothing else is learned. Or, later, a reward of which a critic
    that had explained most explains nothing any more, though it varies as before."""
    if lost := _out_of_reach(case):
        return lost
    known = {terms[0].agent: terms for terms in accounts(case)}
    for agent, by_term in moved(case).items():
        terms = known.get(agent, [])
        for name, share in by_term.items():
            if share <= UNMOVED and (ruling := _ruling(terms, name)) > NOISY and not _learned(case, terms):
                return [Hit(0.95, 0, {"agent": agent, "term": name}, {"share": ruling, "moved": share})]
    return []


def _out_of_reach(case: Case) -> list[Hit]:
    """Since some reading, and to the end, nothing that is seen tells what will be paid. Of a reward that has changed
    its sign or scale the critic learns again to tell, and one that breaks is worse than none."""
    for explained in case.recording.series("explained_variance"):
        at = lasting(explained.values < UNTOLD, explained.steps, 2 * READS)
        row = int(np.searchsorted(explained.steps, at or 0))
        told, left = explained.values[max(0, row - 2 * READS) : row], explained.values[row:]
        known = len(told) == 2 * READS and median(told[:READS]) > TOLD < told[-READS:].max()
        lasts = len(left) >= LASTS * len(explained.values) and median(left) > -UNTOLD
        if at and known and lasts and _varies_on(case, explained, at):
            evidence = {"before": median(told[:READS]), "after": median(left)}
            return [Hit(0.7, at, place(explained), evidence, OUT_OF_REACH)]
    return []


def _varies_on(case: Case, explained: Series, at: int) -> bool:
    """Whether rewards vary since a step at least half as much as before it."""
    for spread in case.recording.series("reward_std", **explained.where):
        since = spread.steps >= at
        return median(spread.values[since]) > 0.5 * median(spread.values[~since][-2 * READS :])
    return False


def _ruling(terms: list[Term], name: str) -> float:
    """The usual share of a term; 1 of a reward without terms."""
    shares = [median(term.figures["share"]) for term in terms if term.name == name]
    return shares[0] if shares else float(not terms and name == WHOLE)


def _learned(case: Case, terms: list[Term]) -> bool:
    """Whether terms that actions can move pay more than at first; without terms, whether the return does."""
    movable = [term for term in terms if not uncontrolled(case, term)]
    return per_step(movable).rose if movable else not shows(case, "no_learning")


@cause(
    "reward_term_dominates",
    Stage.DATA,
    ("term_share",),
    "{share:.0%} of what {who}'s policy was told at first came from {term}, and to mind it is all that was learned: it "
    "went from {before:.3g} to {after:.3g} a step, all other terms from {others_before:.3g} to {others_after:.3g}.",
    "Scale that term down, or bring it in once the others are learned; it should matter no more than what it guards.",
    lacks=lacks_terms,
)
def reward_term_dominates(case: Case) -> list[Hit]:
    """One term made up nearly all of the advantages at first; it is minded by now, and since half of the run the others
    are no better than they were: a cost that is avoided altogether, or a term for which one action is repeated."""
    hits = []
    repeated = shows(case, "repeated_action")
    for terms in accounts(case):
        for term in terms:
            own, rest = per_step([term]), per_step(others(terms, term))
            if not term.early("share") >= RULES or uncontrolled(case, term) or not own.rose:
                continue
            if _improves(others(terms, term)) or not (repeated or _avoided(term)):
                continue
            evidence = {"share": term.early("share"), "before": own.before, "after": own.after}
            evidence |= {"others_before": rest.before, "others_after": rest.after}
            hits.append(Hit(0.95 if repeated else 0.8, 0, term.where, evidence))
    return sorted(hits, key=lambda hit: -hit.evidence["share"])[:1]


def _avoided(term: Term) -> bool:
    """Whether a term that only costs was nearly got rid of by the middle of the run, and still is."""
    first, values = per_step([term]).before, term.mean.values
    return first < 0 and min(middle(values), median(latest(values))) > AVOIDED * first


def _improves(terms: list[Term]) -> bool:
    """Whether these terms together are better of late than at first, or than half-way."""
    pays = per_step(terms)
    return pays.rose or pays._replace(before=middle(paid(terms))).rose


@cause(
    "reward_terms_conflict",
    Stage.DATA,
    ("term_conflict",),
    "What {term} pays {who} its other terms take back, all but {left:.2%} of how they vary: there is next to nothing "
    "left to learn from.",
    "Decide which of them is meant: drop or weaken one of them, or pay it where the other is silent.",
    lacks=lacks_terms,
)
def reward_terms_conflict(case: Case) -> list[Hit]:
    """A term and the sum of the others undo each other all along: nearly wholly, or as good as that in a run that gets
    nowhere."""
    hits, stuck = [], fails(case, *STUCK)
    for terms in accounts(case):
        for term in terms:
            read = term.figures["conflict"]
            if len(read) >= READS and (level := float(np.median(read))) > (OPPOSED if stuck else UNDONE):
                hits.append(Hit(0.96 if stuck else 0.8, 0, term.where, {"left": 1 - level}))
    return sorted(hits, key=lambda hit: hit.evidence["left"])[:1]
