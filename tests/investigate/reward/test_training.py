"""Terms over training, from recordings made by hand; and over an episode, against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from marl_stable.investigate.reward import candidates, curves
from marl_stable.investigate.reward.training import MOST, over_training
from marl_stable.monitor.recording import EMPTY, Recording
from marl_stable.monitor.table import Column
from tests.investigate.reward import games
from tests.investigate.reward.games import arena

Rows = NDArray[np.float64]


def recording(readings: int, shares: dict[str, Rows], gone: NDArray[np.bool_] | None = None) -> Recording:
    """Agents a and b are paid `i` and more at reading `i`; shares `(readings,)` by term are those of both, but that
    nothing varied for b where it was `gone`."""
    columns: dict[Column, Rows] = {}
    for agent in ("a", "b"):
        place = (("group", "team"), ("agent", agent))
        for k, (term, share) in enumerate(shares.items()):
            columns[Column(f"rewards/terms/{term}", place)] = np.arange(0, (k + 1) * readings, k + 1, dtype=np.float64)
            read = columns[Column("term_share", (*place, ("term", term)))] = share.copy()
            if agent == "b" and gone is not None:
                read[gone] = np.nan
    return Recording(np.arange(1, readings + 1) * 100, columns)


def test_first_and_last_third_and_curves() -> None:
    share = np.array([0.9, 0.9, 0.5, 0.5, 0.2, 0.4])
    goal, cost = over_training(recording(6, {"goal": share, "cost": 1 - share}))
    assert (goal["group"], goal["term"], cost["term"]) == ("team", "goal", "cost")
    assert goal["share"] == {"first": pytest.approx(0.9), "last": pytest.approx(0.3)}
    assert cost["share"] == {"first": pytest.approx(0.1), "last": pytest.approx(0.7)}
    assert goal["mean"] == {"first": pytest.approx(0.5), "last": pytest.approx(4.5)}
    assert cost["mean"]["last"] == pytest.approx(9.0)
    assert goal["steps"] == [100, 200, 300, 400, 500, 600]
    assert goal["curve"]["share"] == pytest.approx(share.tolist())


def test_shares_add_up_to_one_where_some_agents_had_none() -> None:
    rng = np.random.default_rng(0)
    goal = rng.normal(0.5, 0.4, 200)
    one, other = over_training(recording(200, {"goal": goal, "cost": 1 - goal}, gone=rng.uniform(size=200) < 0.4))
    for part in ("first", "last"):
        assert one["share"][part] + other["share"][part] == pytest.approx(1)
    assert len(one["steps"]) == len(one["curve"]["share"]) == MOST
    assert np.add(one["curve"]["share"], other["curve"]["share"]).tolist() == pytest.approx([1] * MOST)


def test_what_never_varied_has_no_share() -> None:
    nothing = np.full(5, np.nan)
    (entry,) = over_training(recording(5, {"flat": nothing}))
    assert entry["share"] == {"first": None, "last": None}
    assert entry["curve"]["share"] == [None] * 5


def test_without_terms_or_recording_there_is_nothing() -> None:
    assert over_training(EMPTY) == []
    assert over_training(Recording(np.arange(3), {Column("reward_mean", (("group", "team"),)): np.ones(3)})) == []


def test_curves_are_plain_means_and_percentiles_while_enough_go_on() -> None:
    ground = arena(games.Ending, copies=12)
    random = candidates.chance(ground)
    near, effort = curves.curves(ground.spec, ground.who, [random])
    assert (near["group"], near["term"], near["player"], effort["term"]) == ("agent", "near", "random", "effort")
    assert (near["episodes"], near["agents"]) == (12, 2)
    play = random.play
    expected = [play.terms[t, play.live[t], :, 0] for t in range(len(play.live))]
    expected = [rows for rows in expected if rows.size >= curves.FEWEST]
    assert near["mean"] == pytest.approx([rows.mean() for rows in expected])
    assert near["high"] == pytest.approx([np.percentile(rows, 90) for rows in expected])
    assert all(low <= high for low, high in zip(near["low"], near["high"], strict=True))
