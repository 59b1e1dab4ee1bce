"""What can be done: ranges of actions, masks, and actions that the environment changes for whoever gave them."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from marl_stable.envs.spaces import MASK
from marl_stable.investigate.doctor.choosing import LARGEST, as_choices, mask_of
from marl_stable.investigate.doctor.findings import Notebook, short
from marl_stable.investigate.doctor.play import Moment, Play
from marl_stable.investigate.doctor.watching import Watched, info_of

SUPPORTED = (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary, spaces.Box)
MASK_REMEDY = "Give one 0 or 1 for each action of a Discrete space."


def check_ranges(play: Play, notes: Notebook) -> None:
    """Action spaces that leave nothing to choose, or no range to scale to."""
    for agent in play.possible:
        space, where = play.space("action", agent), {"agent": agent}
        if not isinstance(space, SUPPORTED):
            what = f"The action space of {agent} is {short(str(space))}."
            remedy = "Use a Discrete, MultiDiscrete, MultiBinary or Box space: others are not trained on."
            notes.note("action_range_mismatch", "error", where, short(str(space)), what, remedy)
        elif isinstance(space, spaces.Box):
            _check_box(space, agent, notes)
        elif isinstance(space, spaces.Discrete) and space.n == 1:
            what = f"{agent} has one action only, so that there is nothing to choose."
            notes.note("action_range_mismatch", "warning", where, 1, what, "Leave the agent out, or give it a choice.")


def _check_box(space: spaces.Box, agent: str, notes: Notebook) -> None:
    low, high = (bound.reshape(-1).astype(np.float64) for bound in (space.low, space.high))
    for chosen, told, remedy in (
        (~(low < high), "low is not below high, so that there is nothing to choose", "Set low below high."),
        (
            ~((np.abs(low) < LARGEST) & (np.abs(high) < LARGEST)),
            "a bound is infinite, so that there is no range to scale actions to",
            "Give the range in which actions make a difference, such as -1 to 1.",
        ),
    ):
        dims = [int(dimension) for dimension in np.flatnonzero(chosen)]
        if dims:
            value = [float(low[dims[0]]), float(high[dims[0]])]
            named = dims[0] if len(dims) == 1 else dims
            what = f"Action {named} of {agent} ranges from {value[0]:g} to {value[1]:g}: {told}."
            where = {"agent": agent, "dimension": named}
            notes.note("action_range_mismatch", "error", where, value, what, remedy)


class Actions:
    """Watches masks before agents act, and the actions afterwards."""

    def __init__(self, notes: Notebook) -> None:
        self._notes = notes

    def begin(self, play: Play, moment: Moment) -> None:
        """An episode begins."""
        self._check_masks(play, moment)

    def step(self, play: Play, moment: Moment, given: dict[str, Any], kept: dict[str, Any]) -> None:
        """Agents have acted."""
        self._compare(given, kept)
        if not moment.over:
            self._check_masks(play, moment)

    def finish(self, watched: Watched) -> None:
        """Nothing is left to say."""

    def _compare(self, given: dict[str, Any], kept: dict[str, Any]) -> None:
        if given.keys() != kept.keys():
            what = "step takes entries out of the dictionary of actions, or adds some."
            remedy = "Work on a copy, as in `actions = dict(actions)`."
            self._notes.note("action_mutated", "error", {}, sorted(kept.keys() ^ given.keys()), what, remedy)
        for agent in given.keys() & kept.keys():
            now, before = np.asarray(given[agent], object), np.asarray(kept[agent], object)
            if now.shape != before.shape or (now != before).any():
                what = f"step changed the action array of {agent} from {short(kept[agent])} to {short(given[agent])}."
                remedy = "Work on a copy: use np.clip(action, low, high) without out=, or action.copy()."
                self._notes.note("action_mutated", "error", {"agent": agent}, short(given[agent]), what, remedy)

    def _check_masks(self, play: Play, moment: Moment) -> None:
        for agent in play.deciding():
            mask = mask_of(moment.obs.get(agent), info_of(moment, agent))
            if mask is not None:
                self._check_mask(play.space("action", agent), mask, agent)

    def _check_mask(self, space: Any, mask: Any, agent: str) -> None:
        where = {"agent": agent}
        if not isinstance(space, spaces.Discrete):
            what = f"{agent} has an {MASK}, but its action space is {short(str(space))}."
            self._notes.note("masking_error", "error", where, short(str(space)), what, MASK_REMEDY)
            return
        legal = as_choices(mask, space)
        if legal is None:
            size = np.size(mask)
            what = f"The {MASK} of {agent} has {size} entries for {space.n} actions."
            self._notes.note("masking_error", "error", where, size, what, MASK_REMEDY)
            return
        values = np.unique(np.asarray(mask, np.float64))
        if not np.isin(values, (0.0, 1.0)).all():
            what = f"The {MASK} of {agent} holds {values.tolist()[:4]}, where 0 is illegal and 1 legal."
            self._notes.note("masking_error", "error", where, values.tolist()[:4], what, MASK_REMEDY)
        elif not legal.any():
            what = f"{agent} is to act, but its {MASK} allows nothing."
            remedy = "Leave one action legal, if need be one that does nothing; or end the episode."
            self._notes.note("mask_allows_nothing", "error", where, 0, what, remedy)
