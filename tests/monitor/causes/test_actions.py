"""Policies that see nothing, are stuck, or try nothing; and healthy ones that look so."""

from __future__ import annotations

import numpy as np
import pytest

from marl_stable.monitor.case import CAUSES, Stage
from tests.monitor.causes.recordings import AGENT, CONTINUOUS, EVERY, NOISE, WHOLE, N, case, found, spec, stepped, stuck

SEES = ("obs_std", AGENT | {"feature": 0}, 1.0)
FREE, BOUND = ("actions/saturation", AGENT, 0.0), ("actions/saturation", AGENT, 1.0)
WELL = (("charts/return", WHOLE, np.linspace(0.0, 1.0, N)), ("actions/responsiveness", AGENT, 0.001))


def test_observation_ignored_needs_a_failing_run_a_flat_response_and_something_to_see() -> None:
    hit = found("observation_ignored", case(*stuck(), SEES, FREE))[0]
    assert hit.where == {"agent": "agent_0"}
    assert not found("observation_ignored", case(*WELL, SEES, FREE))
    assert not found("observation_ignored", case(*stuck(), ("obs_std", AGENT | {"feature": 0}, 0.0), FREE))
    rising = stuck()[0], ("actions/responsiveness", AGENT, np.linspace(0.0, 0.015, N))
    assert not found("observation_ignored", case(*rising, SEES, FREE))
    few = stuck()[0], ("actions/responsiveness", AGENT, np.where(np.arange(N) < N - 3, np.nan, 0.001))
    assert found("observation_ignored", case(*few, SEES, FREE))  # three readings show no rise
    assert not found("observation_ignored", case(*stuck(), SEES, BOUND, ("logit_gap", AGENT, 9.0)))
    early = case(*stuck(), SEES, FREE, total_steps=10 * N * EVERY)
    assert not found("observation_ignored", early)


def test_saturation_needs_flatness_deafness_and_a_failing_run() -> None:
    place = AGENT | {"dimension": 0}
    flat, steep = ("attenuation", place, 1e-4), ("attenuation", place, 0.5)
    game = {"spec": spec(CONTINUOUS)}
    assert found("actor_saturation", case(*stuck(), BOUND, flat, **game))
    assert not found("actor_saturation", case(*stuck(), BOUND, steep, **game))
    assert not found("actor_saturation", case(*stuck(0.9), BOUND, flat, **game))  # bang-bang: it responds
    assert not found("actor_saturation", case(*WELL, BOUND, flat, **game))
    assert found("actor_saturation", case(*stuck(), BOUND, ("logit_gap", AGENT, 9.0)))
    bound = (*stuck(), BOUND, flat)
    for had, wanted in ((0.0, 0.01), (0.01, 0.1), (0.1, 1.0)):
        (said,) = found("actor_saturation", case(*bound, config={"algo.action_penalty": had}, **game))
        assert said.config == {"algo.action_penalty": wanted}
    (said,) = found("actor_saturation", case(*bound, config={"algo.action_penalty": 1.0}, **game))
    assert said.config == {}
    assert "penalty" not in said.remedy
    assert CAUSES["actor_saturation"].last_resort
    assert CAUSES["actor_saturation"].stage is Stage.ACTION


def test_choices_that_their_critic_holds_for_bad_ones_are_laid_to_straight_through_gradients() -> None:
    straight, place = {"algo.discrete_gradient": "straight_through"}, ("regret", AGENT)
    (said,) = found("actor_saturation", case(*stuck(), FREE, (*place, 0.5), config=straight))
    assert said.evidence == {"regret": 0.5}
    assert said.config == {"algo.discrete_gradient": "expected"}
    assert "penalty" not in said.remedy
    (later,) = found("actor_saturation", case(*stuck(), FREE, (*place, stepped(0.1, 0.4, 5)), config=straight))
    assert later.onset_steps == 6 * EVERY
    assert not found(
        "actor_saturation", case(*stuck(), FREE, (*place, 0.5), config={"algo.discrete_gradient": "expected"})
    )
    assert not found("actor_saturation", case(*stuck(), FREE, (*place, np.linspace(0.5, 0.1, N)), config=straight))
    assert not found("actor_saturation", case(*WELL, FREE, (*place, 0.5), config=straight))  # what it does, works


def test_saturation_is_right_where_a_constant_action_is_best() -> None:
    known = {
        name: {"return": value, "ci95": [value, value]} for name, value in (("random", -9.0), ("best_constant", 0))
    }
    best = case(*stuck(), BOUND, ("logit_gap", AGENT, 9.0), SEES, baselines=known)
    assert not found("actor_saturation", best)
    assert not found("observation_ignored", best)
    assert found("constant_action_is_optimal", best)


def test_exploration_lacks_where_draws_are_all_alike_though_the_policy_is_not_sure() -> None:
    alike = ("sameness", AGENT, stepped(0.3, 1.0, 5))
    assert found("too_little_exploration", case(alike, FREE))[0].onset_steps == 6 * EVERY
    assert not found("too_little_exploration", case(alike, BOUND))  # a policy that has converged
    assert not found("too_little_exploration", case(alike, FREE, ("entropy", AGENT, stepped(1.0, 0.05, 4))))
    assert found("too_little_exploration", case(alike, FREE, ("entropy", AGENT, stepped(1.0, 0.05, 9))))  # sure later
    assert not found("too_little_exploration", case(alike, FREE, ("legal_choices", AGENT, 1.0)))
    assert not found("too_little_exploration", case(alike, FREE, spec=spec({"n": 1})))
    assert not found("too_little_exploration", case(("sameness", AGENT, 0.9 + 0.01 * NOISE.clip(-1, 1)), FREE))


@pytest.mark.parametrize(("first", "named"), [(1.0, True), (0.0, False)])
def test_continuous_actions_may_become_precise_but_not_begin_so(first: float, named: bool) -> None:
    same = ("sameness", AGENT, stepped(first, 1.0 - first, 5))
    assert bool(found("too_little_exploration", case(same, FREE, spec=spec(CONTINUOUS)))) is named


def test_runs_that_go_on_from_trained_weights_may_begin_alike() -> None:
    of = case(("sameness", AGENT, 1.0), FREE, config={"init_from": "runs/a"}, spec=spec(CONTINUOUS))
    assert not found("too_little_exploration", of)
