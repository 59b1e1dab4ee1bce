"""What a reward pays for that its designer did not mean: repeating one action, going round in circles, and whatever the
user's own metric or expert calls bad."""

from __future__ import annotations

import numpy as np

from marl_stable.investigate.reward.candidates import difference
from marl_stable.investigate.reward.evidence import Evidence
from marl_stable.investigate.reward.metric import Measured
from marl_stable.investigate.reward.play import Floats
from marl_stable.investigate.reward.shaping import CHANGES, FEWEST_LOOPS, POTENTIAL, WORDS, Shape
from marl_stable.investigate.reward.verdicts.endings import bonus_unclaimed
from marl_stable.investigate.reward.words import found, number, the_term
from marl_stable.monitor.case import Finding

SURE = 4.0  # standard errors
PAIRS = (("policy", "random"), ("policy", "expert"), ("random", "expert"), ("best_constant", "expert"))
AS_GOOD = 0.9  # of the way from random to the best known
REAL = 0.002  # of that way, which a deviation must gain to count
SELDOM = 0.1  # share of deviations that gain where none does but by luck
PAYS, FELT = 0.3, 0.1  # of a term's size, gained per step of a loop; of the largest term's, from which it matters


def constant_action_is_optimal(x: Evidence) -> list[Finding]:
    """One action for ever is as good as anything known, and no deviation from it gains.

    Where an end is paid that it never reaches, more may be won than is known.
    """
    constant, random = x.candidates["best_constant"], x.random
    over, error = difference(constant, random)
    best = max((c for c in x.candidates.values()), key=lambda c: float(c.values.mean()))
    distance = float(best.values.mean() - random.values.mean())
    if over <= SURE * error or over <= 0 or over < AS_GOOD * distance or x.deviations is None:
        return []
    gains = float((x.deviations > REAL * over).mean())
    if gains > SELDOM or bonus_unclaimed(constant, list(x.candidates.values())) > (1 - AS_GOOD) * distance:
        return []
    evidence = {
        "best_constant": float(constant.values.mean()),
        "best_known": float(best.values.mean()),
        "random": float(random.values.mean()),
        "deviations_that_gain": gains,
    }
    action = next(iter((constant.action or {}).values()), None)
    told = (
        f"The reward can be won without looking: action {action} for ever returns "
        f"{number(evidence['best_constant'])} (random {number(evidence['random'])}, best known "
        f"{number(evidence['best_known'])}), and {gains:.0%} of {len(x.deviations):,} deviations from it gained."
    )
    remedy = "Change the reward so that what is seen decides what pays; an agent that repeats this action is right."
    return [found("constant_action_is_optimal", 0.85, {}, evidence, told, remedy)]


def shaping_changes_task(x: Evidence) -> list[Finding]:
    """A term about progress that pays for loops."""
    worst: tuple[float, int, int, Shape] | None = None
    for (n, k), shape in x.shapes.items():
        felt = x.spread[n, k] >= FELT * x.spread[n].max()
        if felt and _loops_pay(x.who.terms[k], shape) and (worst is None or shape.gain > worst[0]):
            worst = (shape.gain, n, k, shape)
    if worst is None:
        return []
    _, n, k, shape = worst
    term, agent = x.who.terms[k], x.who.agents[n]
    evidence = {"loop_gain_per_step": shape.gain, "loops": float(shape.loops), "potential_explains": shape.changes}
    told = (
        f"Going round in circles pays: on the way back to where it was ({shape.loops:,} loops seen), {the_term(term)} "
        f"of {agent} pays {number(shape.gain)} a step, and a difference of a potential explains {shape.changes:.0%} of "
        "it."
    )
    remedy = (
        "Pay gamma Phi(next state) - Phi(state) of some potential Phi, that is charge for going back what going "
        "forth was paid; then the best policy stays the same."
    )
    return [found("shaping_changes_task", 0.85, {"agent": agent, "term": term}, evidence, told, remedy)]


def _loops_pay(term: str, shape: Shape) -> bool:
    pays = shape.gain > SURE * shape.error and shape.gain > PAYS * shape.size
    if shape.loops < FEWEST_LOOPS and shape.changes < CHANGES:
        return False  # the fit is all there is to go by, and it does not fit
    named = any(word in term.lower() for word in WORDS)
    return pays and shape.changes < POTENTIAL and (shape.undiscounted >= CHANGES or named)


def reward_hacking(x: Evidence) -> list[Finding]:
    """What is paid more is worse, by the user's metric or expert."""
    if x.metric is not None and (hit := by_metric(x.metric)):
        return [hit]
    expert = x.candidates.get("expert")
    for name in ("random", "no_op", "policy") if expert else ():
        other = x.candidates.get(name)
        if other is None or expert is None or (name == "policy" and x.metric is not None):
            continue
        gap, error = difference(other, expert)
        if name != "policy" and gap > SURE * error and gap > 0:
            evidence = {"expert": float(expert.values.mean()), name: float(other.values.mean())}
            told = (
                f"The reward disagrees with your expert: {name.replace('_', ' ')} returns {number(evidence[name])}, "
                f"the expert {number(evidence['expert'])}."
            )
            remedy = "Look at what the expert is charged for, term by term, and whether that is meant."
            return [found("reward_hacking", 0.8, {}, evidence, told, remedy)]
    return []


def by_metric(m: Measured) -> Finding | None:
    """Of two ways to behave the one that is paid more, but does worse."""
    for one, other in PAIRS:
        if one not in m.metric or other not in m.metric:
            continue
        paid, worse = _gap(m.returns[one], m.returns[other]), _gap(m.metric[other], m.metric[one])
        if paid > SURE / 2 and worse > SURE / 2:
            mean = {who: (float(m.returns[who].mean()), float(m.metric[who].mean())) for who in (one, other)}
            evidence = {
                f"return_{one}": mean[one][0],
                f"return_{other}": mean[other][0],
                f"metric_{one}": mean[one][1],
                f"metric_{other}": mean[other][1],
            }
            told = (
                f"{_called(one)} is paid more than {_called(other).lower()} ({number(mean[one][0])} against "
                f"{number(mean[other][0])}) and does worse: {m.name} {number(mean[one][1])} against "
                f"{number(mean[other][1])}."
            )
            remedy = f"Pay for what {m.name!r} measures; what is paid now can be had without it."
            return found("reward_hacking", 0.85, {}, evidence, told, remedy)
    return None


def _called(name: str) -> str:
    return {"random": "Chance", "best_constant": "One constant action"}.get(name, f"The {name}")


def _gap(one: Floats, other: Floats) -> float:
    """By how many standard errors `one` is larger."""
    error = float(np.sqrt(one.var(ddof=1) / len(one) + other.var(ddof=1) / len(other)))
    gap = float(one.mean() - other.mean())
    return gap / error if error > 0 else (np.inf if gap > 0 else 0.0)


def policy_is_worse(x: Evidence) -> list[Finding]:
    """The trained policy is worse than one constant action: the reward is not to blame."""
    policy, constant = x.candidates.get("policy"), x.candidates["best_constant"]
    if policy is None:
        return []
    gap, error = difference(constant, policy)
    if gap <= SURE * error or gap <= 0:
        return []
    evidence = {"policy": float(policy.values.mean()), "best_constant": float(constant.values.mean())}
    told = (
        f"One constant action returns {number(evidence['best_constant'])}, the trained policy "
        f"{number(evidence['policy'])}: it is the training, and not this reward, that failed."
    )
    remedy = "Ask `marl-stable diagnose RUN` what went wrong in training."
    return [found("unknown", 0.7, {}, evidence, told, remedy)]
