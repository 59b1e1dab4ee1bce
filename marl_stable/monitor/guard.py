"""What is done about trouble, decided from the numbers of a logged iteration; `defence.py` carries it out.

Bad single updates are refused where they happen (`optim.py`), bad transitions at the boundary (`validation.py`). Here
is what takes longer: steps that are too large get smaller, optimisers stunned by a spike forget it, and what only an
earlier state would mend stops the run, or under `repair` goes back to that state. Each act is bounded, reversible,
cooled down and, but for the return to usual rates, an incident. Reward, gamma, ends of episodes, bounds, data and
seeds are never touched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from marl_stable.monitor.course import Course
from marl_stable.monitor.detectors import Incident
from marl_stable.monitor.pace import REPLACED, FirstStep, Reading, readings
from marl_stable.monitor.table import NETWORKS, Host

Kind = Literal["lowered_rate", "raised_rate", "reset_moments", "restored", "stopped", "warned"]

HALVE, RAISE, LOWEST = 0.5, 1.1, 1 / 30
FAST = 2  # readings beyond a limit before a rate is lowered, and lowered again: one odd batch is no alarm
CALM, CALM_BELOW = 25, 0.5  # iterations below this share of all limits, before a lowered rate rises again
DEAD = 2  # iterations without a finite gradient
INFEASIBLE = 0.2  # share of values that no rewards seen so far could bring
QUIET = 50  # iterations from one warning of a collapse to the next
SNAPSHOT_EVERY, SNAPSHOTS = 5, 3  # iterations; how many are kept
MAX_RESTORES = 3

NOT_FINITE = "weights are not finite"


class Act(NamedTuple):
    """Something to do: to one row of a network's optimiser, or to all networks."""

    kind: Kind
    incident: Incident | None  # its record
    group: str = ""
    network: str = ""
    rows: tuple[bool, ...] = ()
    factor: float = 1.0  # of the step size
    state: Any = None  # to go back to


class Guard:
    """Decides once per logged iteration; everything it remembers is in `state_dict`."""

    def __init__(self, agents: Mapping[str, Sequence[str]], random_return: float | None, repairs: bool) -> None:
        """`agents` of each group; `random_return`: of random play, where it is known and one team's.

        `repairs`: goes back to a snapshot instead of stopping.
        """
        self._agents, self._repairs = agents, repairs
        self._course = Course(random_return)
        self._healthy = False  # the last iteration
        self.rows: dict[str, dict[str, Any]] = {}  # by group/network/row
        self.dead: dict[str, int] = {}  # iterations without a finite gradient, by group/network
        self.highest = 1.0  # that rates rise to
        self.restores = 0
        self.quiet = 0  # iterations until a collapse may be warned of
        self.since = 0  # iterations since the last snapshot
        self.snapshots: list[tuple[int, Any]] = []

    # ---- what to do

    def begin(self, found: Mapping[str, Mapping[str, Sequence[FirstStep]]]) -> list[Act]:
        """Before the first update, smaller steps for networks that it would throw beyond where they can come back from.

        `found`: by group and network, row by row.
        """
        acts = []
        for group, networks in found.items():
            for network, rows in networks.items():
                for row, first in enumerate(rows):
                    if first.value > first.limit:
                        seen = Reading(group, network, row, len(rows), first.value, first.limit, first.reason, False)
                        acts.append(self._act("lowered_rate", 0, seen, self._row(seen), first.usual / first.value))
        return acts

    def decide(self, steps: int, found: Host, alarm: bool) -> list[Act]:
        """`alarm`: some agent repeats one action whatever it sees."""
        self.since += 1
        seen = list(readings(found))
        lowered = any(row["factor"] < self.highest for row in self.rows.values())
        sunk = self._course.add(_score(found), alarm or lowered or _infeasible(found))
        self._healthy = self._is_healthy(found, seen, alarm)
        if over := self._needs_earlier(steps, found, seen, sunk):
            return [over]
        acts = [act for reading in seen if (act := self._control(steps, reading))]
        return acts + self._warn(steps, sunk)

    def _control(self, steps: int, seen: Reading) -> Act | None:
        """At most one act on the steps of a row."""
        row = self._row(seen)
        row["calm"] = row["calm"] + 1 if seen.haste < CALM_BELOW else 0
        more = FAST if seen.reason == REPLACED else 1
        row["fast"] = row["fast"] + more if seen.haste > 1 else 0
        row["rests"] = max(0, row["rests"] - 1)
        if seen.stunned and not row["rests"]:
            row["rests"] = CALM * 2 ** row["resets"]  # where spikes are how the task is, memories must live
            row["resets"] += 1
            return self._act("reset_moments", steps, seen._replace(reason=""), row, 1.0)
        if row["fast"] >= FAST and row["factor"] > LOWEST:
            row["fast"] = 0
            return self._act("lowered_rate", steps, seen, row, HALVE)
        if row["calm"] >= CALM and row["factor"] < self.highest:
            row["calm"] = 0
            return self._act("raised_rate", steps, seen, row, RAISE)
        return None

    def _row(self, seen: Reading) -> dict[str, Any]:
        new = {"factor": self.highest, "fast": 0, "calm": 0, "rests": 0, "resets": 0}
        return self.rows.setdefault(f"{seen.group}/{seen.network}/{seen.row}", new)

    def _act(self, kind: Kind, steps: int, seen: Reading, row: dict[str, Any], factor: float) -> Act:
        before = row["factor"]
        after = row["factor"] = min(self.highest, max(LOWEST, before * factor))
        told = {"rate_before": before, "rate_after": after} | ({"reason": seen.reason} if seen.reason else {})
        trouble, number, limit = "collapse", seen.value, seen.limit
        if kind == "reset_moments":
            trouble, number, limit, told = "gradient_spike", 1.0, 0.0, told | {"resets": row["resets"]}
        incident = None
        if kind != "raised_rate":
            incident = Incident(steps, trouble, self._where(seen), number, limit, kind, told)
        rows = tuple(i == seen.row for i in range(seen.rows))
        return Act(kind, incident, seen.group, seen.network, rows, after / before)

    def _where(self, seen: Reading) -> dict[str, Any]:
        place = {"agent": self._agents[seen.group][seen.row]} if seen.rows > 1 else {"group": seen.group}
        return {"network": seen.network, **place}

    # ---- what an earlier state alone would mend

    def _needs_earlier(self, steps: int, found: Host, seen: Sequence[Reading], sunk: Incident | None) -> Act | None:
        trouble = _not_finite(steps, found) or self._dead_network(steps, found)
        if trouble or not (self._repairs and self.snapshots):
            return self._over(trouble) if trouble else None
        replaced = next((x for x in seen if x.reason == REPLACED and x.haste > 1), None)
        if replaced:
            told = {"reason": REPLACED}
            where = self._where(replaced)
            return self._over(Incident(steps, "collapse", where, replaced.value, replaced.limit, "", told))
        return self._over(sunk._replace(steps=steps)) if sunk else None

    def _dead_network(self, steps: int, found: Host) -> Incident | None:
        """Gradients that have not been finite for whole iterations: each update is refused, and nothing will change."""
        for network in NETWORKS:
            for group, shares in found.get(f"non_finite/{network}", {}).items():
                key, share = f"{group}/{network}", float(shares.max())
                self.dead[key] = self.dead.get(key, 0) + 1 if share >= 1 else 0
                if self.dead[key] >= DEAD:
                    where = {"network": network, "group": group}
                    return Incident(steps, "non_finite_gradient", where, share, 0.0, "", {})
        return None

    def _over(self, seen: Incident) -> Act:
        """Back to a snapshot, there to go on or to end: whoever goes on with a stopped run finds it healthy.

        The newest; should that lead to trouble before there is another, the one before.
        """
        stops = not (self._repairs and self.snapshots and self.restores < MAX_RESTORES)
        kind: Kind = "stopped" if stops else "restored"
        if not self.snapshots:
            return Act(kind, seen._replace(action=kind))
        at, state = self.snapshots.pop() if len(self.snapshots) > 1 else self.snapshots[0]
        self.restores += 1
        told = seen.evidence | {"rate_before": self.highest, "to_steps": at, "restores": self.restores}
        self.highest = max(LOWEST, self.highest * HALVE)
        self.dead, self.since = {}, 0
        self._course.forget()
        for row in self.rows.values():
            row |= {"factor": max(LOWEST, row["factor"] * HALVE), "fast": 0, "calm": 0}
        seen = seen._replace(action=kind, evidence=told | {"rate_after": self.highest})
        return Act(kind, seen, factor=HALVE, state=state)

    def _warn(self, steps: int, sunk: Incident | None) -> list[Act]:
        self.quiet = max(0, self.quiet - 1)
        if not sunk or self.quiet:
            return []
        self.quiet = QUIET
        return [Act("warned", sunk._replace(steps=steps))]

    # ---- snapshots

    def _is_healthy(self, found: Host, seen: Sequence[Reading], alarm: bool) -> bool:
        """Whether one may go back to this state: it moves at a usual pace, and its return is near the best so far, or
        where that is not known nobody repeats one action."""
        refused = any((x > 0).any() for tag in NETWORKS for x in found.get(f"non_finite/{tag}", {}).values())
        fast = any(reading.haste > 1 or reading.stunned for reading in seen)
        near = self._course.near_best()
        return not (refused or fast or _not_finite(0, found)) and (not alarm if near is None else near)

    def wants_snapshot(self) -> bool:
        """Whether the iteration decided upon last was healthy, and the last snapshot is a while ago."""
        return not self.snapshots or (self._healthy and self.since >= SNAPSHOT_EVERY)

    def keep(self, steps: int, snapshot: Any) -> None:
        """Keep a snapshot, and the newest of those before."""
        self.snapshots = [*self.snapshots[1 - SNAPSHOTS :], (steps, snapshot)]
        self.since = 0

    # ---- state

    def state_dict(self) -> dict[str, Any]:
        """Everything remembered, snapshots included."""
        plain = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        copies = {"rows": {key: dict(row) for key, row in self.rows.items()}, "dead": dict(self.dead)}
        return plain | copies | {"snapshots": list(self.snapshots), "course": self._course.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._course.load_state_dict(state["course"])
        for name, value in state.items():
            if name != "course":
                setattr(self, name, value)


def _score(found: Host) -> float | None:
    """The mean return of the iteration's episodes; None where none ended."""
    returns = [x.ravel() for x in found.get("charts/return", {}).values()]
    score = float(np.concatenate(returns).mean()) if returns else math.nan
    return score if math.isfinite(score) else None


def _infeasible(found: Host) -> bool:
    return any(bool((x > INFEASIBLE).any()) for x in found.get("stability/infeasible", {}).values())


def _not_finite(steps: int, found: Host) -> Incident | None:
    for group, norm in found.get("weights/norm", {}).items():
        if not np.isfinite(norm).all():
            told = {"reason": NOT_FINITE}
            return Incident(steps, "collapse", {"group": group}, float(np.max(norm)), 0.0, "", told)
    return None
