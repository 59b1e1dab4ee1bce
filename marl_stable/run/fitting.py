"""Whether a run can go on: what its checkpoint was made with, beside what its folder and its environment are now.

What was saved is loaded into networks, optimisers, batches and episodes of its own sizes only. Whatever does not fit is
said in one sentence before anything is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from marl_stable import distributed
from marl_stable.agents.config import MADDPGConfig
from marl_stable.checkpoint import Kept
from marl_stable.config import RunConfig
from marl_stable.conversion import leaves
from marl_stable.investigate.remedies import CONTINUABLE
from marl_stable.types import EnvSpec, Group, UsageError, comparable

CHANGEABLE = {
    *(key.removeprefix("algo.") for key in CONTINUABLE),
    *("num_minibatches", "normalize_advantage"),
    *("warm_up", "steps_per_update", "policy_delay", "target_noise", "target_noise_clip"),
    *(f"{part}.{start}" for part in ("network", "actor_network", "critic_network") for start in ("init", "final_init")),
}
"""Settings of algorithms that may be others from some step on: they only say how to learn, or how networks began."""


def processes(kept: Kept) -> int:
    """How many trained the run so far."""
    return 1 + len(kept.state.get("others", []))


def require_same_settings(kept: Kept, config: RunConfig, path: Path) -> None:
    """Raise UsageError for the first setting in the run folder `path` with which its checkpoint cannot be gone on."""
    for key, saved, now in _settings(kept, config):
        raise UsageError(
            f"{key} is {_plain(now)}, and the checkpoint of {str(path)!r} was trained with {_plain(saved)}; "
            f"set it back in {path / 'config.yaml'}, or train a new run in another folder."
        )


def require_same_environment(saved: EnvSpec, here: EnvSpec, path: Path) -> None:
    """Raise UsageError for the first thing in which the environment is not that of the checkpoint in `path`."""
    for what, before, now in _spaces(saved, here):
        raise UsageError(
            f"the environment has {what} {_plain(now)}, and the checkpoint of {str(path)!r} was trained with "
            f"{_plain(before)}; give it that back, or train a new run in another folder."
        )


Differences = Iterator[tuple[str, Any, Any]]
"""What, what it was, and what it is."""


def _settings(kept: Kept, config: RunConfig) -> Differences:
    """Of settings; the algorithm first, since of another one all are others."""
    if config.algo.name != kept.algo.name:
        yield "algo.name", kept.algo.name, config.algo.name
        return
    before, replays = dict(leaves(kept.algo)), isinstance(config.algo, MADDPGConfig)
    whole = distributed.world_size() == processes(kept)  # else unfinished batches and episodes are given up
    batch = set() if whole and not replays else {"batch_size"}
    for key, now in leaves(config.algo):
        if now != before[key] and key not in CHANGEABLE | batch:
            yield f"algo.{key}", before[key], now
    copies = len(kept.state["training"]["episodes"]["length"]) * processes(kept)
    fixed = whole or replays  # which have a column for each copy
    if config.env.num_envs == "auto" or (fixed and config.env.num_envs != copies):
        yield "env.num_envs", copies, config.env.num_envs


def _spaces(saved: EnvSpec, here: EnvSpec) -> Differences:
    """Of environments, their agents and spaces. One's own may have moved to another file, and may tell reward terms
    that it did not tell before."""
    if saved.id != here.id and not (":" in saved.id and ":" in here.id):
        yield "the id", saved.id, here.id
    groups, others = ([group.name for group in spec.groups] for spec in (saved, here))
    if groups != others:
        yield "the groups", groups, others
        return
    for group, now in zip(saved.groups, here.groups, strict=True):
        for field in Group._fields:
            one, other = getattr(comparable(group), field), getattr(comparable(now), field)
            if one != other and not (field == "terms" and one == ()):
                yield f"in group {group.name!r} the {field}", getattr(group, field), getattr(now, field)
    for field in ("agents", "turn_based"):
        if getattr(saved, field) != getattr(here, field):
            yield f"the {field}", getattr(saved, field), getattr(here, field)


def _plain(value: Any) -> str:
    return repr(list(value)) if type(value) is tuple else repr(value)
