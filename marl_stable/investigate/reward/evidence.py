"""All that was measured of a reward, for the verdicts to judge."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from marl_stable.investigate.reward.candidates import Candidate
from marl_stable.investigate.reward.control import Control
from marl_stable.investigate.reward.metric import Measured
from marl_stable.investigate.reward.play import Floats, Roster
from marl_stable.investigate.reward.shaping import Shape
from marl_stable.investigate.reward.statistics import Outlier
from marl_stable.types import EnvSpec


@dataclass(frozen=True)
class Evidence:
    """Shapes: N agents, K terms, M deviations."""

    spec: EnvSpec
    who: Roster
    candidates: dict[str, Candidate]  # random, no_op and best_constant are always there
    terms: list[dict[str, Any]]
    control: Control
    share: Floats  # (N, K) of the advantage
    spread: Floats  # (N, K) deviation of each term's advantage
    together: dict[tuple[int, int, int], float]  # correlations of an agent's terms' advantages
    outlier: Outlier | None
    sharing: str
    shapes: dict[tuple[int, int], Shape] = field(default_factory=dict)
    deviations: Floats | None = None
    metric: Measured | None = None

    @property
    def random(self) -> Candidate:
        """Random play."""
        return self.candidates["random"]
