"""Causes among reward terms, on series made by hand: what is asked for besides a share or a correlation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike

from marl_stable.monitor.case import Case
from marl_stable.monitor.diagnosis import diagnose
from tests.monitor.causes.recordings import AGENT, NOISE, WHOLE, N, case, found, stepped

RISE = np.linspace(0.0, 1.0, N)
NEAR = 0.01 * NOISE
FALL = 1.0 - RISE
DEFAULTS: Mapping[str, ArrayLike] = {"std": 1.0, "zero": 0.0, "share": 0.5, "conflict": 0.0}


def read(name: str, mean: ArrayLike, **figures: ArrayLike) -> list[tuple[str, Mapping[str, Any], ArrayLike]]:
    """The series of one term."""
    place = AGENT | {"term": name}
    told = {**DEFAULTS, **figures}
    return [(f"rewards/terms/{name}", AGENT, mean), *((f"term_{kind}", place, x) for kind, x in told.items())]


def of(
    *terms: list[tuple[str, Mapping[str, Any], ArrayLike]], length: ArrayLike = 20.0, config: Any = None, **facts: Any
) -> Case:
    """A run that learns, of two terms or more; some of its episodes end."""
    learns = ("charts/return", WHOLE, RISE + NEAR)
    lasts = (("charts/episode_length", WHOLE, length), ("ends_terminated", {"group": "agent"}, 0.5))
    return case(learns, *lasts, *(series for term in terms for series in term), config=config, **facts)


def control(**terms: float) -> Any:
    return {"preflight": {"control": {"agent_0": terms}}}


def chance(**terms: tuple[float, float, float]) -> Any:
    """Mean, zero and what an episode pays, of random play."""
    parts = {name: dict(zip(("mean", "zero", "per_episode"), x, strict=True)) for name, x in terms.items()}
    return {"preflight": {"terms": {"agent_0": parts}}}


GOT_RID_OF = np.minimum(-1.0 + 4 * RISE, -0.05) + 0.1 * NEAR
RULING = read("cost", GOT_RID_OF, share=0.97)
IDLE = read("goal", NEAR, share=0.03)


@pytest.mark.parametrize(
    ("terms", "facts", "named"),
    [
        ((RULING, IDLE), {}, True),
        ((RULING, read("goal", RISE, share=0.03)), {}, False),  # the others were learned as well
        ((RULING, read("goal", stepped(-1, 0, 30) + NEAR, share=0.03)), {}, False),  # are being learned by now
        ((read("cost", GOT_RID_OF, share=0.6), IDLE), {}, False),  # did not rule
        ((read("cost", NEAR - 1, share=0.97), IDLE), {}, False),  # was not minded
        ((read("task", RISE, share=0.97), IDLE), {}, False),  # no cost: the task itself
        ((RULING, IDLE), control(cost=0.0, goal=1.0), False),  # nobody's doing
    ],
)
def test_a_term_dominates_where_minding_it_is_all_that_was_learned(terms: Any, facts: Any, named: bool) -> None:
    hits = found("reward_term_dominates", of(*terms, **facts))
    assert [hit.where["term"] for hit in hits] == (["cost"] if named else [])


@pytest.mark.parametrize(("level", "named"), [(0.99, True), (0.93, False), (0.5, False)])
def test_terms_conflict_where_next_to_nothing_is_left(level: float, named: bool) -> None:
    terms = (read("a", NEAR, conflict=level), read("b", NEAR, conflict=level))
    assert bool(found("reward_terms_conflict", of(*terms))) == named
    flat = case(("charts/return", WHOLE, NEAR), *terms[0], *terms[1])
    assert bool(found("reward_terms_conflict", flat)) == (level > 0.9)  # in a run that gets nowhere less is enough


@pytest.mark.parametrize(
    ("noise", "other", "facts", "named"),
    [
        (0.9, NEAR, control(noise=0.0, way=0.5), True),
        (0.9, RISE, control(noise=0.0, way=0.5), False),  # the rest is learned in spite of it
        (0.3, NEAR, control(noise=0.0, way=0.5), False),  # drowns nothing
        (0.9, NEAR, control(noise=0.2, way=0.5), False),  # can be moved
        (0.9, NEAR, {"preflight": {}}, False),
    ],
)
def test_noise_is_accused_where_it_rules_and_nothing_else_is_learned(
    noise: float, other: ArrayLike, facts: Any, named: bool
) -> None:
    told = of(read("noise", NEAR, share=noise), read("way", other, share=1 - noise), **facts)
    assert [hit.where for hit in found("reward_uncontrollable", told)] == (
        [{"agent": "agent_0", "term": "noise"}] if named else []
    )


def test_a_reward_without_terms_is_accused_where_nothing_is_learned() -> None:
    stays = case(("charts/return", WHOLE, NEAR), **control(reward=0.0))
    (hit,) = found("reward_uncontrollable", stays)
    assert hit.where == {"agent": "agent_0", "term": "reward"}
    assert found("reward_uncontrollable", of(**control(reward=0.0))) == []
    assert found("reward_uncontrollable", case(("charts/return", WHOLE, NEAR), **control(reward=0.01))) == []


ALIVE, TIME = read("alive", 1.0, std=0.0), read("time", -1.0, std=0.0)
LONGER, SHORTER = 20 + 30 * RISE, 20 - 15 * RISE


@pytest.mark.parametrize(
    ("terms", "length", "named"),
    [
        ((ALIVE, read("goal", FALL)), LONGER, "alive"),
        ((ALIVE, read("goal", 0.5)), LONGER, None),  # as much a step, and more an episode
        ((ALIVE, read("goal", RISE)), LONGER, None),
        ((ALIVE, read("goal", FALL)), 20.0, None),
        ((ALIVE, read("goal", FALL)), SHORTER, None),  # the other way round
        ((read("alive", 1.0, std=1.0), read("goal", FALL)), LONGER, None),  # not paid alike at every step
        ((TIME, read("goal", 0.0)), SHORTER, "time"),
        ((TIME, read("goal", RISE)), SHORTER, None),  # the task is done sooner
        ((TIME, read("effort", -0.5)), SHORTER, None),  # so that it costs less as well
        ((TIME, read("goal", 0.0)), LONGER, None),
    ],
)
def test_a_life_is_too_long_or_short_where_others_pay_for_it(terms: Any, length: Any, named: str | None) -> None:
    hits = found("episode_length_incentive", of(*terms, length=length))
    assert [hit.where["term"] for hit in hits] == ([named] if named else [])


def test_no_end_is_no_choice() -> None:
    told = of(ALIVE, read("goal", FALL), length=LONGER)
    endless = [("ends_terminated", {"group": "agent"}, 0.0)]
    series = [(s, p, v) for s, p, v in _series(told) if s != "ends_terminated"]
    assert found("episode_length_incentive", case(*series, *endless)) == []


def _series(told: Case) -> list[tuple[str, Mapping[str, Any], ArrayLike]]:
    names = told.recording.signals()
    return [(name, each.where, each.values) for name in names for each in told.recording.series(name)]


RARER = stepped(0.95, 0.999, 10)
SELDOM = read("goal", 1 - RARER, zero=RARER)


@pytest.mark.parametrize(
    ("terms", "named"),
    [
        ((read("hint", RISE), SELDOM), True),
        ((read("hint", RISE), read("goal", 0.05, zero=0.95)), False),  # still met
        ((read("hint", RISE, zero=0.95), SELDOM), False),  # no hint: as rare
        ((read("hint", 1.0, std=0.0), SELDOM), False),  # no hint: paid alike
        ((read("hint", FALL), SELDOM), False),
        ((read("hint", RISE), read("goal", -(1 - RARER), zero=RARER)), False),  # a penalty that is avoided
        ((read("hint", RISE), read("goal", 1 - stepped(0.5, 0.999), zero=stepped(0.5, 0.999))), False),  # was not rare
    ],
)
def test_shaping_is_accused_where_the_goal_is_given_up(terms: Any, named: bool) -> None:
    hits = found("shaping_changes_task", of(*terms))
    assert [hit.where["term"] for hit in hits] == (["hint"] if named else [])
    if named:
        assert "while goal is met" in hits[0].explanation


TOOK_OVER = read("lure", 4 * RISE, share=stepped(0.2, 0.97, 12))


@pytest.mark.parametrize(
    ("terms", "length", "named"),
    [
        ((TOOK_OVER, read("task", FALL)), 20.0, True),
        ((TOOK_OVER, read("task", 1.0 + NEAR)), 20.0, False),  # nothing was given up
        ((TOOK_OVER, read("price", -RISE)), 20.0, False),  # a cost that rises with what it buys
        ((TOOK_OVER, read("task", FALL)), 20 + 5 * NOISE, False),  # behaviour is not pinned
        ((read("lure", 4 * RISE, share=0.97), read("task", FALL)), 20.0, False),  # ruled from the start
        ((read("lure", 4 * RISE, share=0.2), read("task", FALL)), 20.0, False),
        ((read("lure", 0.5 * RISE, share=stepped(0.2, 0.97, 12)), read("task", FALL)), 20.0, False),  # reward falls
    ],
)
def test_hacking_is_suspected_where_a_term_took_over_and_another_was_given_up(
    terms: Any, length: Any, named: bool
) -> None:
    hits = found("reward_hacking", of(*terms, length=length))
    assert [hit.where["term"] for hit in hits] == (["lure"] if named else [])
    if named:
        assert hits[0].onset_steps == 13_000
        assert hits[0].confidence == 0.6


def test_what_chance_paid_is_known_from_the_preflight() -> None:
    """Where the first readings are of a policy that has learned already."""
    terms = (read("hint", 1.0 + NEAR), read("goal", 0.001, zero=0.999))
    assert found("shaping_changes_task", of(*terms)) == []
    told = of(*terms, **chance(hint=(0.0, 0.2, 0.0), goal=(0.05, 0.95, 1.0)))
    assert [hit.where["term"] for hit in found("shaping_changes_task", told)] == ["hint"]


def test_where_a_team_shares_its_reward_what_is_measured_of_one_is_not_of_all() -> None:
    terms = (read("hint", 1.0 + NEAR), read("goal", 0.001, zero=0.999))
    told = of(*terms, config={"env.reward": "mean"}, **chance(hint=(0.0, 0.2, 0.0), goal=(0.05, 0.95, 1.0)))
    assert found("shaping_changes_task", told) == []
    noisy = (read("noise", NEAR, share=0.9), read("way", NEAR, share=0.1))
    one: Any = {"preflight": {"control": {"agent_0": {"noise": 0.0}, "agent_1": {"noise": 0.4}}}}
    assert found("reward_uncontrollable", of(*noisy, **one)) != []
    assert found("reward_uncontrollable", of(*noisy, config={"env.reward": "mean"}, **one)) == []


def test_an_outlier_is_that_of_the_term_that_was_farthest_off() -> None:
    peaks = stepped(1.0, 1.0)
    peaks[20] = 5_000.0
    usual: Any = [("reward_peak", AGENT, peaks), ("reward_p999", AGENT, 1.0), ("reward_std", AGENT, 1.0)]
    (hit,) = found("reward_outliers", case(*usual))
    assert hit.where == {"agent": "agent_0"}
    terms: Any = [("term_peak", AGENT | {"term": "goal"}, 2.0), ("term_peak", AGENT | {"term": "crash"}, peaks)]
    (hit,) = found("reward_outliers", case(*usual, *terms))
    assert hit.where == {"agent": "agent_0", "term": "crash"}


def test_names_with_braces_are_told_as_they_are() -> None:
    odd = [(s.replace("goal", "{x}"), {**p, "term": "{x}"} if "term" in p else p, v) for s, p, v in SELDOM]
    (hit,) = found("shaping_changes_task", of(read("hint", RISE), odd))
    assert "while {x} is met" in hit.explanation


JUDGED = ("episode_length_incentive", "reward_term_dominates", "reward_terms_conflict")
RARE = read("goal", 0.02 + 0.001 * NOISE, zero=0.97)
DENSE = read("hint", RISE + NEAR, zero=0.1)


@pytest.mark.parametrize(
    ("terms", "facts", "missing"),
    [
        ((RARE, DENSE), control(goal=0.5), {"reward_hacking"}),  # nobody neglects what pays always
        ((DENSE, read("pace", 0.5 + NEAR)), control(hint=0.5), {"shaping_changes_task"}),  # no rare goal
        ((read("goal", -0.02, zero=0.97), DENSE), {}, {"shaping_changes_task", "reward_hacking"}),  # never paid
        ((RARE, DENSE, read("pace", 0.5 + NEAR)), control(goal=0.5), set()),
        ((RARE, DENSE, read("pace", 0.5 + NEAR)), control(), {"reward_uncontrollable"}),  # no term varied
        ((DENSE,), control(hint=0.5), {*JUDGED, "shaping_changes_task", "reward_hacking"}),  # one term alone
    ],
)
def test_what_cannot_be_judged_stands_apart_with_what_it_needs(terms: Any, facts: Any, missing: set[str]) -> None:
    told = diagnose(of(*terms, **facts))
    assert {entry["cause"] for entry in told["not_judged"]} == missing
    assert not missing & set(told["checked"])
    assert all(entry["needs"] for entry in told["not_judged"])


@pytest.mark.parametrize(
    ("rise", "moved", "judged"),
    [(0.0, 0.0, False), (0.0, 0.5, True), (5.0, 0.0, True)],  # nothing moved, and nothing learned; moved; learned
)
def test_a_reward_that_chance_did_not_move_is_not_well_before_something_is_learned(
    rise: float, moved: float, judged: bool
) -> None:
    known = {"baselines": {"random": {"return": 0.0, "ci95": [-0.1, 0.1]}, "best_constant": None}}
    run = case(("charts/return", WHOLE, rise * RISE + NEAR), total_steps=10**9, **known, **control(reward=moved))
    told = diagnose(run)  # too early to say that nothing is learned
    apart = {entry["cause"]: entry["needs"] for entry in told["not_judged"]}
    assert ("reward_uncontrollable" in told["checked"]) is judged
    assert judged or "no action of random play moved" in str(apart["reward_uncontrollable"])


@pytest.mark.parametrize(("config", "judged"), [({}, False), ({"env.reward": "mean"}, False), (None, True)])
def test_terms_that_leave_something_out_are_not_judged(config: Any, judged: bool) -> None:
    whose = "agent_0" if config != {"env.reward": "mean"} else "agent_9"  # of a reward that is shared, whosever
    facts: dict[str, Any] = {"preflight": {"unaccounted": {} if judged else {whose: 0.1}}}
    told = diagnose(of(RULING, IDLE, config=config, **facts))
    assert ("reward_term_dominates" in [entry["cause"] for entry in told["findings"]]) is judged
    needs = {entry["cause"]: entry["needs"] for entry in told["not_judged"]}
    assert judged or needs["reward_term_dominates"] == "reward terms that add up to the reward"


def test_what_was_found_was_judged() -> None:
    told = diagnose(of(RULING, IDLE))
    assert told["findings"][0]["cause"] == "reward_term_dominates"
    assert "reward_term_dominates" in told["checked"]
    assert "reward_term_dominates" not in {entry["cause"] for entry in told["not_judged"]}


@pytest.mark.parametrize(
    ("explained", "std", "named"),
    [
        (stepped(0.8, 0.02), 1.0, True),
        (np.concatenate([stepped(0.8, 0.0)[:30], np.full(N - 30, 0.6)]), 1.0, False),  # learns to tell again
        (stepped(0.8, 0.02), stepped(1.0, 0.1), False),  # hardly anything varies any more
        (stepped(0.8, -3.0), 1.0, False),  # a critic that broke
        (np.linspace(0.8, 0.0, N), 1.0, False),  # by and by
        (0.05, 1.0, False),  # never told anything
    ],
)
def test_a_reward_that_nothing_explains_any_more_is_out_of_reach(explained: Any, std: Any, named: bool) -> None:
    seen = ("explained_variance", AGENT, explained), ("reward_std", AGENT, std)
    hits = found("reward_uncontrollable", case(*seen, preflight={}))
    assert bool(hits) == named
    assert all(hit.onset_steps == 21_000 for hit in hits)
