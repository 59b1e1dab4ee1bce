"""What a metric and an expert say beside the reward."""

from __future__ import annotations

import numpy as np
import pytest

from marl_stable.investigate.reward.metric import Measured
from marl_stable.investigate.reward.verdicts.incentives import by_metric

RNG = np.random.default_rng()


@pytest.fixture(autouse=True)
def drawn_anew() -> None:
    """Every test draws the same, whichever ran before it."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def told(returns: dict[str, float], metric: dict[str, float], spread: float = 0.5) -> Measured:
    def around(level: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return level + spread * RNG.normal(size=20)

    return Measured(
        "m", {who: around(level) for who, level in metric.items()}, {who: around(x) for who, x in returns.items()}
    )


def test_paid_more_and_worse_is_hacking() -> None:
    found = by_metric(told({"random": 0, "policy": 9}, {"random": 5, "policy": 1}))
    assert found is not None
    assert found.cause == "reward_hacking"
    assert found.evidence["return_policy"] > found.evidence["return_random"]
    assert found.explanation.startswith("The policy is paid more than chance")


def test_paid_more_and_better_is_not() -> None:
    assert by_metric(told({"random": 0, "policy": 9}, {"random": 1, "policy": 5})) is None


def test_a_difference_within_chance_is_not() -> None:
    assert by_metric(told({"random": 0, "policy": 9}, {"random": 1, "policy": 0.9}, spread=3)) is None


def test_a_constant_action_that_beats_the_expert_and_does_worse_is() -> None:
    told_of = told({"random": 0, "expert": 3, "best_constant": 9}, {"random": 1, "expert": 8, "best_constant": 0})
    found = by_metric(told_of)
    assert found is not None
    assert "One constant action is paid more than the expert" in found.explanation


def test_measurements_join() -> None:
    both = told({"random": 0}, {"random": 1}).joined(told({"policy": 1}, {"policy": 1}))
    assert set(both.metric) == set(both.returns) == {"random", "policy"}
    assert both.joined(None) is both
