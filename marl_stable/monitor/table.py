"""Every signal of the monitor by name: the vocabulary in which recordings are written and detectors read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Axis = Literal["row", "agent", "dimension", "feature", "layer", "unit", "term"]
Worst = Literal["mean", "max"]
NETWORKS = ("actor", "critic")
Host = Mapping[str, Mapping[str, NDArray[np.float64]]]
"""An iteration's figures on the host: tag -> group -> numbers, in the shape of the tensor that they were."""
PREFIX = "stability/"


class Signal(NamedTuple):
    """What one signal's tensor is indexed by, and what stands for all its parts in metrics.csv.

    `row`: a row of the network's optimiser, one where agents share, else one per agent. `layer`: one per weight matrix;
    `unit`: one per layer of units. Both are the `layer` of a place.
    """

    axes: tuple[Axis, ...]
    told_as: Worst
    says: str


def _of(text: str, axes: str = "agent", told_as: Worst = "mean") -> Signal:
    return Signal(tuple(axes.split()), told_as, text)  # type: ignore[arg-type]


SIGNALS: dict[str, Signal] = {
    # networks, from their optimisers
    "grad_norm": _of("gradient norm before clipping, mean over the iteration", "row"),
    "grad_norm_clipped_fraction": _of("share of steps that were clipped", "row"),
    "non_finite": _of("share of steps whose gradient was not finite", "row"),
    "skipped": _of("share of steps that were not applied", "row"),
    "stunned": _of("whether one spike has Adam's memory, so that usual gradients hardly move the row", "row"),
    "grad_norm_peak": _of("largest gradient norm of the iteration", "row", "max"),
    "grad_spike": _of("share of steps whose log norm lies over 8 robust deviations above its history", "row"),
    "update_ratio": _of("rms of one step over rms of the weights", "row"),
    "adam_memory": _of(
        "mean gradient norm over what Adam remembers of it, sqrt(sum v); far below 1 after a spike", "row"
    ),
    "eps_frozen": _of("share of weights whose gradients are below ten times Adam's epsilon", "row"),
    "layer_grad": _of("rms gradient of a weight matrix, as Adam remembers it", "row layer"),
    "layer_weight": _of("rms of a weight matrix", "row layer"),
    "layer_change": _of("rms change of a weight matrix since the last reading over its rms", "row layer"),
    "target_change": _of("rms change of a target network since the last reading over its rms", "row"),
    "target_gap": _of("rms distance of a target network from what is learned over its rms", "row"),
    # networks, from the probe
    "dormant": _of("share of units whose mean activation is below 2.5% of their layer's", "unit"),
    "effective_rank": _of("effective rank of the last hidden layer, as a share of its width", ""),
    "step_budget": _of(
        "rate times mean L1 norm of the last hidden layer: how far one step can move the output", "agent"
    ),
    # actions
    "saturation": _of("share of greedy actions within 1% of a bound", "agent dimension"),
    "preactivation": _of("95th percentile of the magnitude before the tanh", "agent dimension"),
    "attenuation": _of("mean slope of the tanh, which scales the actor's gradient", "agent dimension"),
    "responsiveness": _of(
        "how far greedy actions vary with the observation, in half-ranges; discrete: information", "agent dimension"
    ),
    "logit_gap": _of("95th percentile of the gap between the two best logits"),
    "entropy": _of("entropy as a share of its maximum over legal actions"),
    "log_std": _of("log deviation of the Gaussian before the tanh", "agent dimension"),
    "feature_importance": _of("share of a feature in how answers vary", "agent feature", "max"),
    "sameness": _of("how alike executed actions are: share of the most frequent, or of dimensions that do not vary"),
    "bound_clipped": _of("share of executed actions that the environment's bounds changed", "agent dimension"),
    "legal_choices": _of("mean number of legal actions"),
    # values
    "value_mean": _of("mean value estimate, in units of raw reward"),
    "value_std": _of("deviation of value estimates, in units of raw reward"),
    "return_mean": _of("mean Monte-Carlo return, discounted, in units of raw reward"),
    "return_std": _of("deviation of Monte-Carlo returns"),
    "explained_variance": _of("share of the variance of Monte-Carlo returns that the critic explains"),
    "td_scale": _of("rms temporal-difference error over the deviation of returns"),
    "infeasible": _of("share of values that no sequence of rewards seen so far could bring", "agent", "max"),
    "reward_share": _of("share of the reward's variance in that of the critic's target"),
    "log_ratio_peak": _of("largest |log pi_new/pi_old| of the iteration", "agent", "max"),
    "effective_samples": _of("effective sample size of the importance ratios, as a share"),
    "first_ratio": _of(
        "largest |pi_new/pi_old - 1| before the first step of an update; 0 but for rounding", "agent", "max"
    ),
    "entropy_weight": _of("weight of the entropy in the actor's loss, over the rms of advantages; 0.01 is usual", ""),
    "action_slope": _of("how far the critic's value changes over the range of the agent's action, in deviations of it"),
    "regret": _of("what the likeliest choices fall short of the critic's best, as a share of its best less its worst"),
    "slope_agreement": _of("agreement of two critics, or two halves of a batch, on the direction to go"),
    "q_gap": _of("value of the policy's actions over that of the replay's, in deviations"),
    "td_age_ratio": _of("error on the oldest decile of the replay over that on the newest"),
    "data_age": _of("mean age of what was learned from, as a share of the run so far", ""),
    # data
    "obs_mean": _of("mean of a raw feature", "agent feature"),
    "obs_std": _of("deviation of a raw feature", "agent feature"),
    "obs_peak": _of("largest magnitude of a raw feature", "agent feature", "max"),
    "obs_clipped": _of("share of a feature's values beyond the normaliser's clip", "agent feature", "max"),
    "obs_padded": _of("share of living agents' observations that are all zero"),
    "obs_non_finite": _of("share of steps in which a feature was not finite", "agent feature", "max"),
    "reward_mean": _of("mean reward"),
    "reward_std": _of("deviation of rewards"),
    "reward_median": _of("median reward"),
    "reward_mad": _of("median distance of rewards from their median"),
    "reward_p999": _of("99.9th percentile of the distance of rewards from their median"),
    "reward_peak": _of("largest distance of a reward from the median", "agent", "max"),
    "reward_zero": _of("share of rewards that are exactly zero"),
    "reward_non_finite": _of("share of steps in which the reward was not finite", "agent", "max"),
    "excluded": _of("share of steps not learned from, since a number in them was not finite", "agent", "max"),
    "ends_terminated": _of("share of episode ends that are terminations", ""),
    "ends_length_std": _of("deviation of the lengths of terminated episodes", ""),
    "alive": _of("share of steps in which the agent acts"),
    # rewards by term, where the environment reports them
    "term_std": _of("deviation of a reward term", "agent term"),
    "term_zero": _of("share of steps in which a reward term is exactly zero", "agent term", "max"),
    "term_peak": _of("largest distance of a reward term from its mean", "agent term", "max"),
    "term_share": _of(
        "share of a reward term in the variance of advantages; all shares of an agent add up to 1", "agent term", "max"
    ),
    "term_conflict": _of(
        "share of the variance of a term's advantages and of all others' together that they take from each other",
        "agent term",
        "max",
    ),
    "term_left_out": _of("share of steps whose reward is not the sum of its terms", "agent", "max"),
    # the team
    "diversity": _of("distance of an agent's answers from its group's mean answer at the same observations"),
    "equal_actions": _of("share of steps in which the agent does what most of its group do"),
}


Place = tuple[tuple[str, str | int], ...]
"""Parts of a place with their names."""
Layers = Mapping[Axis, Sequence[str]]
"""What a network's layers are called: its `layer`s, which have weights, and its `unit`s; and a group's reward terms."""
NO_LAYERS: Layers = {}


class Column(NamedTuple):
    """One number of a recording: its signal, and its place."""

    signal: str
    place: Place


def signal_of(tag: str) -> tuple[str, str | None]:
    """The signal and the network of a tag: `stability/grad_spike/actor` is grad_spike of the actor."""
    name, _, network = tag.rpartition("/")
    if network in NETWORKS and name not in ("losses", "rewards/terms", ""):
        return name.removeprefix(PREFIX), network
    for network in NETWORKS:
        if tag == f"grad_norm/{network}_clipped_fraction":
            return "grad_norm_clipped_fraction", network
    return tag.removeprefix(PREFIX), None


def columns(
    tag: str, group: str, shape: Sequence[int], agents: Sequence[str], layers: Layers = NO_LAYERS
) -> Iterator[Column]:
    """The places of a tensor's numbers, in the order in which it is flattened.

    What has no name goes by its number.
    """
    signal, network = signal_of(tag)
    axes: tuple[Axis, ...] = SIGNALS[signal].axes if signal in SIGNALS else ("agent",)
    if len(shape) < len(axes):  # discrete actions have no dimensions; where features are many, agents are one
        axes = axes[-len(shape) :] if axes[-1] in ("feature", "layer") and len(shape) else axes[: len(shape)]
    labels = [_labels(axis, size, agents, layers) for axis, size in zip(axes, shape, strict=True)]
    lead: Place = (("group", group),)
    if network is not None:
        lead += (("network", network),)
    yield from _product(signal, lead, labels)


def _product(signal: str, lead: Place, labels: list[list[Place]]) -> Iterator[Column]:
    if not labels:
        yield Column(signal, lead)
        return
    for part in labels[0]:
        yield from _product(signal, lead + part, labels[1:])


def _labels(axis: Axis, size: int, agents: Sequence[str], layers: Layers) -> list[Place]:
    if axis in ("row", "agent"):
        return (
            [(("agent", name),) for name in agents]
            if size == len(agents) and (axis, size) != ("row", 1)
            else [()] * size
        )
    names = layers.get(axis, ())
    part = "layer" if axis == "unit" else axis
    return [((part, name),) for name in (names if len(names) == size else range(size))]
