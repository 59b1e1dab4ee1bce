"""Agents that contribute nothing, and agents that cannot be told apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from marl_stable.monitor.case import CAUSES
from tests.monitor.causes.recordings import AGENT, EVERY, NOISE, WHOLE, N, case, found, spec

OTHER = AGENT | {"agent": "agent_1"}
FLAT, WELL = ("charts/return", WHOLE, 0.01 * NOISE), ("charts/return", WHOLE, np.linspace(0.0, 1.0, N))


def contributions(*measured: tuple[float, float]) -> dict[str, Any]:
    return {f"agent_{i}": {"loss": loss, "error": error} for i, (loss, error) in enumerate(measured)}


@pytest.mark.parametrize(
    ("measured", "lazy"),
    [
        (((0.0, 0.1), (5.0, 0.3), (6.0, 0.3)), "agent_0"),
        (((5.0, 0.3), (-0.5, 0.2)), "agent_1"),
        (((4.0, 0.3), (5.0, 0.3)), None),
        (((2.0, 0.3), (5.0, 0.3)), None),  # less, but something
        (((0.0, 2.0), (5.0, 0.3)), None),  # not known
        (((0.0, 0.1), (0.1, 0.1)), None),  # nobody contributes: the team has learned nothing
    ],
)
def test_lazy_agent_is_one_that_nobody_misses_in_a_team_that_misses_others(measured: Any, lazy: str | None) -> None:
    hits = found("lazy_agent", case(contributions=contributions(*measured)))
    assert [hit.where["agent"] for hit in hits] == ([lazy] if lazy else [])


def test_lazy_agent_is_not_looked_for_without_a_measurement() -> None:
    assert not found("lazy_agent", case(FLAT))
    assert not found("lazy_agent", case(contributions={}))


def test_agents_that_answer_alike_after_learning_are_identical() -> None:
    same = ("diversity", AGENT, 0.0), ("diversity", OTHER, 1e-7)
    assert found("identical_policies", case(*same, FLAT))[0].where == {"group": "agent"}
    assert CAUSES["identical_policies"].last_resort
    assert not found("identical_policies", case(*same, WELL))
    apart = ("diversity", AGENT, 0.006), ("diversity", OTHER, 0.006)
    assert not found("identical_policies", case(*apart, FLAT))
    first = np.where(np.arange(N) == 0, 0.0, np.nan)  # before the first update nobody differs
    assert not found("identical_policies", case(("diversity", AGENT, first), ("diversity", OTHER, first), FLAT))


def test_agents_that_see_and_do_the_same_are_identical() -> None:
    alike = ("equal_actions", AGENT, 1.0), ("equal_actions", OTHER, 1.0)
    apart = ("diversity", AGENT, 0.1), ("diversity", OTHER, 0.1)
    seen = ("obs_mean", AGENT | {"feature": 0}, NOISE), ("obs_mean", OTHER | {"feature": 0}, NOISE)
    assert found("identical_policies", case(*alike, *apart, *seen))
    own = ("obs_mean", AGENT | {"feature": 0}, NOISE), ("obs_mean", OTHER | {"feature": 0}, NOISE[::-1])
    assert not found("identical_policies", case(*alike, *apart, *own))


def test_to_be_alike_is_right_where_one_action_is_best() -> None:
    known = {
        name: {"return": value, "ci95": [value, value]} for name, value in (("random", -9.0), ("best_constant", 0))
    }
    same = ("diversity", AGENT, 0.0), ("diversity", OTHER, 0.0)
    assert not found("identical_policies", case(*same, FLAT, ("equal_actions", AGENT, 1.0), baselines=known))


def test_an_agent_alone_in_its_role_is_lazy_only_where_the_run_fails() -> None:
    game = spec()
    roles = [game["groups"][0] | {"name": name, "agents": [name]} for name in ("agent_0", "agent_1")]
    facts = {"contributions": contributions((0.0, 0.1), (9.0, 0.3)), "spec": game | {"groups": roles}}
    assert not found("lazy_agent", case(WELL, **facts))
    (hit,) = found("lazy_agent", case(FLAT, **facts))
    assert (hit.where, hit.confidence) == ({"agent": "agent_0"}, 0.45)


def test_agents_that_come_to_see_the_same_have_lost_what_is_their_own() -> None:
    present = ("diversity", AGENT, 0.1), ("equal_actions", AGENT, 0.4), ("equal_actions", OTHER, 0.4)
    own = ("obs_mean", AGENT | {"feature": 0}, NOISE)
    late = np.where(np.arange(N) < 20, NOISE[::-1], NOISE * (1 + 1e-8))  # added up in another order
    hit = found("identical_policies", case(*present, own, ("obs_mean", OTHER | {"feature": 0}, late), WELL))[0]
    assert (hit.where, hit.onset_steps) == ({"group": "agent"}, 21 * EVERY)
    always = ("obs_mean", OTHER | {"feature": 0}, NOISE)
    assert not found("identical_policies", case(*present, own, always, WELL))  # some games are so


def test_agents_that_see_and_answer_alike_cannot_take_roles_however_well_they_do() -> None:
    same = ("diversity", AGENT, np.where(np.arange(N) < 20, 0.1, 1e-8)), ("diversity", OTHER, 1e-8)
    sees = [("actions/responsiveness", place, 0.3) for place in (AGENT, OTHER)]
    (hit,) = found("identical_policies", case(*same, *sees, WELL))
    assert (hit.where, hit.onset_steps) == ({"group": "agent"}, 21 * EVERY)
    blind = [("actions/responsiveness", place, 0.001) for place in (AGENT, OTHER)]  # nothing was learned, or need be
    assert not found("identical_policies", case(*same, *blind, WELL))


def test_a_view_that_is_of_use_to_one_agent_alone_is_not_that_of_the_others() -> None:
    place = {"feature": 0}
    apart = ("diversity", AGENT, 0.1), ("diversity", OTHER, 0.1)
    one_view = *apart, ("obs_mean", AGENT | place, NOISE), ("obs_mean", OTHER | place, NOISE)
    unequal, equal = contributions((4.3, 0.9), (0.3, 0.3)), contributions((2.0, 0.4), (1.7, 0.4))
    assert found("identical_policies", case(*one_view, WELL, contributions=unequal))[0].where == {"group": "agent"}
    assert not found("identical_policies", case(*one_view, WELL, contributions=equal))  # some games are so
    assert not found("identical_policies", case(*one_view, WELL))
    own = *apart, ("obs_mean", AGENT | place, NOISE), ("obs_mean", OTHER | place, NOISE[::-1])
    assert not found("identical_policies", case(*own, WELL, contributions=unequal))
    assert found("lazy_agent", case(*own, contributions=contributions((4.3, 0.3), (0.0, 0.1))))
    assert not found("lazy_agent", case(*one_view, contributions=contributions((4.3, 0.3), (0.0, 0.1))))
