"""Faults of what agents see: scales, constants, what is not a number."""

from __future__ import annotations

import numpy as np

from marl_stable.monitor.calibration import READS, Bools, onset
from marl_stable.monitor.case import Case, Hit, Stage, cause, place
from marl_stable.monitor.recording import Series
from marl_stable.monitor.spreads import spreads
from marl_stable.monitor.symptoms import SAME, fails, kind_of

DISPARATE = 100.0  # widest feature over the median one: beyond it, the others drown in a network's first layer
CLIPPED = 0.2  # share of a feature's values beyond the normaliser's clip: there it tells above or below, nothing else
JUMP = 30.0  # a feature whose scale changed by that factor is another feature
ROUNDING = 1e-6  # of a feature's size: float32 has 24 bits


@cause(
    "observation_non_finite",
    Stage.DATA,
    ("obs_non_finite",),
    "Feature {feature} of {who}'s observations was NaN or infinite in up to {share:.2%} of an iteration's steps.",
    "Repair the sensor or clip it in the environment; until then such transitions are left out of learning under "
    "guard.",
    {"stability": "guard"},
)
def observation_non_finite(case: Case) -> list[Hit]:
    """Features that were NaN or infinite, the most frequent one named."""
    return non_finite(case, "obs_non_finite")


def non_finite(case: Case, signal: str) -> list[Hit]:
    """The place where a share of what is not finite is largest, since it was first seen anywhere."""
    bad = [series for series in case.recording.series(signal) if (series.values > 0).any()]
    if not bad:
        return []
    worst = max(bad, key=lambda series: float(series.values.sum()))
    at = min(int(series.steps[(series.values > 0).argmax()]) for series in bad)
    where = {"feature": "(all)"} | place(worst) if signal == "obs_non_finite" else place(worst)
    return [Hit(0.99, at, where, {"share": float(worst.values.max())})]


@cause(
    "observation_scale",
    Stage.DATA,
    ("obs_std",),
    "Feature {feature} of {who} varies {scale_over_median:,.0f} times as much as the median feature, unnormalised.",
    "Normalise observations, or bring this feature to the scale of the others in the environment.",
    {"algo.normalize_obs": True},
    otherwise="Keep this feature to one scale in the environment, or clip it there: normalisation, which is on, "
    "follows by and by.",
)
def observation_scale(case: Case) -> list[Hit]:
    """A feature far wider than the others that no normaliser tames, or one that changed its scale under way."""
    features = [series for series in case.recording.series("obs_std") if "feature" in series.where]
    changed = [hit for series in features if (hit := _rescaled(case, series))]
    if changed:
        return [max(changed, key=lambda hit: (hit.confidence, hit.evidence["factor"]))]
    return [] if case.config.get("algo.normalize_obs") in (True, "on") else _disparate(features)


def _disparate(features: list[Series]) -> list[Hit]:
    """From the start: the widest feature against the median one, agent by agent."""
    hits = []
    for owned in _by_owner(features).values():
        early = [float(np.median(series.values[:READS])) for series in owned]
        varying = [scale for scale in early if scale > 0]
        widest = int(np.argmax(early))
        ratio = early[widest] / float(np.median(varying)) if len(varying) > 1 else 0.0
        if ratio > DISPARATE:
            hits.append(Hit(0.9, 0, place(owned[widest]), {"scale_over_median": ratio, "std": early[widest]}))
    return sorted(hits, key=lambda hit: -hit.evidence["scale_over_median"])[:1]


def _rescaled(case: Case, series: Series) -> Hit | None:
    """A lasting change of a feature's deviation by a large factor from one reading to the next."""
    values = series.values
    if len(values) < 2 * READS or values.min() <= 0:
        return None
    logs = np.log(values)
    at = int(np.abs(np.diff(logs)).argmax()) + 1
    change = float(np.median(logs[at:]) - np.median(logs[:at]))
    if min(abs(change), abs(float(logs[at] - logs[at - 1]))) < np.log(JUMP):
        return None
    clipped = case.recording.series("obs_clipped", **series.where)
    tamed = bool(clipped) and float(clipped[0].values[-READS:].max()) < CLIPPED and not fails(case)
    says = "Feature {feature} of {who} changed its scale by a factor of {factor:,.3g} from one iteration to the next."
    return Hit(0.6 if tamed else 0.9, int(series.steps[at]), place(series), {"factor": float(np.exp(change))}, says)


@cause(
    "observation_constant",
    Stage.DATA,
    ("obs_std",),
    "Feature {feature} of {who} varied at first and has been constant {since}.",
    "Look at what the environment writes there: a stuck sensor, a buffer never filled, the observation of another "
    "moment.",
)
def observation_constant(case: Case) -> list[Hit]:
    """Nothing varies in what an agent of a failing run sees (some games need no eyes), or a feature that did has
    stopped while others go on; where someone repeats one action by then, that may be what is seen."""
    hits = []
    for features in _by_owner(case.recording.series("obs_std")).values():
        still = [_still(case, series) for series in features]
        if all(mask.all() for mask in still):
            if not fails(case):
                continue
            where = {part: name for part, name in place(features[0]).items() if part in ("agent", "group")}
            says = "No feature of {who}'s observations ever varied."
            hits.append(Hit(0.6, 0, where, {"varying_features": 0.0}, says))
            continue
        stopped = [(at, series) for series, mask in zip(features, still, strict=True) if (at := _stopped(series, mask))]
        if stopped and not _someone_repeats(case):
            at, series = min(stopped, key=lambda pair: pair[0])
            hits.append(Hit(0.85, at, place(series), {"features_stopped": float(len(stopped))}))
    return sorted(hits, key=lambda hit: (hit.onset_steps, -hit.confidence))[:1]


def _someone_repeats(case: Case) -> bool:
    """Whether what some agent does is nearly all alike of late, or decided without any chance."""
    decided = [spread for spread in spreads(case) if bool((spread.entropy[-READS:] < spread.least).all())]
    return bool(decided) or any(
        float(same.values[-READS:].max()) >= SAME[kind_of(case, same.where.get("agent"))]
        for same in case.recording.series("sameness")
    )


def _still(case: Case, series: Series) -> Bools:
    """Where a feature did not vary but for rounding."""
    peaks = case.recording.series("obs_peak", **series.where)
    return np.asarray(series.values <= (ROUNDING * peaks[0].values.max() if peaks else 0.0))


def _stopped(series: Series, still: Bools) -> int | None:
    if len(still) < 2 * READS or not still[-READS:].all() or still[:READS].any():
        return None
    return onset(still, series.steps)


def _by_owner(features: list[Series]) -> dict[str, list[Series]]:
    owned: dict[str, list[Series]] = {}
    for series in features:
        owned.setdefault(f"{series.where.get('group')}/{series.where.get('agent')}", []).append(series)
    return owned
