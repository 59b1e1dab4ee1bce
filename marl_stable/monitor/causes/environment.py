"""Faults between agents and their environment.

Most of them are seen before the first update, by the preflight; what begins under way, by the recording.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from marl_stable.monitor.calibration import READS, Floats, began, lasting, onset
from marl_stable.monitor.case import Case, Hit, Stage, cause, place
from marl_stable.monitor.causes.networks import ASLEEP, activation_growth
from marl_stable.monitor.recording import Series
from marl_stable.monitor.symptoms import fails, shows
from marl_stable.monitor.targets import NOTHING, following

ALWAYS = 0.9  # share of episode ends
SHORTEST_LIMIT = 10  # steps; shorter games have a last round, and no limit
CUT = 0.5  # share of executed actions that the environment's bounds changed
DEAD = 0.5  # share of an agent's dimensions without effect; simple tasks have one that was never used
OUTSIDE = 3.0  # half-ranges from the centre
PADDED = 0.005  # share of a living agent's observations that are all zero
RESETS = 1.25  # times one observation per episode: the figure is of a sample of rows
FEWEST_FEATURES = 4  # so that nothing seen at all is no common observation
OFTEN = 0.5  # of the latest readings
FROZEN = 1e-9  # relative change of a weight matrix over an iteration
WRONG_BOUNDS = {
    "zero_width": "low is not below high, so that there is nothing to choose",
    "infinite": "a bound is infinite",
    "mismatch": "driven to its ends, the network does not reach the bounds",
}


@cause(
    "time_limit_as_termination",
    Stage.ENVIRONMENT,
    ("ends_terminated", "ends_length_std"),
    "{terminated:.0%} of episodes end as if nothing followed, all after exactly the same number of steps, which nobody "
    "sees: a time limit is reported as termination, and values are cut off at it.",
    "Report the limit as truncation in the environment, or say so here.",
    {"env.time_limit_as": "truncation"},
)
def time_limit_as_termination(case: Case) -> list[Hit]:
    """Episodes that terminate at one and the same length, in a game whose clock is not seen: nearly all of them, or
    some where others are truncated at just that length."""
    terminated, lengths = case.recording.series("ends_terminated"), case.recording.series("ends_length_std")
    if not terminated or not lengths or len(lengths[0].values) < READS or _has_last_round(case):
        return []
    share, spread = terminated[0].values, lengths[0].values
    least = 0.0 if _all_last_alike(case) else ALWAYS
    at = lasting(share > least, terminated[0].steps)
    if at is None or spread[-READS:].max() > 0:
        return []
    return [Hit(0.85, began(at, terminated[0].steps), {}, {"terminated": float(share[-1])})]


def _all_last_alike(case: Case) -> bool:
    """Whether episodes that are truncated and those that terminate have the same length: a limit, by two names."""
    lengths = [series.values for series in case.recording.series("charts/episode_length")]
    return bool(lengths) and all(len(x) >= 2 * READS and np.ptp(x) == 0 for x in lengths)


def _has_last_round(case: Case) -> bool:
    """Whether the length of episodes belongs to the game: agents take turns, see a clock, it is over in no time, or a
    policy has found the shortest way to its end."""
    preflight = case.facts.get("preflight") or {}
    longest = (preflight.get("ends") or {}).get("longest")
    turns = bool((case.facts.get("spec") or {}).get("turn_based"))
    clocks = any(seen.get("clock") for seen in (preflight.get("observations") or {}).values())
    in_no_time = longest is not None and longest < SHORTEST_LIMIT
    return turns or clocks or in_no_time or _has_shortest_way(case, preflight.get("ends") or {})


def _has_shortest_way(case: Case, ends: dict[str, Any]) -> bool:
    """Whether episodes have lasted longer than they all do now, by chance or in training, which no limit allows; a pole
    that is balanced has not. Where lengths are not known, whether by chance they ended sooner and later."""
    if ends.get("same_length"):
        return False
    lengths = [series.values for series in case.recording.series("charts/episode_length")]
    longest = ends.get("longest") or 0
    lasted_longer = any(max(longest, x.max()) > x[-READS:].max() for x in lengths)
    return lasted_longer or (not lengths and ends.get("same_length") is False)


@cause(
    "action_range_mismatch",
    Stage.ENVIRONMENT,
    ("preflight",),
    "{share:.0%} of {who}'s actions are cut off at the bounds: the policy works outside them.",
    "Give each dimension of the action space finite bounds with low below high, and let the environment obey them.",
)
def action_range_mismatch(case: Case) -> list[Hit]:
    """Bounds without width, bounds that the network cannot reach, or bounds that cut off most of what it does."""
    for group, found in (case.facts["preflight"].get("range") or {}).items():
        for kind, words in WRONG_BOUNDS.items():
            if found.get(kind):
                where = {"group": group, "dimension": found[kind][0]}
                says = "In the range of {who}'s actions, {dimensions:.0f} dimensions are wrong: " + words + "."
                return [Hit(0.97, 0, where, {"dimensions": float(len(found[kind]))}, says)]
    for cut in case.recording.series("bound_clipped") if fails(case) else []:  # who learns may well play the bounds
        means = case.recording.series("preactivation", **cut.where)
        outside = bool(means) and float(means[0].values[0]) > OUTSIDE  # a policy that went there, not a range too small
        if len(cut.values) >= READS and (cut.values > CUT).all() and not outside:
            return [Hit(0.7, 0, place(cut), {"share": float(cut.values[-1])}, None, {"algo.squash": True})]
    return []


@cause(
    "action_has_no_effect",
    Stage.ENVIRONMENT,
    ("preflight",),
    "Nothing that anybody sees or is paid depends on {who}'s actions.",
    "Look at how the environment reads actions: a wrong index, a wrong scale, rounding to one value, or an agent left "
    "out.",
)
def action_has_no_effect(case: Case) -> list[Hit]:
    """Dimensions or choices that changed nothing in otherwise equal plays; where all of an agent's are, the agent's."""
    found = case.facts["preflight"].get("effects") or {}
    dead: dict[str, list[int]] = {}
    for entry in found.get("without_effect") or []:
        dead.setdefault(entry["agent"], []).append(entry.get("dimension", 0))
    for agent, dimensions in dead.items():
        count = _dimensions(case, agent)
        if len(dimensions) >= count:
            return [Hit(0.9, 0, {"agent": agent}, {})]
        if len(dimensions) > DEAD * count:
            which = "dimensions " + ", ".join(map(str, dimensions)) + " of the actions"
            says = "Nothing that anybody sees or is paid depends on " + which + " of {who}."
            return [Hit(0.8, 0, {"agent": agent, "dimension": dimensions[0]}, {}, says)]
    return _useless_choices(case, found.get("like_choice_0") or [])


def _useless_choices(case: Case, entries: list[dict[str, Any]]) -> list[Hit]:
    """Where most choices of an agent do the same."""
    for entry in entries:
        if len(entry["choices"]) + 1 > DEAD * _choices(case, entry["agent"]):
            says = f"Choices {', '.join(map(str, entry['choices']))} of {{who}} do what choice 0 does."
            return [Hit(0.7, 0, {part: entry[part] for part in ("agent", "dimension") if part in entry}, {}, says)]
    return []


def _action(case: Case, agent: str) -> dict[str, Any]:
    groups = (case.facts.get("spec") or {}).get("groups", [])
    return next((dict(group["action"]) for group in groups if agent in group["agents"]), {})


def _dimensions(case: Case, agent: str) -> int:
    action = _action(case, agent)
    return len(action["low"]) if "low" in action else len(action["n"]) if isinstance(action.get("n"), list) else 1


def _choices(case: Case, agent: str) -> int:
    """Of discrete actions; where an agent makes several choices at once, of the largest."""
    n = _action(case, agent).get("n", 1)
    return max(n) if isinstance(n, list) else int(n)


@cause(
    "masking_error",
    Stage.ENVIRONMENT,
    ("obs_padded",),
    "{padded:.1%} of {who}'s observations are all zero while it counts as acting: padding is learned from.",
    "Report agents that are gone as dead, so that what stands in for them enters no loss.",
)
def masking_error(case: Case) -> list[Hit]:
    """Rows of padding among the observations of an agent that is always reported alive; not where it is alone, since
    nobody is gone then while an episode lasts. Zeros as what is seen first, of one's own place say, are none either."""
    if _plays_alone(case):
        return []
    for padded in case.recording.series("obs_padded"):
        late = _late(padded)
        share, least = float(late.mean()), max(PADDED, RESETS * _share_of_firsts(case, padded.where))
        if len(late) < READS or not least < share < 1 or (late > 0).mean() < OFTEN or _few_features(case, padded):
            continue
        since = onset(padded.values > 0, padded.steps) or 0
        return [Hit(0.8, 0 if since <= padded.steps[READS - 1] else since, place(padded), {"padded": share})]
    return []


def _plays_alone(case: Case) -> bool:
    """Whether the environment has one agent; what a loop that is not this package's calls one may stand for many."""
    agents = (case.facts.get("spec") or {}).get("agents") or ()
    return len(agents) == 1 and case.config.get("loop") != "own"


def _share_of_firsts(case: Case, where: dict[str, Any]) -> float:
    """The share of an agent's observations that are the first of their episode; 0 where lengths are not known."""
    lengths, alive = case.recording.mean("charts/episode_length"), case.recording.series("alive", **where)
    lived = float(_late(lengths).mean()) if lengths is not None else 0.0
    lived *= float(_late(alive[0]).mean()) if alive else 1.0  # of others' turns, and after it is gone, it sees nothing
    return 1 / lived if lived > 0 else 0.0


def _late(series: Series) -> Floats:
    return series.values[-max(READS, len(series.values) // 3) :]


def _few_features(case: Case, padded: Series) -> bool:
    return len(case.recording.series("obs_std", **padded.where)) < FEWEST_FEATURES


@cause(
    "untrained_parameters",
    Stage.OPTIMISER,
    ("layer_change",),
    "{layer} of the {network} of {who} does not change while others do: no gradient reaches it, or no optimiser "
    "has it.",
    "Check that the optimiser holds this tensor and that nothing detaches it from the loss.",
)
def untrained_parameters(case: Case) -> list[Hit]:
    """Tensors that the first update left as they were, or that stand still while others of the group move; or a target
    network that does while what it is to follow moves."""
    preflight = case.facts.get("preflight") or {}
    refused = {(entry["group"], entry["network"]) for entry in preflight.get("non_finite") or []}
    refused |= {(group, f"target_{network}") for group, network in refused}  # which follow what does not move
    for entry in preflight.get("untrained") or []:
        known = str(entry.get("why", "")).startswith("no gradient: reward")
        if known or (entry["group"], entry["network"]) in refused:  # what has no number is not learned from
            continue
        where = {part: entry[part] for part in ("group", "network", "agent") if part in entry}
        if not _overgrown(case, where):
            return [Hit(0.95, 0, where | {"layer": entry["tensor"]}, {})]
    if shows(case, "non_finite"):
        return []
    if left := _left_behind(case):
        return left
    for change in case.recording.series("layer_change"):
        others = case.recording.series("layer_change", group=change.where.get("group"))
        still = change.values <= FROZEN
        if (
            len(still) < READS
            or not still[-READS:].all()
            or not any((s.values[-READS:] > FROZEN).all() for s in others)
            or _asleep(case, change.where)
            or _overgrown(case, change.where)
        ):
            continue
        since = onset(still, change.steps)
        return [Hit(0.9, began(since or 0, change.steps), place(change), {"relative_change": float(change.values[-1])})]
    return []


def _left_behind(case: Case) -> list[Hit]:
    """Target networks that stand still; one that is what is learned by chance does not."""
    for change in following(case, "target_change"):
        at = lasting(change.values <= NOTHING, change.steps)
        if at is not None:
            says = "The target of the {network} of {who} stands still {since} while what is learned moves: all that is "
            says += "learned is measured by what was known then."
            return [Hit(0.9, at, place(change), {"relative_change": float(change.values[-1])}, says)]
    return []


def _asleep(case: Case, where: dict[str, Any]) -> bool:
    """Whether units of some layer of this network were nearly all dormant of late, which lets no gradient through."""
    parts = {part: name for part, name in where.items() if part in ("group", "network")}
    return any(len(s.values) and s.values[-READS:].max() > ASLEEP for s in case.recording.series("dormant", **parts))


def _overgrown(case: Case, where: dict[str, Any]) -> bool:
    """Whether weights of this network are so large that its answers are certain, which leaves no gradient either."""
    parts = {part: name for part, name in where.items() if part in ("group", "network")}
    return any(parts.items() <= hit.where.items() for hit in activation_growth(case))
