"""Steps that are too long or too short.

Adam divides gradients by their own size, so that how far weights move hangs on the rate alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from marl_stable.monitor import calibration, curves
from marl_stable.monitor.calibration import READS, Bools, Floats
from marl_stable.monitor.case import Case, Hit, Stage, cause, place
from marl_stable.monitor.causes.networks import activation_growth
from marl_stable.monitor.gains import curve, no_better_than_chance, teams
from marl_stable.monitor.recording import Series
from marl_stable.monitor.spreads import spreads
from marl_stable.monitor.symptoms import fails, shows

STUNNED = 0.1  # gradients over what Adam remembers of them
FAST = 0.03  # rms of a step over that of the weights; healthy networks begin at 0.002 to 0.015
USUAL_STEP = 3e-3  # at which a proposed rate aims
SLOWER, FASTER = 0.1, 2.0  # times the rate: of steps that look usual and reach too far; at least, of too short ones
ALMOST_ALL = 0.995  # of a matrix is new: how small it was before is not known
GREW, ALIKE = 1.5, 0.05  # layers that grew by one and the same factor were multiplied, not moved by gradients
HUGE_KL = 1.0  # nats per update: not at all the policy that collected
UNEQUAL = 0.01  # |ratio - 1| before the first step
TRAVELLED, NOWHERE = 0.2, 0.02  # of the weights, in a whole run: less is not enough to learn; is nothing at all
ON_THE_WAY = 0.3  # of what the second third of a way brought, the last one brings: the way does not end there
IDLE = 0.01  # of Adam's usual direction
STOPPED = 30.0  # times as far as since then; a schedule that ends at 0 brings 3 from one reading to the next
LATE, ENOUGH = 0.25, 10  # of the run, and readings, before that can be said


class Layer(NamedTuple):
    """One weight matrix: how far it moved in each iteration, as a share of what it was, and how large it was."""

    where: dict[str, Any]
    steps: Any  # (n,) int64
    change: Floats  # (n,)
    weight: Floats  # (n,)

    @property
    def base(self) -> Floats:
        """`(n,)` smallest size before each iteration: what steps must be compared with where weights then grow."""
        share = np.minimum(np.abs(self.change), ALMOST_ALL)
        before = self.weight * np.sqrt(1 - share**2)
        return np.asarray(np.minimum.accumulate(np.maximum(before, 1e-12)))


class Network(NamedTuple):
    """How far the layers of one network moved: rms change per iteration over what hidden layers' rms was."""

    where: dict[str, Any]
    steps: Any
    moved: Floats  # (n,) the median hidden layer
    farthest: Floats  # (n,) the layer that moved farthest, the last one included
    scaled: Bools  # (n,) all its weights grew by one and the same factor


def layers(case: Case) -> dict[tuple[Any, ...], list[Layer]]:
    """Weight matrices from input to output, by group, network and agent."""
    found: dict[tuple[Any, ...], list[Layer]] = {}
    for change in case.recording.series("layer_change"):
        weight = case.recording.series("layer_weight", **change.where)
        if not weight or len(weight[0].values) != len(change.values):
            continue
        key = tuple(change.where.get(part) for part in ("group", "network", "agent"))
        found.setdefault(key, []).append(Layer(change.where, change.steps, change.values, weight[0].values))
    return found


def networks(case: Case, network: str | None = None) -> Iterator[Network]:
    """All networks, or all actors or critics, whose layers were watched."""
    for owned in layers(case).values():
        if network not in (None, owned[0].where.get("network")):
            continue
        hidden = [layer for layer in owned if not str(layer.where.get("layer")).endswith("final")] or owned
        size = np.median([layer.base for layer in hidden], axis=0)
        moved = np.median([layer.change * layer.weight for layer in hidden], axis=0) / size
        farthest = np.max([layer.change * layer.weight for layer in owned], axis=0) / size
        factors = np.array([layer.weight / _before(layer) for layer in owned])
        known = np.max([layer.change for layer in owned], axis=0) < ALMOST_ALL
        same = known & (np.ptp(factors, axis=0) <= ALIKE * factors.mean(0))
        where = {part: name for part, name in hidden[0].where.items() if part != "layer"}
        yield Network(where, hidden[0].steps, moved, farthest, same & (factors.mean(0) > GREW))


def _before(layer: Layer) -> Floats:
    """`(n,)` size at the reading before; at the first, what is left of it when all growth is its change."""
    first = layer.weight[:1] * np.abs(1 - np.minimum(layer.change[:1], ALMOST_ALL))
    return np.asarray(np.maximum(np.concatenate([first, layer.weight[:-1]]), 1e-12))


def steps_each(case: Case, network: str) -> float | None:
    """Steps of the optimiser in an iteration; None where the configuration does not tell."""
    get = case.config.get
    epochs, parts = get("algo.update_epochs"), get("algo.num_minibatches")
    if isinstance(epochs, int) and isinstance(parts, int):
        return float(epochs * parts)
    every, per = get("algo.train_every"), get("algo.steps_per_update")
    if not isinstance(every, int) or not isinstance(per, int) or per <= 0:
        return None
    delay = get("algo.policy_delay", 1) if network == "actor" else 1
    return max(1.0, every / per / (delay if isinstance(delay, int) and delay > 0 else 1))


@cause(
    "learning_rate_too_high",
    Stage.OPTIMISER,
    ("layer_change", "layer_weight"),
    "Single steps of the {network} of {who} moved its weights by up to {step_over_weights:.1%} of their size, where "
    "0.2% to 1.5% are usual: what was learned is overwritten before it counts.",
    "Lower the learning rate.",
)
def learning_rate_too_high(case: Case) -> list[Hit]:
    """Weights move too far in every step, not in one, and the policy or what is seen of it shows the harm."""
    hits = [hit for network in networks(case) if (hit := _too_fast(case, network)) is not None]
    return sorted(hits, key=lambda hit: (hit.onset_steps, -hit.evidence["step_over_weights"]))[:1]


def _too_fast(case: Case, network: Network) -> Hit | None:
    sizes = _step_sizes(case, network)
    fast = np.flatnonzero(sizes > FAST)
    if not len(fast):
        return _too_far(case, network)
    onset = int(network.steps[fast[0]])
    kl = _largest_kl(case, onset) if network.where.get("network") == "actor" else 0.0
    ill = fails(case)
    if not ill and kl < HUGE_KL:
        return None
    evidence = {"step_over_weights": float(sizes.max())} | ({"approx_kl": kl} if kl else {})
    at = 0 if fast[0] == np.flatnonzero(network.moved > 0)[0] else onset
    return Hit(
        0.9 if ill else 0.6,
        at,
        network.where,
        evidence,
        config=_proposed(case, network, USUAL_STEP / float(sizes.max())),
    )


def _too_far(case: Case, network: Network) -> Hit | None:
    """Steps that look usual by the weights, and yet make another policy of it: through many layers they multiply."""
    said = case.recording.series("losses/approx_kl", group=network.where.get("group"))
    moved = case.recording.series("update_ratio", **network.where)
    if network.where.get("network") != "actor" or not said or not moved or not fails(case):
        return None
    if any(hit.onset_steps <= 0 for hit in activation_growth(case)):
        return None  # weights that are too large from the start make any step one too far
    kl = _of_random_policies(case, said[0])
    far = calibration.persistent(kl.values > HUGE_KL, 2, READS)
    if not far.any() or any((s.values > UNEQUAL).any() for s in case.recording.series("first_ratio")):
        return None  # where ratios are not 1 before the first step, they say nothing of steps
    first = int((kl.values > HUGE_KL).argmax())
    says = "Each update makes another policy of the {network} of {who}: up to {approx_kl:.2g} nats, where 0.03 is much."
    evidence = {"approx_kl": float(kl.values.max()), "step_over_weights": float(moved[0].values.max())}
    rate = _proposed(case, network, SLOWER)
    return Hit(0.85, 0 if first == 0 else int(kl.steps[first]), network.where, evidence, says, rate)


def _of_random_policies(case: Case, kl: Series) -> Series:
    """Without the readings from the collapse of the entropy on: between policies that are nearly deterministic, any
    step is many nats."""
    for spread in spreads(case):
        if spread.where == place(kl):
            narrow = calibration.lasting(spread.entropy < spread.least, spread.steps)
            left = kl.steps < (np.inf if narrow is None else narrow)
            return kl._replace(steps=kl.steps[left], values=kl.values[left])
    return kl


def _step_sizes(case: Case, network: Network) -> Floats:
    """`(n,)` how far a step moved the weights, over their size: by what an iteration brought, and by what Adam says.

    What Adam says is of one step, so it must hold for two of three readings.
    """
    count = steps_each(case, str(network.where.get("network")))
    sizes = np.where(network.scaled, 0.0, network.moved) / count if count else np.zeros(len(network.moved))
    for said in case.recording.series("update_ratio", **network.where):
        if len(said.values) == len(sizes):
            lasting = calibration.persistent(said.values > FAST, 2, READS)
            sizes = np.maximum(sizes, np.where(lasting, said.values, 0.0))
    return np.asarray(sizes)


def _largest_kl(case: Case, since: int) -> float:
    """Nats per update from `since` on."""
    found = [series.values[series.steps >= since] for series in case.recording.series("losses/approx_kl")]
    return max((float(values.max()) for values in found if len(values)), default=0.0)


def _proposed(case: Case, network: Network, factor: float) -> dict[str, Any]:
    """So many times the rate, in one digit."""
    key = f"{network.where.get('network')}_lr"
    own, common = case.config.get(f"algo.{key}"), case.config.get("algo.lr")
    rate = own if isinstance(own, float) else common
    if not isinstance(rate, float):
        return {}
    proposed = float(f"{rate * factor:.0e}")
    return {f"algo.{key}" if isinstance(own, float) else "algo.lr": proposed}


@cause(
    "learning_rate_too_low",
    Stage.OPTIMISER,
    ("layer_change", "layer_weight"),
    "The weights of the {network} of {who} have moved by {travelled:.2%} of their size in the whole run: they are "
    "still where they began.",
    "Raise the learning rate.",
)
def learning_rate_too_low(case: Case) -> list[Hit]:
    """Weights have gone next to nowhere although gradients come, and nothing is learned, next to nothing, or can have
    been; or they have all but stopped at once, while gradients go on."""
    planned = case.facts.get("total_steps") or 0
    if not len(case.recording.steps) or case.recording.steps[-1] < LATE * planned:
        return []
    known = list(networks(case))
    idle = shows(case, "no_learning") or no_better_than_chance(case) or _on_the_way(case, known)
    hits = [hit for network in known if (hit := _too_slow(case, network, idle)) is not None]
    if not hits:
        return [hit for network in known if (hit := _stopped(case, network, idle)) is not None][:1]
    return sorted(hits, key=lambda hit: hit.evidence["travelled"])[:1]


def _on_the_way(case: Case, known: list[Network]) -> bool:
    """Whether no network has gone far, and the return still rises with the way that they go: what was learned is no
    more than the beginning."""
    steps, returns = curve(case)
    if not known or len(returns) < curves.MIN_ROWS or teams(case) > 1:
        return False
    farthest = max(known, key=lambda network: float(network.farthest.sum()))
    way = np.cumsum(farthest.farthest)
    if not 0 < way[-1] <= TRAVELLED:
        return False
    gone = 3 * np.interp(steps, farthest.steps, way / way[-1])
    parts = [returns[(gone >= third) & (gone <= third + 1)] for third in range(3)]
    if min(map(len, parts)) < READS:
        return False
    first, middle, last = (float(np.median(part)) for part in parts)
    return last - middle > ON_THE_WAY * (middle - first) > 0


def _too_slow(case: Case, network: Network, idle: bool) -> Hit | None:
    moving = network.moved > 0
    travelled = float(network.farthest.sum())
    if moving.sum() < ENOUGH or travelled > (TRAVELLED if idle else NOWHERE) or _held_back(case, network.where):
        return None
    size = float(np.median(network.moved[moving])) / (steps_each(case, str(network.where.get("network"))) or 1.0)
    evidence = {"travelled": travelled, "step_over_weights": size}
    rate = _proposed(case, network, max(FASTER, USUAL_STEP / size))
    return Hit(0.85 if idle else 0.7, 0, network.where, evidence, config=rate)


def _stopped(case: Case, network: Network, idle: bool) -> Hit | None:
    """Since when each iteration has moved the weights by a small part of what it did just before."""
    moving = np.flatnonzero(network.moved > 0)
    moved, steps = network.farthest[moving], network.steps[moving]
    if len(moved) < 3 * READS or _held_back(case, network.where):
        return None
    usual = np.median(np.lib.stride_tricks.sliding_window_view(moved, READS), axis=1)  # of READS readings from each on
    since = np.maximum.accumulate(moved[::-1])[::-1]  # the largest from each on
    slow = np.flatnonzero(STOPPED * since[READS : 1 - READS] < usual[:-READS])
    if not len(slow):
        return None
    at = int(slow[0]) + READS
    for memory in case.recording.series("adam_memory", **network.where):
        if np.median(memory.values[memory.steps >= steps[at]]) < STUNNED:
            return None
    for norm in case.recording.series("grad_norm", **network.where):
        before, after = (norm.values[mask] for mask in (norm.steps < steps[at], norm.steps >= steps[at]))
        if not len(before) or np.median(after) < np.median(before) / STOPPED:
            return None
    evidence = {"before": float(usual[at - READS]), "after": float(np.median(moved[at:]))}
    says = (
        "An iteration moves the weights of the {network} of {who} by {after:.1e} of their size {since}, and by "
        "{before:.1e} before."
    )
    return Hit(0.85 if idle else 0.7, int(steps[at]), network.where, evidence, says, {})


def _held_back(case: Case, where: dict[str, Any]) -> bool:
    """Whether something else than the rate keeps weights in place: steps refused, a memory of spikes, no gradients."""
    for signal in ("skipped", "non_finite"):
        if any(np.median(series.values) > 0.5 for series in case.recording.series(signal, **where)):
            return True
    memory = case.recording.series("adam_memory", **where)
    return any(np.median(series.values) < STUNNED for series in memory) or is_idle(case, where)


def is_idle(case: Case, where: dict[str, Any]) -> bool:
    """Whether Adam's direction, about 1 for gradients of any size, is next to nothing: they are below its floor."""
    rate = case.config.get(f"algo.{where.get('network')}_lr") or case.config.get("algo.lr")
    ratios, weights = (case.recording.series(signal, **where) for signal in ("update_ratio", "layer_weight"))
    if not isinstance(rate, float) or not ratios or not weights:
        return False
    size = float(np.median([np.median(series.values) for series in weights]))
    moving = ratios[0].values[ratios[0].values > 0]
    return not len(moving) or float(np.median(moving)) * size / rate < IDLE
