"""Who moves what: terms that go their own way, and agents whose actions change nothing."""

from __future__ import annotations

import numpy as np

from marl_stable.investigate.reward.control import CHANCE, LEAST
from marl_stable.investigate.reward.evidence import Evidence
from marl_stable.investigate.reward.play import known
from marl_stable.investigate.reward.words import found, the_term
from marl_stable.monitor.case import Finding

MATTERS = 0.1  # share of the variance of returns from which a term nobody can move is a nuisance
SURE = 4.0  # standard errors
FEWEST_PAID = 10  # steps at which a term was paid, to judge it
LAZY = 0.01  # of what the usual agent of the group changes
SAME = 1e-7


def reward_uncontrollable(x: Evidence) -> list[Finding]:
    """Terms that vary, matter, and go their own way."""
    findings = []
    sums, whole = x.random.play.sums(), x.random.play.returns()
    for k, term in enumerate(x.who.terms):
        own = [
            n for n in np.flatnonzero(x.who.has[:, k]) if _paid_often(x, int(n), k) and float(sums[:, n, k].std()) > 0
        ]
        share = [float(sums[:, n, k].var() / max(whole[:, n].var(), sums[:, n, k].var())) for n in own]
        fixed = [n for n in own if not moved(x, int(n), k)]
        if not fixed or len(fixed) < len(own) or max(share) < MATTERS:
            continue
        where = {"term": term} | ({"agent": x.who.agents[fixed[0]]} if len(fixed) == 1 else {})
        control = float(x.control.share[fixed, k].max())
        evidence = {"explained_by_actions": control, "p": float(x.control.p[fixed, k].min()), "of_return": max(share)}
        told = (
            f"Nobody can move {the_term(term)}: drawing all actions anew explains {control:.2%} of its variance, "
            f"and it makes {max(share):.0%} of that of returns. For learning it is noise."
        )
        remedy = "Take the term out, or pay for something that actions change; more samples only average the noise."
        findings.append(found("reward_uncontrollable", 0.9, where, evidence, told, remedy))
    return findings


def _paid_often(x: Evidence, n: int, k: int) -> bool:
    values = known(x.random.play.terms[..., n, k])[x.random.play.live]
    return int((values != np.median(values)).sum()) >= FEWEST_PAID


def moved(x: Evidence, n: int, k: int) -> bool:
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
