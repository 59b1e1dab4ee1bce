"""Data that are no longer what is done."""

from __future__ import annotations

import numpy as np

from marl_stable.monitor.case import Case
from tests.monitor.causes.recordings import AGENT, EVERY, NOISE, N, case, found

LEARNED = np.clip(np.linspace(-1.0, 1.5, N), -1.0, 0.0)
OLD = {"algo.buffer_size": 500_000}


def replay(paid: np.ndarray, returned: np.ndarray, config: dict[str, int] = OLD) -> Case:
    """Rewards that were collected, and returns in the newest of the replay."""
    series = (("reward_mean", paid + 0.02 * NOISE), ("return_mean", returned + 0.2 * NOISE[::-1]))
    spreads = (("reward_std", 0.3), ("return_std", 3.0))
    return case(*((name, AGENT, x) for name, x in (*series, *spreads)), ("td_age_ratio", AGENT, 3.4), config=config)


def test_replay_that_does_not_follow_what_is_collected_is_stale() -> None:
    hit = found("stale_replay", replay(LEARNED, np.full(N, -10.0)))[0]
    assert hit.where == {"agent": "agent_0"}
    assert 0 < hit.onset_steps < 0.7 * N * EVERY


def test_replay_that_follows_is_not_however_much_it_errs_on_what_is_old() -> None:
    assert not found("stale_replay", replay(LEARNED, 10 * LEARNED))
    assert not found("stale_replay", replay(np.full(N, -1.0), np.full(N, -10.0)))
    assert not found("stale_replay", replay(LEARNED, np.full(N, -10.0), {}))  # nothing is kept
