"""Faults of what agents do, and exploration that never began.

A saturated or a constant policy is where many stories end. So both are told of only where a run is failing, and
saturation only where nothing upstream explains it.
"""

from __future__ import annotations

import numpy as np

from marl_stable.monitor import calibration
from marl_stable.monitor.advice import LARGER_PENALTY, Turned
from marl_stable.monitor.calibration import READS, Bools, Floats
from marl_stable.monitor.case import Case, Hit, Stage, cause, place
from marl_stable.monitor.causes.rewards import constant_action_is_optimal
from marl_stable.monitor.gains import LATE
from marl_stable.monitor.recording import Series, Where
from marl_stable.monitor.symptoms import SAME, UNRESPONSIVE, fails, kind_of, shows

SATURATED = 0.9  # share of greedy actions at a bound, or that have all the probability
FLAT = 0.02  # mean slope of the tanh: the actor's gradient loses all but that
GAP = 4.6  # of the two best logits: the best is 99 times as likely as the next
REGRET = 0.25  # share of the way from the critic's best choices to its worst; policies that learn: 0.04 to 0.2
RISING = 1.5  # times what it was: a response that grows is a policy that learns to see
ALIKE = 0.99  # share of one action among those executed
UNSURE = 0.1  # share of observations at which one action has 99% of the probability: not where all are alike
CERTAIN = 0.1  # entropy as a share of its maximum, below which one of several actions has 96% of the probability
CHOICES = 2.0  # legal actions, on the mean
FAILING = ("no_learning", "repeated_action", "collapse_after_peak")
MISLED = (
    "The critic knows better than what {who} does, which falls short of its best choices by {regret:.0%} of the way to "
    "its worst ones: straight-through gradients are its slopes at single choices, and may lead away from better ones."
)
FOLLOW_VALUES = "Let the actor learn from the critic's value of each choice."


@cause(
    "observation_ignored",
    Stage.RESPONSE,
    ("actions/responsiveness", "obs_std"),
    "What {who} does hardly depends on what it sees (responsiveness {responsiveness:.2g}), although that varies and "
    "actions are not at their bounds.",
    "Check that agents see their own observation of the same moment, and that what they are paid for depends on it.",
    last_resort=True,
)
def observation_ignored(case: Case) -> list[Hit]:
    """A policy away from its bounds that answers alike to everything, and does not begin to see, in a failing run."""
    if not fails(case, *FAILING) or constant_action_is_optimal(case):
        return []
    for response in case.recording.series("actions/responsiveness"):
        deaf = response.values < UNRESPONSIVE[kind_of(case, response.where.get("agent"))]
        since = _lately(case, response, deaf)
        if since is None or _rises(response.values) or not _varies(case, response.where):
            continue
        if _at_bounds(case, response.where) is None:
            evidence = {"responsiveness": float(np.median(response.values[-READS:]))}
            return [Hit(0.55, since, place(response), evidence)]
    return []


@cause(
    "actor_saturation",
    Stage.ACTION,
    ("actions/saturation", "actions/responsiveness"),
    "The policy of {who} is stuck at {saturation:.0%} saturation, where hardly any gradient reaches it.",
    "Go back to a checkpoint from before it; then use a smaller step size for actors and a larger penalty on large "
    "actions.",
    {"algo.action_penalty": LARGER_PENALTY},
    last_resort=True,
    otherwise="Go back to a checkpoint from before it; then use a smaller step size for actors. Large actions are dear "
    "already.",
)
def actor_saturation(case: Case) -> list[Hit]:
    """An agent at its bounds (or with all probability on one action) that responds to nothing, in a failing run; or one
    whose choices its critic holds for bad ones."""
    if not fails(case, *FAILING) or constant_action_is_optimal(case):
        return []
    for response in case.recording.series("actions/responsiveness"):
        deaf = response.values < UNRESPONSIVE[kind_of(case, response.where.get("agent"))]
        stuck = _at_bounds(case, response.where)
        if stuck is not None and _lately(case, response, deaf) is not None:
            evidence = {"saturation": float(stuck.values[-1]), "responsiveness": float(response.values[-1])}
            since = calibration.lasting(stuck.values > SATURATED, stuck.steps) or 0
            return [Hit(0.6, since, place(response), evidence)]
    return _misled(case)


def _misled(case: Case) -> list[Hit]:
    """Agents that keep choosing what their critic values less, since they follow its slope at single choices."""
    if case.config.get("algo.discrete_gradient") != "straight_through":
        return []
    for regret in case.recording.series("regret"):
        since = _lately(case, regret, regret.values > REGRET)
        if since is not None:
            evidence = {"regret": float(np.median(regret.values[-READS:]))}
            config = {"algo.discrete_gradient": "expected"}
            since = calibration.began(since, regret.steps)
            return [Hit(0.7, since, place(regret), evidence, MISLED, config, FOLLOW_VALUES)]
    return []


@cause(
    "too_little_exploration",
    Stage.DATA,
    ("sameness",),
    "{who} does the same in {sameness:.0%} of what it does, though its policy is not that sure: nothing else is tried.",
    "Let it explore: more noise on actions, random steps before learning, or a larger entropy bonus.",
    {"algo.exploration_noise": Turned(2.0, 0.3, 1.0), "algo.warm_up": Turned(2.0, 10_000, 100_000)},
    otherwise="See that what agents choose is what is executed: settings cannot make them try more than they do.",
)
def too_little_exploration(case: Case) -> list[Hit]:
    """Executed actions that are all alike where the policy, not at its bounds, would not make them so.

    Where choices are drawn, that cannot be at any time; continuous ones may become precise, but not begin so.
    """
    if shows(case, "non_finite"):
        return []
    for same in case.recording.series("sameness"):
        discrete = kind_of(case, same.where.get("agent")) == "discrete"
        shares = case.recording.series("actions/saturation", **same.where)
        if not shares or len(shares[0].values) != len(same.values) or not _has_choice(case, same.where):
            continue
        alike = (same.values >= (ALIKE if discrete else SAME["continuous"])) & (shares[0].values < UNSURE)
        since = calibration.onset(alike, same.steps) if discrete else int(same.steps[0]) if alike[0] else None
        if since is not None and not case.config.get("init_from") and not _certain(case, same.where, since):
            settings = {"algo.entropy_coef": Turned(3.0, 0.01, 0.1)} if "algo.entropy_coef" in case.config else None
            evidence = {"sameness": float(same.values[alike].max())}
            return [Hit(0.8, calibration.began(since, same.steps), place(same), evidence, None, settings)]
    return []


def _certain(case: Case, where: Where, steps: int) -> bool:
    """Whether the policy, as it was last probed at `steps`, hardly had a second choice; of discrete actions."""
    entropy = case.recording.series("entropy", **where)
    known = entropy[0].values[entropy[0].steps <= steps] if entropy else np.empty(0)
    return len(known) > 0 and bool(known[-1] < CERTAIN)


def _has_choice(case: Case, where: Where) -> bool:
    legal = case.recording.series("legal_choices", **where)
    groups = (case.facts.get("spec") or {}).get("groups", [])
    single = any(where.get("agent") in group["agents"] and group["action"].get("n") == 1 for group in groups)
    return not single and not (legal and float(np.median(legal[0].values)) < CHOICES)


def _lately(case: Case, series: Series, outside: Bools) -> int | None:
    """Since when a series has been outside its limit up to now, far enough into the run for that to matter."""
    planned = case.facts.get("total_steps") or series.steps[-1]
    return calibration.lasting(outside, series.steps) if series.steps[-1] >= LATE * planned else None


def _rises(values: Floats) -> bool:
    third = max(READS, len(values) // 3)
    before, now = values[:-third], values[-third:]
    return len(before) > 0 and float(np.median(now)) > RISING * float(np.median(before))


def _varies(case: Case, where: Where) -> bool:
    """Whether any feature of what the agent sees varies."""
    features = case.recording.series("obs_std", **where)
    return any(float(np.median(series.values[-READS:])) > 0 for series in features)


def _at_bounds(case: Case, where: Where) -> Series | None:
    """The agent's saturation where it is stuck at it; for continuous actions the tanh has to be flat as well, for
    discrete ones the best logit far ahead."""
    for share in case.recording.series("actions/saturation", **where):
        if len(share.values) < READS or share.values[-READS:].min() <= SATURATED:
            continue
        slopes = case.recording.series("attenuation", **where)
        gaps = case.recording.series("logit_gap", **where)
        flat = [series.values[-1] < FLAT for series in slopes] + [series.values[-1] > GAP for series in gaps]
        if not flat or any(flat):
            return share
    return None
