"""Faults of what agents are paid.

Scales are judged by returns before anything was learned: what a learned policy is paid varies less, as it should.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from marl_stable.monitor import calibration
from marl_stable.monitor.accounts import loudest
from marl_stable.monitor.calibration import READS
from marl_stable.monitor.case import Case, Hit, Stage, cause, place
from marl_stable.monitor.causes.data import non_finite
from marl_stable.monitor.recording import Series
from marl_stable.monitor.symptoms import fails, shows, troubles

SMALLEST, LARGEST = 0.1, 30.0  # deviations of returns that networks learn without help
MILD = 10.0  # times beyond these: no finding where the run shows no symptom
OFFSET = 50.0  # median reward in robust deviations of rewards, at random; tasks without an offset have 1 to 3
OUTLIER = 100.0  # largest distance from the median over the usual 99.9th percentile
JUMP_Z = 8.0
ALONE = 3.0  # times the changes beside it, which a leap must be: the steepest part of learning is twice its neighbours
RESCALED = 30.0
ALIKE = 3.0  # within that factor, mean and spread are said to change alike
SETTLED = 0.05  # of the range of mean rewards: that near to the best one, a task is solved
SPARSE = 0.9  # share of zeros, at first, of a reward whose absence is nothing new
LENGTHS = 0.01  # spread of mean episode lengths, as a share of them
NORMALISED = {"algo.normalize_reward": True}


@cause(
    "reward_non_finite",
    Stage.DATA,
    ("reward_non_finite",),
    "The reward of {who} was NaN or infinite in up to {share:.2%} of an iteration's steps.",
    "Repair the reward function, most often a division or a logarithm; under guard such transitions are left out.",
    {"stability": "guard"},
)
def reward_non_finite(case: Case) -> list[Hit]:
    """Rewards that were NaN or infinite."""
    return non_finite(case, "reward_non_finite")


@cause(
    "no_reward_signal",
    Stage.DATA,
    ("reward_std",),
    "No agent's reward has varied {since}: there is nothing that could be learned from it.",
    "Check that the environment pays at all; where the goal is too rare to be met by chance, begin nearer to it or pay "
    "for approaching it.",
)
def no_reward_signal(case: Case) -> list[Hit]:
    """Nobody's reward varies: it never did, or has not since some step; but what is solved is paid alike as well."""
    everyone = [series for series in case.recording.series("reward_std") if len(series.values) >= READS]
    flat = [np.isfinite(series.values) & (series.values <= 1e-7 * _size(case, series)) for series in everyone]
    if not everyone or not all(mask[-READS:].all() for mask in flat):
        return []
    since = max(_last_change(series, mask) for series, mask in zip(everyone, flat, strict=True))
    if since > 0 and not all(_withdrawn(case, series, since) for series in everyone):
        return []
    if since == 0 and _paid_by_length(case):
        return []
    return [Hit(0.95, since, {}, {"reward_std": 0.0})]


def _paid_by_length(case: Case) -> bool:
    """Whether what is paid at each step is alike, but episodes differ in length: as where a pole is to be balanced."""
    lengths, mean = case.recording.mean("charts/episode_length"), case.recording.mean("reward_mean")
    if lengths is None or mean is None or not mean.values.any():
        return False
    return float(np.ptp(lengths.values)) > LENGTHS * float(lengths.values.mean())


def _withdrawn(case: Case, series: Series, since: int) -> bool:
    """Whether the constant reward since then is none that a policy could have settled on: never met before, or below
    the best; nor the nothing of a sparse task."""
    mean, zero = (case.recording.series(name, **series.where) for name in ("reward_mean", "reward_zero"))
    if not mean or (zero and float(np.median(zero[0].values[:READS])) > SPARSE):
        return False
    before, now = mean[0].values[mean[0].steps < since], float(mean[0].values[-1])
    near = max(1e-3 * abs(now), SETTLED * float(np.ptp(before))) if len(before) else 0.0
    reached = best_before(case, mean[0], since), float(before.max(initial=-np.inf))
    return all(abs(now - level) > near for level in reached)


def best_before(case: Case, mean: Series, until: int) -> float:
    """The largest reward met before a step; where only the mean is known, the largest mean."""
    before = mean.steps < until
    largest = float(mean.values[before].max(initial=-np.inf))
    median, peak = (case.recording.series(name, **mean.where) for name in ("reward_median", "reward_peak"))
    if not median or not peak or len(median[0].values) != len(peak[0].values):
        return largest
    reached = median[0].values + peak[0].values
    return max(largest, float(reached[median[0].steps < until].max(initial=-np.inf)))


def _last_change(series: Series, flat: calibration.Bools) -> int:
    moved = np.flatnonzero(~flat)
    return int(series.steps[min(moved[-1] + 1, len(flat) - 1)]) if len(moved) else 0


def _size(case: Case, series: Series) -> float:
    """The usual mean reward, beside which rounding is no variation; one outlier, or what is infinite, does not set
    it."""
    mean = case.recording.series("reward_mean", **series.where)
    known = np.abs(mean[0].values[np.isfinite(mean[0].values)]) if mean else np.empty(0)
    return max(1e-30, float(np.median(known))) if len(known) else 1e-30


@cause(
    "reward_outliers",
    Stage.DATA,
    ("reward_peak", "reward_p999"),
    "Single rewards of {who} lie {reward_p999_over_scale:,.0f} times as far from the median as the usual largest ones.",
    "Clip or repair that term in the environment; normalised rewards and gradient clipping keep the damage small.",
    {"algo.normalize_reward": True, "algo.max_grad_norm": "adaptive"},
)
def reward_outliers(case: Case) -> list[Hit]:
    """Single rewards far beyond all others: measured against the usual 99.9th percentile, so that the goals of a sparse
    task, which are rare and large but alike, are none; nor are all rewards where their scale has changed."""
    hits = []
    for peak in case.recording.series("reward_peak"):
        if rescaled(case, peak.where) is not None:
            continue
        large = case.recording.series("reward_p999", **peak.where)
        usual = _usual(large[0].values if large else np.zeros(1), peak.values)
        beyond = peak.values > OUTLIER * usual
        if usual > 0 and beyond.any() and beyond.mean() < 0.5:
            ratio, count = float(peak.values.max()) / usual, float(beyond.sum())
            evidence = {"reward_p999_over_scale": ratio, "iterations_with_outliers": count}
            since, worst = int(peak.steps[beyond.argmax()]), int(peak.steps[peak.values.argmax()])
            hits.append(Hit(0.93, since, place(peak) | loudest(case, peak.where, worst), evidence))
    return sorted(hits, key=lambda hit: (hit.onset_steps, -hit.evidence["reward_p999_over_scale"]))[:1]


def _usual(p999: calibration.Floats, peaks: calibration.Floats) -> float:
    """The usual size of large rewards; where even the 99.9th percentile is 0, that of the usual largest."""
    typical = float(np.median(p999))
    paid = peaks[peaks > 0]
    return typical if typical > 0 or not len(paid) else float(np.median(paid))


@cause(
    "reward_scale_too_small",
    Stage.DATA,
    ("reward_std",),
    "Returns of {who} deviate by {return_std:.2g}: less than the errors of a fresh critic, which actors then follow.",
    "Normalise rewards, or rescale them so that returns deviate by about 1 to 10.",
    NORMALISED,
)
def reward_scale_too_small(case: Case) -> list[Hit]:
    """Returns differ by so little that the critic's first errors are larger."""
    return _scale(case, lambda std: std < SMALLEST, larger=False)


@cause(
    "reward_scale_too_large",
    Stage.DATA,
    ("reward_std",),
    "Returns of {who} deviate by {return_std:.3g}, a scale that the critic's small steps take very long to reach.",
    "Normalise rewards, or rescale them so that returns deviate by about 1 to 10.",
    NORMALISED,
)
def reward_scale_too_large(case: Case) -> list[Hit]:
    """Returns differ by so much that the critic needs ages to reach them."""
    return _scale(case, lambda std: std > LARGEST, larger=True)


def _scale(case: Case, beyond: Callable[[float], bool], larger: bool) -> list[Hit]:
    """From the start where nothing normalises; else only after a sudden change of scale."""
    mild = MILD if larger else 1 / MILD
    for series in case.recording.series("reward_std"):
        early = _at_random(case, series.where)
        shifted = larger and _offset(case, series.where.get("agent")) > OFFSET  # then returns differ by their length
        wrong = early is not None and beyond(early) and not _normalised(case) and not shifted
        if early is not None and wrong and (confidence := _of_scale(case, beyond(early / mild))):
            return [Hit(confidence, 0, place(series), {"return_std": early})]
        jump = rescaled(case, series.where)
        if jump and (jump[1] > 1) == larger:
            says = "From one iteration to the next, rewards of {who} became {factor:.3g} times what they were."
            return [Hit(0.85, jump[0], place(series), {"factor": jump[1]}, says)]
    return []


def _of_scale(case: Case, extreme: bool) -> float:
    """How certain it is that a scale does harm. In a loop that is not this package's nobody knows what normalises: a
    scale alone is no fault there, and one that is not extreme is named after all others."""
    seen = troubles(case)
    if case.config.get("loop") != "own":
        return 0.9 if extreme or seen else 0.0
    ill = any(symptom.name != "non_finite" for symptom in seen)
    return (0.9 if extreme else 0.45) if ill else 0.0


def _at_random(case: Case, where: dict[str, Any]) -> float | None:
    """Deviation of returns before anything was learned; None where it is not known, or nothing is paid."""
    rewards = (case.facts.get("preflight") or {}).get("rewards") or {}
    known = (rewards.get(where.get("agent")) or {}).get("return_std")
    read = case.recording.series("return_std", **where)
    if known is None and read:
        known = float(np.median(read[0].values[:READS]))
    return float(known) if known else None


def rescaled(case: Case, where: dict[str, Any]) -> tuple[int, float] | None:
    """Step and factor of a sudden lasting change of the reward's spread, by which its mean changed as well: where a
    goal is met for the first time, or always, they differ."""
    means = case.recording.series("reward_mean", **where)
    for series in case.recording.series("reward_std", **where):
        values = series.values
        if len(values) < 2 * READS or values.min() <= 0 or not means or len(means[0].values) != len(values):
            return None
        logs, level = np.log(values), np.log(np.maximum(np.abs(means[0].values), 1e-30))
        at = int(np.abs(np.diff(logs)).argmax()) + 1
        change, moved = (float(np.median(x[at:]) - np.median(x[:at])) for x in (logs, level))
        sudden = min(abs(change), abs(float(logs[at] - logs[at - 1]))) > np.log(RESCALED)
        if sudden and abs(change - moved) < np.log(ALIKE) and not begins(case, series, at):
            return int(series.steps[at]), float(np.exp(change))
    return None


def leap(series: Series) -> tuple[int, float, float, float] | None:
    """Step, level before, level after and z of the largest change between neighbouring readings, where it lasts."""
    values = series.values
    if len(values) < 4 * READS:
        return None
    changes = np.diff(values)
    noise = calibration.sigma(changes) + 1e-9 * float(np.abs(values).max())
    last = int(np.abs(changes[READS : len(changes) - READS + 1]).argmax()) + READS  # of the changes that are the leap
    first, alone = last, ALONE
    for near in (last - 1, last + 1):  # what begins within an iteration is spread over two of them
        if changes[near] * changes[last] > 0 and abs(changes[near]) > JUMP_Z * noise:
            first, last, alone = min(near, last), max(near, last), 2 * ALONE
            break
    before, after = (
        float(np.median(values[max(0, first - 4) : first + 1])),
        float(np.median(values[last + 1 : last + 6])),
    )
    size = abs(float(changes[first : last + 1].sum()))
    beside = np.concatenate([changes[max(0, first - READS) : first], changes[last + 1 : last + 1 + READS]])
    z = size / noise if noise > 0 else 0.0
    if z < JUMP_Z or size < alone * float(np.abs(beside).max()) or abs(after - before) < 0.5 * size:
        return None
    return int(series.steps[first + 1]), before, after, z


def begins(case: Case, series: Series, row: int) -> bool:
    """Whether a reading is the first one of the policy after random actions, or of its first learning: then all
    leaps."""
    first = [ratio.steps[ratio.values > 0][:1] for ratio in case.recording.series("update_ratio", network="actor")]
    warm_up = case.config.get("algo.warm_up")
    times = np.concatenate([*first, [warm_up] if isinstance(warm_up, int) else []])
    before, now = series.steps[max(0, row - 1)], series.steps[row]
    return row > 0 and bool(((before <= times) & (times <= now)).any())


def _normalised(case: Case) -> bool:
    return any(case.config.get(f"algo.normalize_{part}") in (True, "on") for part in ("reward", "value"))


@cause(
    "reward_offset",
    Stage.DATA,
    ("reward_mean",),
    "{who} is paid about {reward_mean:.3g} a step whatever it does, {offset_over_scale:,.0f} times the deviation of "
    "its rewards: what actions change of it drowns.",
    "Subtract the constant in the environment, or normalise rewards; where episodes can end early, a constant pays for "
    "living long, or for dying.",
    NORMALISED,
)
def reward_offset(case: Case) -> list[Hit]:
    """A constant in the reward that dwarfs what actions change of it, from the start; later it is a shift. Where it is
    normalised away, the run has to fail for it to be told, or the critic to know nothing of how returns differ."""
    harmless = _normalised(case) and not fails(case)
    for mean in case.recording.series("reward_mean"):
        ratio = _offset(case, mean.where.get("agent"))
        if ratio > OFFSET and not (harmless and not _nothing_explained(case, mean.where)):
            evidence = {"offset_over_scale": ratio, "reward_mean": float(np.median(mean.values[:READS]))}
            return [Hit(0.9, 0, place(mean), evidence)]
    return []


def _nothing_explained(case: Case, where: dict[str, Any]) -> bool:
    """Whether the critic, in the latter half, has been no better than the mean of returns."""
    explained = case.recording.series("explained_variance", **where)
    return any(
        len(series.values) >= 2 * READS and float(np.median(series.values[len(series.values) // 2 :])) < 0
        for series in explained
    )


def _offset(case: Case, agent: str | None) -> float:
    """The usual reward in robust deviations of rewards, of random play or else of the first readings; 0 for a reward
    that hardly ever varies, as one for every step that is lived."""
    if (rewards := (case.facts.get("preflight") or {}).get("rewards") or {}).get(agent):
        return float(rewards[agent].get("offset_ratio") or 0.0)
    mean, spread = (case.recording.series(f"reward_{name}", agent=agent) for name in ("mean", "std"))
    scale = float(np.median(spread[0].values[:READS])) if spread else 0.0
    return abs(float(np.median(mean[0].values[:READS]))) / scale if mean and scale > 0 else 0.0


@cause(
    "constant_action_is_optimal",
    Stage.DATA,
    ("baselines",),
    "One constant action returns {best_constant:.3g}, as much as the policy ({policy:.3g}) and more than chance "
    "({random:.3g}): under this reward, repeating it is right.",
    "The training is sound; change the reward, so that what is seen decides what pays. The baseline names the action.",
)
def constant_action_is_optimal(case: Case) -> list[Hit]:
    """The policy repeats one action, and the best constant action, far better than chance, is as good as the policy."""
    _, returns = case.returns
    baselines = case.facts.get("baselines") or {}
    random, constant = (_measured(baselines.get(name)) for name in ("random", "best_constant"))
    if random is None or constant is None or not len(returns):
        return []
    if not shows(case, "repeated_action"):
        return []
    level = float(np.median(returns[-READS:]))
    error = max(map(case.baseline_error, ("random", "best_constant")))
    better = constant["return"] - random["return"]
    as_good = abs(constant["return"] - level) <= max(4 * error, 0.1 * better)
    if better <= 5 * error or not as_good:
        return []
    evidence = {"best_constant": constant["return"], "policy": level, "random": random["return"]}
    return [Hit(0.9, 0, {}, evidence)]


def _measured(baseline: dict[str, Any] | None) -> dict[str, Any] | None:
    """A baseline that is known, with its interval: not so where rewards are no numbers."""
    known = baseline is not None and None not in (baseline["return"], *baseline["ci95"])
    return baseline if known else None
