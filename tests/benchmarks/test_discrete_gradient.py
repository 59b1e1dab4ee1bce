from __future__ import annotations

from typing import Any

from benchmarks.discrete_gradient import TASKS, table, trials
from marl_stable.configs import nested, resolve


def test_every_trial_has_a_configuration_of_its_own() -> None:
    made = [(trial.seed, repr(resolve(nested(trial.flags)))) for trial in trials()]
    assert len(set(made)) == len(made)
    assert len({trial.key() for trial in trials()}) == len(made)


def entry(way: str, task: str, value: float, seed: int) -> dict[str, Any]:
    return {"variant": way, "task": task, "seed": seed, "return": value, "seconds": 10.0 * seed, "commit": "abc"}


def test_games_are_counted_and_tasks_averaged() -> None:
    task = next(iter(TASKS))
    lines = table(
        [
            entry("expected", "Match, 8", 1.0, 1),
            entry("expected", "Match, 8", 0.91, 2),
            entry("straight_through", "Match, 8", 0.5, 1),
            entry("expected", task, -9.0, 1),
            entry("expected", task, -10.0, 3),
        ]
    ).splitlines()
    assert "| Match, 8 | 2 of 2 | 0 of 1 |" in lines
    assert "| all | 2 of 2 | 0 of 1 |" in lines
    assert f"| {task}, {TASKS[task]:,} steps | -9.50 (-10.00; 2) | 20 |  |  |" in lines
