"""Faults of networks: activations that grow, dead units, BatchNorm."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from marl_stable.monitor.calibration import Bools, Floats, began, lasting, onset
from marl_stable.monitor.case import Case, Hit, Stage, cause, place
from marl_stable.monitor.gains import no_better_than_chance
from marl_stable.monitor.symptoms import fails

PROBES = 2  # readings that must agree, of what is read now and then
FLAT = 4.0  # before the tanh: there it has lost 99.9% of its slope
GAIN = 5.0  # by which a layer lengthens what it is given; healthy layers stay at 2
ASLEEP = 0.95  # share of a layer's units; ReLU layers of runs that learn well have up to 0.9
FELL_ASLEEP = 0.3  # of a layer's units from one reading to the next, so that most of them are dormant
RATIO = 0.01  # before any step new and old policy are one
HARMED = ("no_learning", "repeated_action", "collapse_after_peak", "diverging_loss")


@cause(
    "activation_growth",
    Stage.NETWORK,
    ("layer_weight",),
    "Layer {layer} of the {network} of {who} lengthens what it is given {gain:.3g} times: what comes after it is "
    "driven into the flat ends of its functions.",
    "Begin with small weights in the last layer, normalise hidden layers, and penalise large actions before the tanh.",
    {"algo.network.norm": "layer", "algo.network.final_init": 3e-3, "algo.action_penalty": 1e-2},
)
def activation_growth(case: Case) -> list[Hit]:
    """Weights, or actions before the tanh, so large that gradients no longer pass, in a run that fails.

    A policy that does well so plays the bounds, which is healthy.
    """
    ill = fails(case, *HARMED)
    found = [*(_gains(case) if ill or no_better_than_chance(case) else ()), *(_answers(case) if ill else ())]
    return sorted(found, key=lambda hit: (hit.onset_steps, -hit.confidence))[:1]


def _gains(case: Case) -> Iterator[Hit]:
    """Layers whose root mean square weight times the root of their inputs is far above 1."""
    for weight in case.recording.series("layer_weight"):
        width = _inputs(case, weight.where)
        gain = weight.values * math.sqrt(width)
        at = lasting(gain > GAIN, weight.steps)
        if width and at is not None:
            yield Hit(0.7, at, place(weight), {"gain": float(gain[-1])})


def _inputs(case: Case, where: dict[str, Any]) -> int:
    """Inputs of a layer whose size counts; 0 for the first, whose inputs nobody knows, and where a norm follows."""
    name, get = str(where.get("layer")), case.config.get
    own, common = f"algo.{where.get('network')}_network", "algo.network"
    hidden = get(f"{own}.hidden") or get(f"{common}.hidden")
    norm = get(f"{own}.norm") or get(f"{common}.norm")
    if not isinstance(hidden, list | tuple) or not hidden:
        return 0
    if name.endswith("final"):
        return int(hidden[-1])
    place_of, _, index = name.rpartition(".")
    inner = place_of.endswith("hidden") and index.isdigit() and 0 < int(index) < len(hidden)
    return int(hidden[int(index) - 1]) if inner and norm == "none" else 0


def _answers(case: Case) -> Iterator[Hit]:
    """Actions before the tanh at its flat ends; doubtful where an entropy says more of why they are there."""
    if case.config.get("algo.squash", True) is not True:
        return
    says = "Actions of {who} before the tanh reach {size:.3g}, where it has no slope left."
    confidence = 0.45 if "losses/entropy" in case.recording else 0.6
    for size in case.recording.series("preactivation"):
        at = lasting(size.values > FLAT, size.steps, PROBES)
        if at is not None:
            yield Hit(confidence, at, place(size), {"size": float(size.values[-1])}, says)


@cause(
    "dormant_units",
    Stage.NETWORK,
    ("dormant",),
    "In layer {layer} of the {network} of {who}, {dormant:.0%} of the units say next to nothing, whatever they see.",
    "Normalise hidden layers, or use an activation that always has a slope.",
    {"algo.network.norm": "layer", "algo.network.activation": "tanh"},
    last_resort=True,
)
def dormant_units(case: Case) -> list[Hit]:
    """Nearly all units of a layer are dormant, or most were from the start or have become so at once, and the run
    fails; in many a run that does well most of them fall asleep by and by."""
    if not fails(case, *HARMED):
        return []
    hits = []
    for share in case.recording.series("dormant"):
        at = lasting(_asleep(case, share.values), share.steps, PROBES)
        if at is not None:
            hits.append(Hit(0.6, at, place(share), {"dormant": float(share.values[-1])}))
    return sorted(hits, key=lambda hit: (hit.onset_steps, -hit.evidence["dormant"]))[:1]


def _asleep(case: Case, share: Floats) -> Bools:
    """`(n,)` whether nearly all units are dormant, or most since many became so at once; a fresh network is awake."""
    first = share[:1] if case.config.get("init_from") else np.zeros(1)
    fell = np.maximum.accumulate(np.diff(share, prepend=first) > FELL_ASLEEP)
    return np.asarray((share > ASLEEP) | (fell & (share > 0.5)))


@cause(
    "batchnorm_mismatch",
    Stage.OBJECTIVE,
    ("first_ratio",),
    "Networks with BatchNorm answer otherwise in an update than when they acted: before a single step of learning, "
    "probabilities of {who} are off by a factor of up to {factor:.3g}.",
    "Let BatchNorm act and learn on the same running statistics, or use LayerNorm.",
    {"algo.network.norm": "layer"},
)
def batchnorm_mismatch(case: Case) -> list[Hit]:
    """Ratios that are not 1 before the first step, of networks with BatchNorm."""
    if not uses_batchnorm(case):
        return []
    for ratio in case.recording.series("first_ratio"):
        at = onset(ratio.values > RATIO, ratio.steps)
        if at is not None:
            factor = 1 + float(np.median(ratio.values[ratio.steps >= at]))
            return [Hit(0.95, began(at, ratio.steps), place(ratio), {"factor": factor})]
    return []


def uses_batchnorm(case: Case) -> bool:
    """Whether any network has BatchNorm."""
    return any(
        case.config.get(f"algo.{part}.norm") == "batch" for part in ("network", "actor_network", "critic_network")
    )
