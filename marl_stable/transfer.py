"""Begins a run with the weights and normalisers of another one (`init_from`).

Works on the state that every algorithm keeps, `groups -> part -> tensors`: whatever an algorithm's networks and
normalisers are called, all parts but optimisers are taken over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor

from marl_stable.agents.base import Agent
from marl_stable.policy import Loaded, load_agent
from marl_stable.types import EnvSpec, Group, UsageError, comparable

MEANING = ("share", "critic_input", "squash", "normalize_obs", "normalize_value", "normalize_reward")
"""Settings of algorithms without which a weight means something else, though its shape may be the same."""
UNSEEN = ("hidden", "init", "final_init")
"""Fields of a network that the shapes of its weights tell, or that only its beginning depended on."""


def take_over(agent: Agent, run: str) -> dict[str, Any]:
    """Put the weights and normalisers of the run folder `run` into `agent`; what was taken, as `metadata.json` has it.

    Groups are matched by name. All of `agent` must be in `run`; only where its teams are others the missing ones begin
    anew. Where the joint observation is made up of other agents only policies are taken, and critics begin anew.
    Raises UsageError, with the first difference, where algorithm, settings, spaces or shapes are others.
    """
    try:
        source = load_agent(Path(run), device=agent.generator.device)
    except UsageError as error:
        raise UsageError(f"init_from cannot be used: {error}") from error
    _require_same_settings(agent.config, source.agent.config, run)
    found = _matched(agent.spec, source.spec, run)
    critics = _layout(agent.spec) == _layout(source.spec)
    state, theirs = agent.policy_state(), source.agent.policy_state()["groups"]
    for name in found:
        mine = state["groups"][name]
        taken = {part: theirs[name].get(part) for part in mine if _is_taken(part, critics)}
        if difference := first_difference({part: mine[part] for part in taken}, taken):
            raise _unfit(run, f"in group {name!r}, {difference}", "Use the network settings of that run")
        mine |= taken
    agent.load_policy_state(state)
    return _described(run, source, found, critics)


def in_words(taken: dict[str, Any]) -> str:
    """What :func:`take_over` returned, as one line for the terminal."""
    what = "weights and normalisers" if taken["critics"] else "policies without critics"
    whose = ", ".join(taken["groups"])
    return f"begins with {what} of {whose} from {taken['run']} ({taken['checkpoint']}, {taken['steps']:,} steps)"


def first_difference(here: Any, there: Any, place: str = "") -> str | None:
    """Where two nested states differ in keys or shapes, with both shapes; None where they fit."""
    if isinstance(here, dict) and isinstance(there, dict):
        for key in [*here, *(key for key in there if key not in here)]:
            inner = f"{place}.{key}" if place else str(key)
            if difference := first_difference(here.get(key), there.get(key), inner):
                return difference
        return None
    mine, other = _shape(here), _shape(there)
    return None if mine == other else f"{place} is {other} there and {mine} here"


def _shape(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"of shape {tuple(value.shape)}"
    return "missing" if value is None else "a section" if isinstance(value, dict) else "a plain value"


def _is_taken(part: str, critics: bool) -> bool:
    """Whether a part of a group's state is taken: no optimiser, and without `critics` only what acting needs."""
    return "optimizer" not in part and (critics or "actor" in part or part == "obs_norm")


def _matched(here: EnvSpec, there: EnvSpec, run: str) -> list[str]:
    """Names of the groups to take."""
    known = {group.name: group for group in there.groups}
    found = [group for group in here.groups if group.name in known]
    if not found or (len(found) < len(here.groups) and set(here.teams) == set(there.teams)):
        missing = next(group.name for group in here.groups if group.name not in known)
        raise _unfit(run, f"it has the groups {', '.join(known)}, and none called {missing!r}", "Name another run")
    for group in found:
        mine, other = group, known[group.name]
        if _spaces(comparable(mine)) != _spaces(comparable(other)):
            difference = f"group {group.name!r} has {_spaces(other)} there and {_spaces(mine)} here"
            raise _unfit(run, difference, "The spaces must be the same")
    return [group.name for group in found]


def _spaces(group: Group) -> str:
    mask = ", masked" if group.masked else ""
    return f"{len(group.agents)} agents, {group.obs_size} features, {group.action}{mask}"


def _layout(spec: EnvSpec) -> list[tuple[tuple[str, ...], int]]:
    """What the joint observation that critics see is made up of."""
    return [(group.agents, group.obs_size) for group in spec.groups]


def _require_same_settings(here: Any, there: Any, run: str) -> None:
    mine, other = {"algo.name": here.name}, {"algo.name": there.name}
    if mine == other:
        mine, other = dict(_meaning(here)), dict(_meaning(there))
    for key, value in mine.items():
        if value != other[key]:
            raise _unfit(run, f"{key} is {_typed(other[key])} there and {_typed(value)} here", "They must be the same")


def _meaning(config: Any) -> Iterator[tuple[str, Any]]:
    yield from ((f"algo.{key}", getattr(config, key)) for key in MEANING if hasattr(config, key))
    for name in ("actor_network", "critic_network"):
        network = getattr(config, name).over(config.network)
        seen = (field.name for field in fields(network) if field.name not in UNSEEN)
        yield from ((f"algo.{name}.{key}", getattr(network, key)) for key in seen)


def _typed(value: Any) -> Any:
    """A value as flags have it."""
    return ("off", "on")[value] if isinstance(value, bool) else value


def _unfit(run: str, difference: str, remedy: str) -> UsageError:
    return UsageError(f"init_from {run!r} does not fit this run: {difference}. {remedy}.")


def _described(run: str, source: Loaded, groups: list[str], critics: bool) -> dict[str, Any]:
    return {
        "run": run,
        "checkpoint": source.checkpoint,
        "steps": source.steps,
        "groups": groups,
        "critics": critics,
    }
