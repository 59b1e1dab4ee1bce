"""Panels of curves: nothing that was read is lost but into means with their range, and every place has its name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from marl_stable.monitor.recording import Recording, of_metrics
from marl_stable.monitor.table import Column
from marl_stable.report import curves
from marl_stable.report.curves import FURTHER, MOST_LINES, MOST_POINTS, Panel

AGENTS = ("agent_0", "agent_1")


def recording(rows: int = 5, agents: int = 2) -> Recording:
    """Two agents of a group with an actor and a critic; `losses/critic` is not finite at its second row."""
    steps = np.arange(1, rows + 1) * 100
    values = np.linspace(0.0, 1.0, rows)
    lost = values.copy()
    lost[1] = np.inf
    group = (("group", "agent"),)
    columns = {
        Column("losses/critic", group): lost,
        Column("grad_norm", (*group, ("network", "actor"))): values,
        Column("grad_norm", (*group, ("network", "critic"))): values + 1,
        Column("eval/return", ()): np.where(np.arange(rows) % 2, values, np.nan),
        Column("rewards/terms/near", group): values,
        Column("rewards/terms/effort", group): values,
    }
    for i in range(agents):
        place = (*group, ("agent", f"agent_{i}"))
        columns[Column("actions/saturation", place)] = values + i
        columns[Column("charts/return", place)] = values - i
        columns |= {Column("obs_mean", (*place, ("feature", f))): values + f for f in range(6)}
    return Recording(steps, columns)


def labels(panel: Panel) -> list[str]:
    return [line.label for line in panel.lines]


def by_title(panels: list[Panel]) -> dict[str, Panel]:
    return {panel.title: panel for panel in panels}


def test_critic_loss_actor_output_and_reward_come_first() -> None:
    critic, actor, reward = curves.founding(recording(), {"random": -3.0})
    assert (critic.title, labels(critic), critic.lost) == ("Critic loss", ["critic"], 1)
    assert labels(actor) == ["saturation agent_0", "saturation agent_1"]
    assert labels(reward) == ["in training agent_0", "in training agent_1", "in evaluation"]
    assert (critic.levels, dict(reward.levels)) == ({}, {"random": -3.0})
    np.testing.assert_array_equal(reward.lines[2].steps, [200, 400])  # where it was read


def test_categories_have_what_was_logged_and_terms_by_their_names() -> None:
    found = curves.categories(recording())
    assert list(found) == ["Gradients", "Reward per step"]
    assert labels(found["Gradients"][0]) == ["actor", "critic"]
    assert labels(found["Reward per step"][0]) == ["near", "effort"]


def test_every_signal_that_no_chart_shows_by_place_has_a_panel_and_no_other() -> None:
    found = by_title(curves.signals(recording()))
    assert list(found) == ["obs_mean"]
    assert found["obs_mean"].note == "mean of a raw feature"
    found = by_title(curves.signals(recording(agents=MOST_LINES + 1)))
    assert set(found) == {"actions/saturation", "charts/return", "obs_mean"}


def test_many_places_become_their_mean_and_range() -> None:
    (panel,) = curves.signals(recording())
    (line,) = panel.lines
    assert line.label == "mean of 12, and their range"
    assert line.low is not None
    assert line.high is not None
    np.testing.assert_allclose(line.values, np.linspace(0.0, 1.0, 5) + 2.5)
    np.testing.assert_allclose(line.low, np.linspace(0.0, 1.0, 5))
    np.testing.assert_allclose(line.high, np.linspace(0.0, 1.0, 5) + 5)


@pytest.mark.parametrize("rows", [MOST_POINTS, MOST_POINTS + 1, 3 * MOST_POINTS + 7])
def test_long_curves_are_means_over_stretches_that_hold_every_reading(rows: int) -> None:
    line = curves.founding(recording(rows), {})[1].lines[0]
    values = np.linspace(0.0, 1.0, rows)
    assert len(line.steps) <= MOST_POINTS
    assert line.steps[-1] == 100 * rows
    if rows <= MOST_POINTS:
        np.testing.assert_array_equal(line.values, values)
        assert line.low is None
        return
    assert line.low is not None
    assert line.high is not None
    length, start = -(-rows // MOST_POINTS), 0
    for step, mean, low, high in zip(line.steps, line.values, line.low, line.high, strict=True):
        part = values[start : start + length]
        start += length
        assert (low, high, step) == (part.min(), part.max(), 100 * min(start, rows))
        assert mean == pytest.approx(part.mean())


@pytest.mark.parametrize(
    ("values", "logarithmic"), [([1.0, 2.0, 1e4], True), ([1.0, 2.0, 100.0], False), ([0.0, 2.0, 1e4], False)]
)
def test_a_panel_is_logarithmic_where_some_values_dwarf_the_rest(values: list[float], logarithmic: bool) -> None:
    found = of_metrics({"steps": [1, 2, 3], "losses/critic": values}, [])
    assert curves.founding(found, {})[0].logarithmic is logarithmic


def test_runs_are_compared_by_means_in_one_panel_a_tag() -> None:
    other = of_metrics({"steps": [1, 2], "losses/critic": [3.0, 4.0], "charts/return": [-1.0, -2.0]}, [])
    found = curves.compared({"one": recording(), "other": other})
    first = by_title(found["Critic, actions, reward"])
    assert list(first) == [
        "Critic loss",
        "Actor output: saturation",  # nothing of tags that were not logged
        "Reward (return per episode): in training",
        "Reward (return per episode): in evaluation",
    ]
    returns = first["Reward (return per episode): in training"]
    assert labels(returns) == ["one", "other"]
    np.testing.assert_allclose(returns.lines[0].values, np.linspace(0.0, 1.0, 5) - 0.5)
    assert [line.colour for line in returns.lines] == [0, 1]
    assert list(by_title(found[FURTHER])) == ["obs_mean"]


def test_a_metrics_file_alone_has_panels() -> None:
    table: dict[str, Any] = {"steps": [1, 2], "seconds": [0.1, 0.2], "losses/critic": [1.0, 2.0], "x/y": [1.0, 1.0]}
    found = of_metrics(table, [])
    assert labels(curves.founding(found, {})[0]) == ["critic"]
    assert [panel.title for panel in curves.signals(found)] == ["x/y"]
