"""Whether a run's return is near the best that it has had, or has lost for long what it had gained."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from marl_stable.monitor.detectors import Incident

SMOOTHED, REMEMBERED = 5, 20  # iterations
FALLEN = 0.5  # share of what was gained over random play
DEVIATIONS = 5.0  # of a single iteration's return: the best of many smoothed ones is itself two above their mean
FOR = 5  # iterations
NEAR = 0.1  # share of what was gained


class Course:
    """The return of training episodes, iteration by iteration, against that of random play."""

    def __init__(self, random_return: float | None) -> None:
        """`random_return`: None where it is not known, or returns do not say how good agents are."""
        self._random = random_return
        self.scores: list[float] = []
        self.best: float | None = None  # smoothed
        self.fallen = 0  # iterations

    def add(self, score: float | None, wrong: bool) -> Incident | None:
        """Take in an iteration's return; what to tell where it has been far below the best for long.

        `wrong`: something else is wrong as well, so that it is not the task that has changed.
        """
        if score is not None:
            self.scores = [*self.scores[1 - REMEMBERED :], score]
        if self._random is None or len(self.scores) < SMOOTHED:
            return None
        level = self.level()
        self.best = level if self.best is None else max(self.best, level)
        gained = self.best - self._random
        limit = self.best - max(FALLEN * gained, DEVIATIONS * self.noise())
        known = len(self.scores) == REMEMBERED
        self.fallen = self.fallen + 1 if known and gained > 0 and level < limit and wrong else 0
        if self.fallen < FOR:
            return None
        told = {"reason": "the return has collapsed", "best": self.best, "random": self._random}
        return Incident(0, "collapse", {}, level, limit, "warned", told)

    def level(self) -> float:
        """The smoothed return."""
        return float(np.median(self.scores[-SMOOTHED:]))

    def noise(self) -> float:
        """The deviation of an iteration's return around its course."""
        changes = np.abs(np.diff(self.scores))
        return float(1.4826 * np.median(changes) / math.sqrt(2)) if len(changes) else 0.0

    def near_best(self) -> bool | None:
        """Whether the return is near the best so far; None where that is not known."""
        if self.best is None or self._random is None or len(self.scores) < SMOOTHED:
            return None
        return self.level() >= self.best - max(NEAR * abs(self.best - self._random), self.noise())

    def forget(self) -> None:
        """Judge anew after a restore, but for the best."""
        self.scores, self.fallen = [], 0

    def state_dict(self) -> dict[str, Any]:
        """Returns so far."""
        return {"scores": list(self.scores), "best": self.best, "fallen": self.fallen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.scores, self.best, self.fallen = list(state["scores"]), state["best"], state["fallen"]
