"""What the features of an observation say: those that never vary, copies of another, scales far apart, a clock.

Shapes: N moments, O features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from marl_stable.envs.spaces import MASK
from marl_stable.investigate.doctor.findings import Notebook
from marl_stable.investigate.doctor.observing import MISSING, flat_size, leaves
from marl_stable.investigate.doctor.play import Moment, Play
from marl_stable.investigate.doctor.watching import Watched

MOST_FEATURES, MOST_ROWS = 512, 3_000
FEWEST_ROWS, FEWEST_EPISODES = 300, 5
ROWS_OF_ZEROS = 1_000  # before a feature that is always 0 counts as constant: it may tell of a rare event
RARE = 0.05  # share of rows in which an agent with the same space sees it otherwise: then it is such an event
VARIED = 0.1  # share of rows in which a feature differs from its commonest value, before it can be called a copy
FAR_APART = 100.0  # times the median feature's 99th percentile
ENORMOUS = 1e5  # where even the median feature is beyond it
IN_STEP = 0.999  # correlation with the step of the episode

Floats = NDArray[np.float64]


class Table:
    """What one agent saw: every number of it, or only whether it ever changed where there are too many."""

    def __init__(self, space: Any) -> None:
        self.size = sum(flat_size(leaf) for path, leaf, _ in leaves(space, None) if not _is_mask(path))
        self.measured = np.concatenate([_measured(path, leaf) for path, leaf, _ in leaves(space, None)])
        self.rows: list[Floats] = []
        self.ages: list[int] = []
        self.fitting = 0
        self.varied = False
        self._first: bytes | None = None

    def add(self, space: Any, value: Any, age: int) -> None:
        """One moment, `age` steps after the episode's beginning; what does not fit its space is left out."""
        if self.varied and (self.size > MOST_FEATURES or len(self.rows) >= MOST_ROWS):
            return
        parts = [(leaf, part) for path, leaf, part in leaves(space, value) if not _is_mask(path)]
        if any(part is MISSING for _, part in parts):
            return
        try:
            row = np.concatenate([np.asarray(part, np.float64).reshape(-1) for _, part in parts])
        except (TypeError, ValueError, RuntimeError):
            self.varied = True  # no numbers: nothing to say
            return
        if row.size != self.size:
            return
        self.fitting += 1
        text = row.tobytes()
        self._first = text if self._first is None else self._first
        self.varied = self.varied or text != self._first
        if self.size <= MOST_FEATURES and len(self.rows) < MOST_ROWS:
            self.rows.append(row)
            self.ages.append(age)


class Features:
    """Watches what features tell."""

    def __init__(self, notes: Notebook) -> None:
        self._notes = notes
        self._tables: dict[str, Table] = {}
        self._spaces: dict[str, Any] = {}
        self._age = self._episodes = 0

    def begin(self, play: Play, moment: Moment) -> None:
        """An episode begins."""
        self._age = 0
        self._episodes += 1
        self._add(play, moment, moment.agents)

    def step(self, play: Play, moment: Moment, given: dict[str, Any], kept: dict[str, Any]) -> None:
        """Agents have acted."""
        self._age += 1
        self._add(play, moment, moment.agents if play.turn_based else moment.acted)

    def finish(self, watched: Watched) -> None:
        """Judge the tables."""
        if self._episodes < FEWEST_EPISODES:
            return
        for agent, table in self._tables.items():
            if table.fitting >= FEWEST_ROWS and table.size:
                self._judge(agent, table)

    def has_clock(self) -> bool:
        """Whether anybody sees which step of the episode it is."""
        return any(len(_clocks(table)) > 0 for table in self._tables.values())

    def _add(self, play: Play, moment: Moment, agents: list[str]) -> None:
        for agent in agents:
            if moment.obs.get(agent) is None:
                continue
            if agent not in self._tables:
                self._spaces[agent] = play.space("observation", agent)
                self._tables[agent] = Table(self._spaces[agent])
            self._tables[agent].add(self._spaces[agent], moment.obs[agent], self._age)

    def _judge(self, agent: str, table: Table) -> None:
        if not table.varied:
            what = f"Nothing in the observation of {agent} ever changed, in {table.fitting} moments of random play."
            remedy = "Look at what the environment writes there: a buffer never filled, or the view of another."
            where = {"agent": agent, "feature": "(all)"}
            self._notes.note("observation_constant", "warning", where, table.fitting, what, remedy)
            return
        if not table.rows:
            return
        x = np.stack(table.rows)
        x = np.where(np.isfinite(x), x, 0.0)
        measured = table.measured & ~_codes(x, table.measured)
        varies = np.ptp(x, axis=0) > 0
        constant = measured & ~varies & ~((x[0] == 0) & self._rare(agent, len(x)))
        self._tell_constant(agent, x, np.flatnonzero(constant))
        self._tell_copies(agent, x, measured & varies)
        self._tell_scales(agent, x, measured & varies)

    def _rare(self, agent: str, rows: int) -> NDArray[np.bool_]:
        """`(O,)` where always 0 may just mean that something did not happen in so few rows."""
        size = self._tables[agent].size
        if rows < ROWS_OF_ZEROS:
            return np.ones(size, bool)
        peers = [table for name, table in self._tables.items() if self._spaces[name] == self._spaces[agent]]
        share = np.max([(np.stack(table.rows) != 0).mean(axis=0) for table in peers if table.rows], axis=0)
        found: NDArray[np.bool_] = (share > 0) & (share < RARE)
        return found

    def _tell_constant(self, agent: str, x: Floats, constant: NDArray[np.int64]) -> None:
        for value in np.unique(x[0, constant]):
            chosen = [int(feature) for feature in constant if x[0, feature] == value]
            is_are = f"Feature {chosen[0]} of {agent} was" if len(chosen) == 1 else f"Features {chosen} of {agent} were"
            what = f"{is_are} {value:.4g} in all of {len(x)} moments of random play."
            remedy = "Look for a sensor that is stuck or never filled; else leave it out."
            self._notes.note("observation_constant", "warning", _at(agent, chosen), value, what, remedy)

    def _tell_copies(self, agent: str, x: Floats, chosen: NDArray[np.bool_]) -> None:
        first: dict[bytes, int] = {}
        for feature in np.flatnonzero(chosen):
            earlier = first.setdefault((x[:, feature] + 0.0).tobytes(), int(feature))  # + 0.0: -0.0 is 0.0
            if earlier != feature and _varied(x[:, feature]):
                what = (
                    f"Feature {feature} of {agent} equalled feature {earlier} in all of {len(x)} moments: it says "
                    "nothing of its own."
                )
                remedy = "Look whether an index is wrong; else leave the copy out."
                self._notes.note("observation_constant", "warning", _at(agent, [int(feature)]), earlier, what, remedy)

    def _tell_scales(self, agent: str, x: Floats, chosen: NDArray[np.bool_]) -> None:
        size = np.percentile(np.abs(x), 99, axis=0) * chosen
        known = np.sort(size[size > 0])
        if not len(known):
            return
        median = known[(len(known) - 1) // 2]
        remedy = "Bring features to about the same size in the environment, or keep --algo.normalize-obs on."
        if median > ENORMOUS:
            what = f"The observations of {agent} are as large as {median:.3g}."
            self._notes.note("observation_scale", "warning", {"agent": agent, "feature": "(all)"}, median, what, remedy)
        for feature in np.flatnonzero(size > 0):
            ratio = float(size[feature] / median)
            if len(known) > 1 and (ratio > FAR_APART or ratio < 1 / FAR_APART):
                told = f"{ratio:,.0f} times as large" if ratio > 1 else f"{1 / ratio:,.0f} times smaller"
                what = (
                    f"Feature {feature} of {agent} is {told} (99th percentile {size[feature]:.3g}) as the median one."
                )
                what = what if ratio > 1 else what.replace(" as the median", " than the median")
                self._notes.note(
                    "observation_scale", "warning", _at(agent, [int(feature)]), size[feature], what, remedy
                )


def _at(agent: str, features: list[int]) -> dict[str, Any]:
    return {"agent": agent, "feature": features[0] if len(features) == 1 else features}


def _is_mask(path: str) -> bool:
    return path.rpartition(".")[2] == MASK


def _measured(path: str, space: Any) -> NDArray[np.bool_]:
    """Whether each number is of a vector of floats, whose features have a meaning of their own, unlike pixels."""
    if _is_mask(path):
        return np.zeros(0, bool)
    vector = isinstance(space, spaces.Box) and space.dtype.kind == "f" and len(space.shape) == 1
    return np.full(flat_size(space), vector)


def _varied(column: Floats) -> bool:
    return bool(np.unique(column, return_counts=True)[1].max() < (1 - VARIED) * len(column))


def _codes(x: Floats, measured: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """`(O,)` all where every number measured was 0 or 1: a code, of which random play need not show every digit."""
    return np.full(x.shape[1], bool(np.isin(x[:, measured], (0.0, 1.0)).all()))


def _clocks(table: Table) -> NDArray[np.int64]:
    """Features that grow or fall in proportion to the step of the episode."""
    if not table.rows or len(set(table.ages)) < 3:
        return np.zeros(0, np.int64)
    x = np.nan_to_num(np.stack(table.rows), posinf=0.0, neginf=0.0)
    t = np.array(table.ages, np.float64)
    t, x = t - t.mean(), x - x.mean(axis=0)
    size = np.sqrt((t**2).sum() * (x**2).sum(axis=0))
    return np.flatnonzero(np.abs(t @ x) > IN_STEP * np.where(size > 0, size, np.inf))
