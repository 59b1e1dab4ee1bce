"""Faults of PPO's own: ratios, units of values, entropy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from marl_stable.monitor import calibration
from marl_stable.monitor.advice import Turned, slower
from marl_stable.monitor.calibration import READS, Floats
from marl_stable.monitor.case import Case, Hit, Stage, cause, place
from marl_stable.monitor.causes.networks import uses_batchnorm
from marl_stable.monitor.causes.rates import learning_rate_too_high, learning_rate_too_low
from marl_stable.monitor.causes.rewards import leap
from marl_stable.monitor.gains import no_better_than_chance
from marl_stable.monitor.spreads import UNIFORM, spreads
from marl_stable.monitor.symptoms import fails

RATIO = 0.01  # before any step new and old policy are one; rounding makes 1e-7 of it, with tiny deviations 1e-4
FEW = 0.3  # of the samples are all that counts
BIAS, STAYS = 0.75, 0.8  # deviations of returns; share that is left of it a third of the run later
SENSELESS = -0.5  # explained variance, which no bias changes
WARMED_UP = 12  # readings before values can be expected to have found the returns
WIDE = 1.0  # log deviation beyond which a tanh makes of it one bound or the other
STRONG = 0.1  # weight of an entropy bonus that competes with advantages of deviation 1
SAYS = (
    "Values of {who} lie {bias_over_return_std:.2g} deviations of returns {side} what came, and stay there: they come "
    "back from their normal units wrong."
)
WRONG_SIGN = (
    "The loss of {who} has charged for randomness {since} (the entropy's weight is {weight:.3g}), where it should pay "
    "for it: the policy decides before it knows."
)
TOO_MUCH = (
    "The entropy of {who}'s policy weighs {weight:.3g} times as much as advantages {since}, and keeps it random "
    "({entropy:.3g} nats a choice)."
)
HARMED = ("no_learning", "repeated_action", "collapse_after_peak", "identical_agents")


# ---- ratios


@cause(
    "ratio_explosion",
    Stage.OBJECTIVE,
    ("first_ratio",),
    "Before a single step of learning, the policy of {who} gives actions up to {first_ratio:.2g} times more or less "
    "probability than when it took them: what it learns from is not what it did.",
    "Let log-probabilities, observations, masks and memories be those of the moment of acting: store what was not "
    "squashed, and move normalisers between updates only.",
)
def ratio_explosion(case: Case) -> list[Hit]:
    """Ratios that are not 1 where they must be; or, more doubtful, that leave 1 without steps being too large."""
    for ratio in case.recording.series("first_ratio"):
        at = calibration.onset(ratio.values > RATIO, ratio.steps)
        if at is not None and not uses_batchnorm(case):
            evidence = {"first_ratio": float(np.median(ratio.values[ratio.steps >= at]))}
            return [Hit(0.95, calibration.began(at, ratio.steps), place(ratio), evidence)]
    return _few_samples(case)


def _few_samples(case: Case) -> list[Hit]:
    if not fails(case) or learning_rate_too_high(case):
        return []
    for share in case.recording.series("effective_samples"):
        at = calibration.onset(share.values < FEW, share.steps)
        if at is not None:
            says = "Only {effective_samples:.0%} of what {who} did counts in its updates: the policy leaves it behind."
            evidence = {"effective_samples": float(share.values[share.steps >= at].min())}
            return [Hit(0.45, at, place(share), evidence, says, {"algo.target_kl": Turned(0.5, 0.02, 0.0)})]
    return []


# ---- units of values


@cause(
    "value_normalisation",
    Stage.OBJECTIVE,
    ("value_mean", "return_mean", "return_std", "first_ratio"),
    SAYS,
    "Let one object turn values into normal units and back, with one mean and deviation, and clip values in its units.",
    {"algo.clip_value": None},
    otherwise="Let one object turn values into normal units and back, with one mean and deviation; or normalise "
    "rewards in place of values.",
)
def value_normalisation(case: Case) -> list[Hit]:
    """A bias of values that more learning does not mend, in a critic that learns in normal units, or is clipped."""
    get = case.config.get
    if get("algo.normalize_value") not in (True, "on") and get("algo.clip_value") is None:
        return []
    if learning_rate_too_low(case):
        return []
    hits = [hit for seen in _biases(case) if (hit := _biased(case, seen)) is not None]
    return sorted(hits, key=lambda hit: -hit.evidence["bias_over_return_std"])[:1]


class Bias(NamedTuple):
    """How far the values of an agent lie above its returns, in deviations of returns; and the returns themselves."""

    where: dict[str, Any]
    steps: Any
    values: Floats  # (n,)
    came: Floats  # (n,)
    spread: Floats  # (n,)


def _biases(case: Case) -> Iterator[Bias]:
    for value in case.recording.series("value_mean"):
        came = case.recording.series("return_mean", **value.where)
        spread = case.recording.series("return_std", **value.where)
        if not came or not spread:
            continue
        steps = np.intersect1d(np.intersect1d(value.steps, came[0].steps), spread[0].steps)
        mean, outcome, std = (s.values[np.isin(s.steps, steps)] for s in (value, came[0], spread[0]))
        if len(steps) and (std > 0).all():
            with np.errstate(invalid="ignore"):  # where all are infinite nothing is told
                off = (mean - outcome) / std
            yield Bias(place(value), steps, off, outcome, std)


def _biased(case: Case, seen: Bias) -> Hit | None:
    """Beyond the limit at all readings of the latter half, to one side, and no closer at its end.

    After what is paid has changed at once, values take their time, and nothing is wrong with their units.
    """
    half = len(seen.values) // 2
    late = seen.values[half:]
    if len(seen.values) < WARMED_UP or not np.isfinite(late).all():
        return None
    thirds = [float(np.median(part)) for part in np.array_split(late, 3)]
    level = abs(float(np.median(late)))
    apart = (np.sign(late) == np.sign(late[0])).all() and float(np.quantile(np.abs(late), 0.1)) > 0.5 * BIAS
    if level < BIAS or not apart or abs(thirds[2]) < STAYS * abs(thirds[0]):
        return None
    if (
        _lags(seen)
        or _senseless(case, seen)
        or any(leap(mean) is not None for mean in case.recording.series("reward_mean"))
    ):
        return None
    inside = np.flatnonzero((np.abs(seen.values) < 0.5 * BIAS) | (np.sign(seen.values) != np.sign(late[0])))
    after = int(inside[-1]) + 1 if len(inside) else 0
    side = "above" if late[0] > 0 else "below"
    at = 0 if after < READS else int(seen.steps[after])
    return Hit(0.8, at, seen.where, {"bias_over_return_std": level}, SAYS.replace("{side}", side))


def _lags(seen: Bias) -> bool:
    """Whether returns move away from the values by more than the bias: these are on their way, not in wrong units."""
    half = len(seen.came) // 2
    moved = float(np.median(seen.came[-READS:]) - np.median(seen.came[half : half + READS]))
    level = float(np.median(seen.values[half:]) * np.median(seen.spread[half:]))
    return abs(moved) > abs(level) and moved * level < 0


def _senseless(case: Case, seen: Bias) -> bool:
    """Whether values do not even go up and down with returns: then the critic is wrong, and not its units."""
    explained = case.recording.series("explained_variance", **seen.where)
    return any(np.median(series.values[len(series.values) // 2 :]) < SENSELESS for series in explained)


# ---- entropy


@cause(
    "entropy_collapse",
    Stage.ACTION,
    ("losses/entropy",),
    "The policy of {who} has had next to no randomness {since} and is no good: what it never tries it cannot learn.",
    "Raise the entropy bonus or lower the learning rate; keep deviations from collapsing.",
    {"algo.entropy_coef": Turned(3.0, 0.03, STRONG)},
    last_resort=True,
    otherwise="Lower the learning rate, and keep deviations from collapsing: the entropy bonus is large already.",
)
def entropy_collapse(case: Case) -> list[Hit]:
    """Deterministic before anything was learned, or an entropy that is a cost where it should be a bonus. What has
    learned and then decides is healthy."""
    for weight in case.recording.series("entropy_weight"):
        at = calibration.onset(weight.values < 0, weight.steps)
        if at is not None:
            evidence = {"weight": float(weight.values[weight.steps >= at].min())}
            return [Hit(0.85, calibration.began(at, weight.steps), place(weight), evidence, WRONG_SIGN, {})]
    if not fails(case, *HARMED) and not no_better_than_chance(case):
        return []
    for spread in spreads(case):
        at = calibration.lasting(spread.entropy < spread.least, spread.steps)
        if at is not None:
            settings = (slower(case.config, "actor") or None) if _strong(case) else None
            return [Hit(0.6, at, spread.where, {"entropy": float(spread.entropy[-1])}, config=settings)]
    return []


@cause(
    "entropy_explosion",
    Stage.ACTION,
    ("losses/entropy",),
    "The policy of {who} stays as random as it can be {since}: the entropy bonus outweighs what is paid.",
    "Lower the entropy bonus, and bound deviations.",
    {"algo.entropy_coef": Turned(0.1, 0.001, 0.0)},
    last_resort=True,
    otherwise="Bound deviations, and see whether agents are paid for anything that they can find: there is no entropy "
    "bonus.",
)
def entropy_explosion(case: Case) -> list[Hit]:
    """A bonus that competes with advantages, and a policy that it keeps as random as can be, or makes more so. Or,
    where nothing is learned, as random as can be to the end; or deviations so wide that only the bounds are played."""
    if outweighed := _outweighed(case):
        return outweighed
    if not fails(case, *HARMED) and not no_better_than_chance(case):
        return []
    for std in case.recording.series("log_std"):
        at = calibration.lasting(std.values > WIDE, std.steps)
        if at is not None:
            says = "The deviation of {who}'s actions has grown to {std:.3g}: most of them lie on the bounds."
            return [Hit(0.7, at, place(std), {"std": float(np.exp(std.values[-1]))}, says)]
    for spread in spreads(case):
        at = calibration.lasting(spread.entropy > spread.most, spread.steps)
        if at is not None and at <= 0.5 * spread.steps[-1]:
            return [Hit(0.7 if _strong(case) else 0.5, at, spread.where, {"entropy": float(spread.entropy[-1])})]
    return []


def _strong(case: Case) -> bool:
    """Whether the bonus is as large as makes sense, or larger."""
    coefficient = case.config.get("algo.entropy_coef")
    return isinstance(coefficient, int | float) and coefficient >= STRONG


def _outweighed(case: Case) -> list[Hit]:
    """Groups whose entropy weighs as much as advantages do, and shows it."""
    for spread in spreads(case):
        for weight in case.recording.series("entropy_weight", group=spread.where.get("group")):
            at = calibration.onset(weight.values >= STRONG, weight.steps)
            under = np.isin(spread.steps, weight.steps[weight.values >= STRONG]) & (spread.steps >= (at or 0))
            if at is None or not under.any():
                continue
            level, before = float(np.median(spread.entropy[under])), spread.entropy[spread.steps < at][-READS:]
            rose = len(before) == READS and level > float(before.max()) + UNIFORM
            if rose or level > spread.most:
                evidence = {"weight": float(np.median(weight.values[weight.steps >= at])), "entropy": level}
                return [Hit(0.85, calibration.began(at, weight.steps), spread.where, evidence, TOO_MUCH)]
    return []
