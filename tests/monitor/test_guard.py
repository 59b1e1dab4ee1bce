"""The guard's decisions, from numbers alone: nothing on healthy ones, bounded acts on others, all in its state."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest

from marl_stable.monitor.course import FOR, REMEMBERED, SMOOTHED, Course
from marl_stable.monitor.guard import CALM, LOWEST, MAX_RESTORES, QUIET, SNAPSHOT_EVERY, SNAPSHOTS, Act, Guard
from marl_stable.monitor.pace import FIRST_STEP, LONG_FIRST, LONGEST_FIRST, USUAL_FIRST, first_step

AGENTS = {"pair": ("left", "right")}
KINDS = {"non_finite_gradient", "gradient_spike", "collapse"}  # of the contract, those that the guard may use
ACTIONS = {"lowered_rate", "reset_moments", "restored", "stopped", "warned"}


def guard(repairs: bool = False, random_return: float | None = -30.0) -> Guard:
    made = Guard(AGENTS, random_return, repairs)
    made.keep(0, "beginning")
    return made


def figures(**given: Any) -> dict[str, dict[str, np.ndarray]]:
    """A healthy iteration of two agents with networks of their own, but for what is `given` by signal."""
    usual = {
        "stability/update_ratio/actor": [0.005, 0.005],
        "stability/update_ratio/critic": [0.005, 0.005],
        "stability/layer_change/actor": [[1.0, 0.1], [1.0, 0.1]],  # a small final layer changes all, and may
        "stability/layer_change/critic": [[0.1, 0.1], [0.1, 0.1]],
        "stunned/actor": [0, 0],
        "stunned/critic": [0, 0],
        "losses/approx_kl": 0.02,
        "non_finite/actor": [0, 0],
        "non_finite/critic": [0, 0],
        "weights/norm": 10.0,
        "charts/return": [-25.0, -25.0],
    }
    names = {tag.replace("/", "_").removeprefix("stability_"): tag for tag in usual}
    values = usual | {names.get(name, f"stability/{name}"): value for name, value in given.items()}
    return {tag: {"pair": np.asarray(value, float)} for tag, value in values.items()}


def run(subject: Guard, count: int, alarm: bool = False, **given: Any) -> list[Act]:
    """So many iterations of the same figures; all acts."""
    acts = []
    for i in range(count):
        acts += subject.decide(100 * (i + 1), figures(**given), alarm)
        if subject.wants_snapshot():
            subject.keep(100 * (i + 1), "later")
    return acts


def rate(subject: Guard, place: str = "pair/actor/0") -> float:
    return float(subject.rows[place]["factor"])


# ---- healthy


def test_healthy_runs_are_left_alone() -> None:
    subject, random = guard(), np.random.default_rng(0)
    for i in range(300):
        level = -25 + i / 30 + random.normal(0, 2, 2)
        quick = {"update_ratio_actor": random.uniform(1e-5, 0.02, 2), "losses_approx_kl": random.uniform(0, 0.2)}
        changes = np.stack([np.ones(2), random.uniform(0, 0.4, 2)], axis=1)
        found = figures(charts_return=level, layer_change_actor=changes, **quick)
        assert subject.decide(i, found, alarm=i % 7 == 0) == []


def test_an_iteration_without_updates_or_episodes_is_no_trouble() -> None:
    subject = guard()
    assert subject.decide(1, {"charts/return": {"pair": np.full(2, np.nan)}}, alarm=False) == []
    assert subject.decide(2, {}, alarm=False) == []


def test_one_odd_batch_is_no_alarm() -> None:
    subject = guard()
    for _ in range(5):
        assert run(subject, 1, losses_approx_kl=77.0) == []
        assert run(subject, 1) == []


# ---- step sizes


@pytest.mark.parametrize(("value", "factor"), [(0.3, 1.0), (1.2, 1.0), (2.4, 0.25), (1e3, LOWEST), (None, 1.0)])
def test_a_first_step_beyond_its_budget_is_shortened_to_the_usual(value: float | None, factor: float) -> None:
    subject = guard()
    far = first_step(0.02, {"value": value, "warn": 0.6, "alarm": 1.2})
    acts = subject.begin({"pair": {"actor": [far, far], "critic": [first_step(0.02, {})] * 2}})
    assert [act.factor for act in acts] == ([pytest.approx(factor)] * 2 if factor < 1 else [])
    for i, act in enumerate(acts):
        assert act.incident
        assert (act.kind, act.network, act.incident.steps, act.incident.limit) == ("lowered_rate", "actor", 0, 1.2)
        assert act.incident.where == {"network": "actor", "agent": AGENTS["pair"][i]}
        assert rate(subject, f"pair/actor/{i}") == pytest.approx(factor)
    assert ("raised_rate" in {act.kind for act in run(subject, CALM)}) == (factor < 1)  # later, where all is calm


def test_a_first_step_that_is_long_for_the_weights_is_shortened_in_the_row_that_takes_it() -> None:
    subject = guard()
    (act,) = subject.begin({"pair": {"critic": [first_step(0.1, {}), first_step(0.3, {})]}})
    assert (act.network, act.rows) == ("critic", (False, True))
    assert act.factor == pytest.approx(USUAL_FIRST / 0.3)
    assert act.incident
    assert (act.incident.value, act.incident.limit) == (0.3, LONGEST_FIRST)
    assert act.incident.evidence["reason"] == LONG_FIRST


def test_of_two_measures_of_the_first_step_the_one_farthest_beyond_the_usual_counts() -> None:
    reach = {"value": 3.0, "warn": 0.6, "alarm": 1.2}
    assert first_step(0.12, reach) == (3.0, 0.6, 1.2, FIRST_STEP)
    assert first_step(0.3, reach) == (0.3, USUAL_FIRST, LONGEST_FIRST, LONG_FIRST)
    assert first_step(0.09, reach).reason == FIRST_STEP  # the other is within its limit
    assert first_step(0.12, reach | {"value": 1.1}).reason == LONG_FIRST
    assert first_step(0.12, {}).reason == LONG_FIRST


@pytest.mark.parametrize(
    ("given", "limit"),
    [({"update_ratio_critic": [0.005, 0.2]}, 0.1), ({"layer_change_critic": [[0.1, 0.1], [0.9, 0.95]]}, 0.85)],
)
def test_only_the_row_whose_steps_are_too_large_gets_smaller_ones(given: dict[str, Any], limit: float) -> None:
    subject = guard()
    acts = run(subject, 2, **given)
    assert {act.rows for act in acts} == {(False, True)}
    assert {(act.kind, act.group, act.network, act.factor) for act in acts} == {("lowered_rate", "pair", "critic", 0.5)}
    assert rate(subject, "pair/critic/0") == rate(subject, "pair/actor/1") == 1
    incident = acts[0].incident
    assert incident
    assert incident.where == {"network": "critic", "agent": "right"}
    assert incident.value > incident.limit == limit
    assert (incident.evidence["rate_before"], incident.evidence["rate_after"]) == (1.0, 0.5)


def test_a_policy_that_jumps_twice_in_a_row_gets_smaller_steps_and_its_critic_does_not() -> None:
    acts = run(guard(), 2, losses_approx_kl=0.6)
    assert [(act.kind, act.network, act.rows) for act in acts] == [
        ("lowered_rate", "actor", (True, False)),
        ("lowered_rate", "actor", (False, True)),
    ]


def test_rates_have_a_floor_and_what_is_told_multiplies_to_it() -> None:
    subject = guard()
    acts = [act for act in run(subject, 40, update_ratio_actor=[0.5, 0.0]) if act.rows == (True, False)]
    assert rate(subject) == LOWEST
    assert math.prod(act.factor for act in acts) == pytest.approx(LOWEST)
    assert len(acts) == 5  # and then no more
    assert [act.incident.steps for act in acts if act.incident] == [200, 400, 600, 800, 1000]


def test_rates_rise_again_after_calm_never_above_what_was_asked_for_and_without_a_word() -> None:
    subject = guard()
    run(subject, 2, update_ratio_actor=[0.5, 0.5])
    assert run(subject, CALM - 1) == []
    acts = run(subject, 1)
    assert {(act.kind, act.incident) for act in acts} == {("raised_rate", None)}
    assert rate(subject) == pytest.approx(0.55)
    run(subject, 20 * CALM)
    assert rate(subject) == 1.0
    assert run(subject, 2 * CALM) == []


def test_what_is_near_its_limit_is_not_calm() -> None:
    subject = guard()
    run(subject, 2, update_ratio_actor=[0.5, 0.5])
    assert run(subject, 3 * CALM, update_ratio_actor=[0.06, 0.06]) == []
    assert rate(subject) == 0.5


def test_a_stunned_optimiser_forgets_once_and_then_ever_more_rarely() -> None:
    subject = guard()
    acts = run(subject, 8 * CALM, stunned_actor=[1, 0])
    assert {(act.kind, act.rows, act.factor) for act in acts} == {("reset_moments", (True, False), 1.0)}
    assert [act.incident.steps // 100 for act in acts if act.incident] == [1, CALM + 1, 3 * CALM + 1, 7 * CALM + 1]


# ---- what an earlier state alone would mend


DEADLY = [
    pytest.param({"weights_norm": math.nan}, 1, id="weights that are no numbers"),
    pytest.param({"weights_norm": math.inf}, 1, id="weights without end"),
    pytest.param({"non_finite_critic": [0.0, 1.0]}, 2, id="a critic without gradients"),
]


@pytest.mark.parametrize(("given", "after"), DEADLY)
def test_guard_stops_and_leaves_the_last_healthy_state(given: dict[str, Any], after: int) -> None:
    subject = guard()
    run(subject, 7)
    assert run(subject, after - 1, **given) == []
    (act,) = run(subject, 1, **given)
    assert (act.kind, act.state, act.factor) == ("stopped", "later", 0.5)
    assert act.incident
    assert act.incident.action == "stopped"
    assert act.incident.evidence["to_steps"] == 100 * SNAPSHOT_EVERY
    assert (act.incident.evidence["rate_before"], act.incident.evidence["rate_after"]) == (1.0, 0.5)


def test_where_there_is_no_snapshot_there_is_nothing_to_go_back_to() -> None:
    subject = Guard(AGENTS, None, repairs=True)
    (act,) = subject.decide(100, figures(weights_norm=math.nan), alarm=False)
    assert (act.kind, act.state) == ("stopped", None)


def test_gradients_that_are_finite_now_and_then_are_enough() -> None:
    subject = guard()
    for _ in range(5):
        assert run(subject, 1, non_finite_critic=[0, 1]) == []
        assert run(subject, 3, non_finite_critic=[0, 0.9]) == []


@pytest.mark.parametrize(("given", "after"), DEADLY)
def test_repair_restores_three_times_with_ever_smaller_steps_and_then_stops(given: dict[str, Any], after: int) -> None:
    subject = guard(repairs=True)
    kinds, rates = [], []
    for _ in range(MAX_RESTORES + 1):
        run(subject, 2 * SNAPSHOT_EVERY)
        acts = run(subject, after, **given)
        kinds += [act.kind for act in acts]
        rates.append(subject.highest)
    assert kinds == ["restored"] * MAX_RESTORES + ["stopped"]
    assert rates == [0.5, 0.25, 0.125, 0.0625]
    run(subject, 60 * CALM)
    assert rate(subject) == rates[-1]  # never higher than what has led to trouble


def test_repair_undoes_an_iteration_that_replaced_a_network_and_guard_does_not() -> None:
    replaced: dict[str, Any] = {"layer_change_actor": [[1.0, 0.95], [1.0, 0.1]]}
    assert [act.kind for act in run(guard(repairs=True), 1, **replaced)] == ["restored"]
    assert [act.kind for act in run(guard(), 1, **replaced)] == ["lowered_rate"]


def test_a_snapshot_that_led_to_trouble_again_is_followed_by_an_older_one() -> None:
    subject = guard(repairs=True)
    for steps in (500, 1000):
        subject.keep(steps, steps)
    states = [run(subject, 1, weights_norm=math.nan)[0].state for _ in range(3)]
    assert states == [1000, 500, "beginning"]


def collapse(subject: Guard, alarm: bool = True) -> list[Act]:
    """Learning from -25 to -10, and then back to -25."""
    acts = []
    levels = [*np.linspace(-25, -10, 40), *np.full(30, -25.0)]
    for i, level in enumerate(levels):
        acts += subject.decide(100 * i, figures(charts_return=[level, level]), alarm and i >= 40)
        if subject.wants_snapshot():
            subject.keep(100 * i, i)
    return acts


def test_guard_warns_once_of_a_lasting_collapse_and_repair_goes_back_to_before_it() -> None:
    (act,) = collapse(guard())
    assert (act.kind, act.state) == ("warned", None)
    assert act.incident
    assert act.incident.evidence["best"] > -12 > act.incident.limit > act.incident.value
    acts = collapse(guard(repairs=True))
    assert acts[0].kind == "restored"
    assert 30 < acts[0].state < 43


def test_a_warning_is_repeated_only_much_later() -> None:
    subject = guard()
    assert len(collapse(subject)) == 1
    more = [act.kind for act in run(subject, 2 * QUIET, alarm=True)]
    assert more == ["warned", "warned"]


def test_where_nothing_else_is_wrong_it_is_the_task_that_has_changed() -> None:
    assert collapse(guard(repairs=True), alarm=False) == []


def test_without_random_play_nobody_knows_what_was_gained() -> None:
    assert collapse(guard(repairs=True, random_return=None)) == []


def test_noise_alone_is_no_collapse() -> None:
    course, random = Course(-26.0), np.random.default_rng(1)
    assert [course.add(x, wrong=True) for x in random.normal(-25, 3, 3000)] == [None] * 3000
    assert REMEMBERED > SMOOTHED


# ---- snapshots


def test_snapshots_are_of_healthy_states_a_few_iterations_apart_and_few() -> None:
    subject = guard()
    run(subject, 40)
    assert [steps for steps, _ in subject.snapshots] == [3000, 3500, 4000]
    assert len(subject.snapshots) == SNAPSHOTS


@pytest.mark.parametrize(
    "given",
    [
        {"non_finite_actor": [0.1, 0]},
        {"update_ratio_actor": [0.2, 0]},
        {"losses_approx_kl": 0.6},
        {"stunned_critic": [0, 1]},
        {"charts_return": [-31, -31]},
    ],
)
def test_no_snapshot_is_taken_of_anything_else(given: dict[str, Any]) -> None:
    subject = guard()
    run(subject, 20)
    kept = [steps for steps, _ in subject.snapshots]
    run(subject, 20, **given)
    assert len({steps for steps, _ in subject.snapshots} - set(kept)) == 0


def test_below_random_play_the_best_so_far_is_good_enough() -> None:
    subject = guard(random_return=-10.0)
    run(subject, 20)
    assert subject.snapshots[-1][0] == 2000


# ---- state and words


def test_it_goes_on_exactly_where_its_state_was_taken() -> None:
    random = np.random.default_rng(3)
    series = [
        figures(
            update_ratio_actor=random.choice([0.01, 0.2], 2),
            stunned_critic=random.integers(0, 2, 2),
            charts_return=random.normal(-20, 3, 2),
            weights_norm=random.choice([1.0, math.inf], p=[0.95, 0.05]),
        )
        for _ in range(120)
    ]
    whole, parts = guard(repairs=True), guard(repairs=True)
    for i, found in enumerate(series):
        state = copy.deepcopy(parts.state_dict())
        parts = guard(repairs=True)
        parts.load_state_dict(state)
        expected = whole.decide(i, found, i % 3 == 0)
        assert parts.decide(i, found, i % 3 == 0) == expected
        assert parts.wants_snapshot() == whole.wants_snapshot()
        if whole.wants_snapshot():
            whole.keep(i, i)
            parts.keep(i, i)
    assert parts.state_dict() == whole.state_dict()
    assert whole.restores > 0


def test_a_state_does_not_change_with_the_guard_that_it_was_taken_of() -> None:
    subject = guard()
    run(subject, 3)
    state = subject.state_dict()
    before = copy.deepcopy(state)
    run(subject, 30, update_ratio_actor=[0.5, 0.5])
    assert state == before


def test_all_incidents_are_of_the_kinds_that_are_promised_and_say_before_and_after() -> None:
    subject, random = guard(repairs=True), np.random.default_rng(5)
    acts = collapse(guard(repairs=True)) + collapse(guard())
    for _ in range(300):
        given: dict[str, Any] = {
            "update_ratio_actor": random.choice([0.01, 0.3], 2),
            "stunned_critic": random.choice([0, 1], 2),
            "non_finite_critic": random.choice([0, 1], 2, p=[0.8, 0.2]),
        }
        acts += run(subject, 1, **given)
    told = [act.incident for act in acts if act.incident]
    assert {incident.kind for incident in told} == KINDS
    assert {incident.action for incident in told} == ACTIONS
    changed = [incident.evidence for incident in told if incident.action != "warned"]
    assert all({"rate_before", "rate_after"} <= evidence.keys() for evidence in changed)
    assert FOR > 1
