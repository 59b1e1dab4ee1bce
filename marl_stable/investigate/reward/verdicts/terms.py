"""How terms go together: two that fight, and one beside which another is not felt."""

from __future__ import annotations

import numpy as np

from marl_stable.investigate.reward.evidence import Evidence
from marl_stable.investigate.reward.verdicts.influence import moved
from marl_stable.investigate.reward.words import found, the_term
from marl_stable.monitor.case import Finding

DOMINATES, UNFELT = 0.95, 0.01  # shares of the advantage
FAINT = 0.1  # of the larger term's size, as a share of 0.01 is where the two have nothing to do with each other
DENSE = 0.9  # share of zeros above which a term is rare, and small shares are in its nature
OPPOSED, ALIKE = -0.8, 0.3  # correlation of two terms' advantages, and the least ratio of their sizes, in a fight


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
        f"{the_term(one)} and {the_term(other)} of {x.who.agents[n]} fight: what gains by one loses by the other "
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
        f"{the_term(x.who.terms[k])} makes {share[k]:.1%} of what agents learn from, and "
        f"{the_term(x.who.terms[j])} {share[j]:.2%}: they cannot feel it."
    )
    remedy = f"Rescale the two until both are felt, or leave {x.who.terms[j]!r} out; nothing is rescaled for you."
    return [found("reward_term_dominates", 0.85, {"term": x.who.terms[k]}, evidence, told, remedy)]


def _to_be_felt(x: Evidence, j: int, k: int) -> bool:
    """Whether term `j` is dense, varies and can be moved, but for its size next to `k`'s."""
    own = [int(n) for n in np.flatnonzero(x.who.has[:, j])]
    entries = [entry for entry in x.terms if entry["name"] == x.who.terms[j]]
    dense = min(entry["zero"] if entry["zero"] is not None else 1.0 for entry in entries) < DENSE
    small = [n for n in own if 0 < x.spread[n, j] < FAINT * x.spread[n, k]]
    return dense and any(moved(x, n, j) for n in small)
