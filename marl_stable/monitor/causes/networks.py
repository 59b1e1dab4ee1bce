"""Faults of networks: activations that grow, dead units, BatchNorm."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from marl_stable.monitor.advice import LARGER_PENALTY, SMALL_START
from marl_stable.monitor.calibration import Bools, Floats, began, lasting, onset
from marl_stable.monitor.case import Case, Hit, Stage, cause, place
from marl_stable.monitor.gains import no_better_than_chance
from marl_stable.monitor.recording import Series
from marl_stable.monitor.symptoms import fails

PROBES = 2  # readings that must agree, of what is read now and then
FLAT = 4.0  # before the tanh: there it has lost 99.9% of its slope
LEAP, ALIKE = 1.5, 0.05  # times as large from one reading to the next; layers by one and the same factor
GAIN, BEGINNING = 5.0, 2.0  # by which a layer lengthens what it is given; healthy ones stay at 2, and begin at 1.4
ASLEEP = 0.95  # share of a layer's units; ReLU layers of runs that learn well have up to 0.9
FELL_ASLEEP, STEADY = 0.3, 0.1  # of a layer's units from one reading to the next, after a change no larger than that
MOST = 0.5  # of a layer's units
RATIO = 0.01  # before any step new and old policy are one
TINY = 1e-12
HARMED = ("no_learning", "repeated_action", "collapse_after_peak", "diverging_loss")


@cause(
    "activation_growth",
    Stage.NETWORK,
    ("layer_weight",),
    "Layer {layer} of the {network} of {who} lengthens what it is given {gain:.3g} times: what comes after it is "
    "driven into the flat ends of its functions.",
    "Begin with small weights in the last layer, normalise hidden layers, and penalise large actions before the tanh.",
    {"algo.network.norm": "layer", "algo.network.final_init": SMALL_START, "algo.action_penalty": LARGER_PENALTY},
    otherwise="Lower the learning rate: the last layer begins small already, hidden layers are normalised, and large "
    "actions are dear.",
)
def activation_growth(case: Case) -> list[Hit]:
    """Weights that leapt as no step of learning moves them; or, in a run that fails, weights or actions before the tanh
    so large that gradients no longer pass.

    A policy that does well so plays the bounds, which is healthy.
    """
    found, ill = list(_leaps(case)), fails(case, *HARMED)
    if ill or no_better_than_chance(case):
        found += _gains(case)
    if ill:
        found += _answers(case)
    return sorted(found, key=lambda hit: (hit.onset_steps, -hit.confidence))[:1]


def _leaps(case: Case) -> Iterator[Hit]:
    """Networks that no optimiser can have moved so between two readings, since Adam's steps are as long in all layers:
    all layers grew by one and the same factor, or one alone to a size that does harm."""
    says = "All layers of the {network} of {who} became {factor:.3g} times as large at once {since}."
    for parts in _by_network(case.recording.series("layer_weight")):
        grew = np.array([part.values[1:] / np.maximum(part.values[:-1], TINY) for part in parts])  # (L, n - 1)
        factor = grew.mean(0)
        multiplied = (factor > LEAP) & (np.ptp(grew, axis=0) <= ALIKE * factor)
        if multiplied.any():
            at = int(multiplied.argmax())
            where = {part: name for part, name in place(parts[0]).items() if part != "layer"}
            yield Hit(0.85, int(parts[0].steps[at + 1]), where, {"factor": float(factor[at])}, says)
        for part, own, others in zip(parts, grew, (np.delete(grew, i, axis=0) for i in range(len(parts))), strict=True):
            gain = part.values * math.sqrt(_inputs(case, part.where))
            alone = (own > GAIN) & (gain[1:] > GAIN) & (others < LEAP).all(0)
            if alone.any() and lasting(gain > GAIN, part.steps) is not None:
                yield Hit(0.85, int(part.steps[int(alone.argmax()) + 1]), place(part), {"gain": float(gain[-1])})


def _by_network(layers: list[Series]) -> Iterator[list[Series]]:
    """The layers of each network that has several, where they were read together and more than once."""
    owned: dict[tuple[Any, ...], list[Series]] = {}
    for layer in layers:
        owned.setdefault(tuple(layer.where.get(part) for part in ("group", "network", "agent")), []).append(layer)
    for parts in owned.values():
        if len(parts) > 1 and len({len(part.values) for part in parts}) == 1 and len(parts[0].values) > 1:
            yield parts


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
    """Actions before the tanh at its flat ends; where an entropy says more of why, doubtful unless weights began so."""
    if case.config.get("algo.squash", True) is not True:
        return
    says = "Actions of {who} before the tanh reach {size:.3g}, where it has no slope left."
    for size in case.recording.series("preactivation"):
        at = lasting(size.values > FLAT, size.steps, PROBES)
        if at is not None:
            by_weights = at <= 0 and _began_large(case, size.where.get("group"))
            confidence = 0.6 if by_weights or "losses/entropy" not in case.recording else 0.45
            yield Hit(confidence, at, place(size), {"size": float(size.values[-1])}, says)


def _began_large(case: Case, group: str | None) -> bool:
    """Whether the last layer of a group's actor began with weights that are too large for what it is given."""
    weights = case.recording.series("layer_weight", group=group, network="actor")
    last = [weight for weight in weights if str(weight.where.get("layer")).endswith("final")]
    return any(weight.values[0] * math.sqrt(_inputs(case, weight.where)) > BEGINNING for weight in last)


@cause(
    "dormant_units",
    Stage.NETWORK,
    ("dormant",),
    "In layer {layer} of the {network} of {who}, {dormant:.0%} of the units say next to nothing, whatever they see.",
    "Normalise hidden layers, or use an activation that always has a slope.",
    {"algo.network.norm": "layer", "algo.network.activation": "tanh"},
    last_resort=True,
    otherwise="Lower the learning rate, leave penalties on weights away, and see whether what the network is given "
    "varies: its layers are normalised already, and its activation has a slope everywhere.",
)
def dormant_units(case: Case) -> list[Hit]:
    """Most units of a fresh network's first layer are dormant; or, in a run that fails, most of any layer were from the
    start or have become so at once, or nearly all are. In many a run, whether it does well or has nothing to learn
    from, most of them fall asleep by and by; and fresh layers sleep the more, the deeper they are."""
    ill, firsts = fails(case, *HARMED), _first_layers(case)
    hits = []
    for share in case.recording.series("dormant"):
        stillborn = _is_fresh(case) and share.values[0] > MOST and (ill or share.where in firsts)
        asleep = (ill & (_silenced(share.values) | (share.values > ASLEEP))) | (stillborn & (share.values > MOST))
        at = lasting(asleep, share.steps, PROBES)
        if at is not None:
            hits.append(Hit(0.6, at, place(share), {"dormant": float(share.values[-1])}))
    return sorted(hits, key=lambda hit: (hit.onset_steps, -hit.evidence["dormant"]))[:1]


def _first_layers(case: Case) -> list[dict[str, Any]]:
    """The places of the layers that see what networks are given."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for share in case.recording.series("dormant"):
        found.setdefault(tuple(share.where.get(part) for part in ("group", "network", "agent")), share.where)
    return list(found.values())


def _is_fresh(case: Case) -> bool:
    """Whether the first reading is of networks that have not learned before."""
    return not case.config.get("init_from") and case.config.get("loop") != "own"


def _silenced(share: Floats) -> Bools:
    """`(n,)` whether most units have been dormant since many became so at once, after a while in which none did."""
    changes = np.diff(share, prepend=share[:1])
    steady = np.abs(np.concatenate([np.ones(1), changes[:-1]])) <= STEADY
    steady[:2] = False  # what the first lessons change
    return np.asarray(np.maximum.accumulate(steady & (changes > FELL_ASLEEP)) & (share > MOST))


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
            settings = dict.fromkeys(_batch_norms(case), "layer")
            return [Hit(0.95, began(at, ratio.steps), place(ratio), {"factor": factor}, config=settings)]
    return []


def uses_batchnorm(case: Case) -> bool:
    """Whether any network has BatchNorm."""
    return bool(_batch_norms(case))


def _batch_norms(case: Case) -> list[str]:
    """The settings that ask for it."""
    keys = (f"algo.{part}.norm" for part in ("network", "actor_network", "critic_network"))
    return [key for key in keys if case.config.get(key) == "batch"]
