"""Faults of gradients: spikes, depth, memory.

Adam divides gradients by their own size, so that none is too large or too small by itself. What counts is whether one
gradient is all that Adam remembers, and how gradients compare from layer to layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from marl_stable.monitor import calibration, curves
from marl_stable.monitor.advice import Turned
from marl_stable.monitor.calibration import READS, Bools, Floats
from marl_stable.monitor.case import Case, Hit, Stage, cause, place
from marl_stable.monitor.causes.rates import STUNNED, Layer, is_idle, layers, learning_rate_too_low
from marl_stable.monitor.recording import Series
from marl_stable.monitor.symptoms import fails

SPIKE = 100.0  # largest gradient of an iteration over the usual one
RECORD = 10.0  # a spike over all gradients before it
AROUND, INFINITE = 11, 1e30  # readings that tell what is usual; stands for a norm that is not finite
SMALLEST_NORM = 1e-2  # below it a norm says nothing: after silence every lesson is a spike
VANISHED = 1e-3  # gradient of the first layer over the largest of any
FROZEN = 0.5  # share of weights whose gradients are below ten times Adam's epsilon
MEMORY, FIRST, LAST = "recurrent.memory", "hidden.0", "final"
OUTGROWN = 10.0  # gradient of what is remembered over that of other hidden layers; healthy cells have 0.1 to 1
REMEMBERED = 3.0  # by which a step of memory lengthens it; healthy cells stay near 1
THROUGH_TIME = 1.0  # gradient of layers before the memory over that of the last one; healthy networks have 0.01 to 0.3


# ---- spikes


@cause(
    "exploding_gradients",
    Stage.OPTIMISER,
    ("grad_norm_peak", "grad_norm"),
    "A gradient of the {network} of {who} was {peak_over_usual:,.3g} times as long as usual, and what Adam remembers "
    "of it makes steps after it {memory:.2g} times as long as they should be.",
    "Clip gradients before Adam sees them, and look for what made this one: a reward, a value, an action of tiny "
    "probability.",
    {"algo.max_grad_norm": "adaptive", "stability": "guard"},
    otherwise="Look for what made this one (a reward, a value, an action of tiny probability), and lower the learning "
    "rate: gradients are clipped already.",
)
def exploding_gradients(case: Case) -> list[Hit]:
    """Spikes: gradients far above the ones before and after them that stun Adam or come before a symptom.

    A spike that was clipped or skipped does no harm and is none.
    """
    hits = [hit for peak in case.recording.series("grad_norm_peak") if (hit := _spiked(case, peak)) is not None]
    return sorted(hits, key=lambda hit: (-hit.confidence, hit.onset_steps))[:1]


def _spiked(case: Case, peak: Series) -> Hit | None:
    over = np.minimum(peak.values, INFINITE) / _usual(peak)
    high = _lonely(over > SPIKE)
    if not high.any() or high.argmax() < READS:  # first lessons differ from later ones
        return None
    spikes = np.flatnonzero(high)
    if peak.values[spikes[0]] < RECORD * peak.values[: spikes[0]].max():  # where all is learned, any lesson stands out
        return None
    after, at = _stunned(case, peak, spikes)
    ill = fails(case)
    if after is None and not (ill and over[spikes].max() > 10 * SPIKE):
        return None
    confidence = 0.4 if after is None else 0.95 if ill else 0.8
    evidence = {
        "peak_over_usual": float(over[spikes].max()),
        "spikes": float(len(spikes)),
        "memory": 1.0 if after is None else after,
    }
    says = "A gradient of the {network} of {who} was {peak_over_usual:,.3g} times as long as usual."
    return Hit(confidence, int(peak.steps[at]), place(peak), evidence, says if after is None else None)


def _usual(peak: Series) -> Floats:
    """`(n,)` median of the norms around each reading; never below what says something."""
    return np.maximum(curves.running_median(np.minimum(peak.values, INFINITE), AROUND), SMALLEST_NORM)


def _lonely(high: Bools) -> Bools:
    """High readings but those of READS and more in a row: a level that lasts is no spike."""
    lasting = calibration.persistent(high, READS, READS)
    for _ in range(READS - 1):  # what led to a row of READS belongs to it
        lasting[:-1] |= lasting[1:] & high[:-1]
    return np.asarray(high & ~lasting)


def _stunned(case: Case, peak: Series, spikes: Any) -> tuple[float | None, int]:
    """Gradients over Adam's memory after the first spike that filled it, and which one that was."""
    for memory in case.recording.series("adam_memory", **peak.where):
        for at in spikes:
            later = memory.values[memory.steps > peak.steps[at]][:READS]
            if len(later) and later.max() < STUNNED:
                return float(later.max()), int(at)
    return None, int(spikes[0])


# ---- depth


@cause(
    "vanishing_gradients",
    Stage.OPTIMISER,
    ("layer_grad",),
    "Gradients hardly reach the first layers of the {network} of {who}: {first_over_largest:.1e} of what others get, "
    "and {eps_frozen:.0%} of its weights see less than Adam can tell from nothing.",
    "Take fewer layers, residual blocks or LayerNorm, an initial gain of 1, and an epsilon of 1e-8.",
    {"algo.network.block": "residual", "algo.network.norm": "layer", "algo.adam_eps": Turned(0.0, 1e-8, 1e-8)},
    otherwise="Take fewer layers, and an initial gain of 1: blocks are residual and normalised already.",
)
def vanishing_gradients(case: Case) -> list[Hit]:
    """Most weights of a network get next to no gradient from early on, and the run fails.

    Units that are dead, actions at their bounds and steps that are too short look alike, and are told of as such.
    """
    if not fails(case) or learning_rate_too_low(case):
        return []
    return [hit for first in _first_layers(case) if (hit := _vanished(case, first)) is not None][:1]


def _first_layers(case: Case) -> Iterator[Series]:
    """The gradients of each network's first layer, over the largest gradient of any of its layers."""
    owned: dict[tuple[Any, ...], list[Series]] = {}
    for series in case.recording.series("layer_grad"):
        key = tuple(series.where.get(part) for part in ("group", "network", "agent"))
        owned.setdefault(key, []).append(series)
    for parts in owned.values():
        if len({len(part.values) for part in parts}) == 1:
            largest = np.max([part.values for part in parts], axis=0)
            got = largest > 0
            where = {part: name for part, name in parts[0].where.items() if part != "layer"}
            yield Series("layer_grad", where, parts[0].steps[got], parts[0].values[got] / largest[got])


def _vanished(case: Case, first: Series) -> Hit | None:
    frozen = case.recording.series("eps_frozen", **first.where)
    share = frozen[0].values[-len(first.values) :] if frozen else np.zeros(len(first.values))
    if len(first.values) < READS or len(share) != len(first.values):
        return None
    idle = is_idle(case, first.where)  # else they are weights of features that never vary
    outside = (first.values < VANISHED) | ((share > FROZEN) & idle)
    if outside.mean() < 0.8 or not outside[-READS:].all() or _dead_or_saturated(case, first.where):
        return None
    evidence = {"first_over_largest": float(np.median(first.values)), "eps_frozen": float(np.median(share))}
    at = 0 if outside[0] else int(first.steps[outside.argmax()])
    return Hit(0.7, at, first.where, evidence)


def _dead_or_saturated(case: Case, where: dict[str, Any]) -> bool:
    parts = {part: name for part, name in where.items() if part in ("group", "network")}
    dead = any(series.values[-1] > 0.5 for series in case.recording.series("dormant", **parts))
    bound = case.recording.series("actions/saturation", group=where.get("group"))
    return dead or any(np.median(series.values[-READS:]) > 0.5 for series in bound)


# ---- memory


@cause(
    "recurrent_gradients",
    Stage.OPTIMISER,
    ("layer_grad", "layer_weight"),
    "What the {network} of {who} remembers is lengthened {gain:.3g} times a step, and its gradients are "
    "{memory_over_others:.2g} times those of other layers: they do not come back through time as they should.",
    "Take shorter chunks, LayerNorm, an orthogonal start of the cell, and clip gradients.",
    {"algo.chunk_length": Turned(0.5, 10, 1), "algo.network.norm": "layer", "algo.max_grad_norm": "adaptive"},
    otherwise="Lower the learning rate, and begin the cell orthogonally: chunks are as short as can be already.",
)
def recurrent_gradients(case: Case) -> list[Hit]:
    """The weights of memory are too large, and gradients that came back through time longer than those that did not;
    or, in a run that fails, only its weights are too large, or only its gradients."""
    ill = fails(case)
    found = [hit for owned in layers(case).values() if (hit := _unremembered(case, owned, ill)) is not None]
    return sorted(found, key=lambda hit: hit.onset_steps)[:1]


def _unremembered(case: Case, owned: list[Layer], ill: bool) -> Hit | None:
    names = [str(layer.where.get("layer")) for layer in owned]
    if MEMORY not in names:
        return None
    memory = owned[names.index(MEMORY)]
    own, common = f"algo.{memory.where.get('network')}_network.hidden", "algo.network.hidden"
    hidden = case.config.get(own) or case.config.get(common)
    gain = memory.weight * (math.sqrt(hidden[-1]) if isinstance(hidden, list | tuple) and hidden else 0.0)
    share = _memory_share(case, memory.where, names)
    long = gain > REMEMBERED
    outside = long | (share > OUTGROWN) if ill else long & (_before_memory(case, memory.where) > THROUGH_TIME)
    at = calibration.lasting(outside, memory.steps)
    evidence = {"gain": float(gain[-1]), "memory_over_others": float(share[-1])}
    return None if at is None else Hit(0.8, at, memory.where, evidence)


def _before_memory(case: Case, where: dict[str, Any]) -> Floats:
    """`(n,)` gradient of the first layer, through which all that is remembered came, over that of the last one."""
    parts = {part: name for part, name in where.items() if part != "layer"}
    first, last = (case.recording.series("layer_grad", **parts, layer=name) for name in (FIRST, LAST))
    return first[0].values / np.maximum(last[0].values, 1e-30) if first and last else np.zeros(1)


def _memory_share(case: Case, where: dict[str, Any], names: list[str]) -> Floats:
    """`(n,)` gradient of the memory's weights over the median one of all hidden layers'."""
    parts = {part: name for part, name in where.items() if part != "layer"}
    others = [name for name in names if name != MEMORY and not name.endswith("final")]
    found = [case.recording.series("layer_grad", **parts, layer=name)[0].values for name in [MEMORY, *others]]
    return np.asarray(found[0] / np.maximum(np.median(found[1:], axis=0), 1e-30))
