"""Symptoms: the agent that is stuck and only it, when it has lasted, and once."""

from __future__ import annotations

import pytest

from marl_stable.monitor.detectors import SAME_ACTION_SHARE, STUCK_DIMENSIONS_SHARE, RepeatedAction
from marl_stable.types import ActionSpec, Box, Discrete, EnvSpec, Group

BOX = Box((-1.0,), (1.0,))
GROUPS: tuple[tuple[str, int, ActionSpec], ...] = (
    ("walker", 2, Discrete(5)),
    ("arm", 2, BOX),
    ("rock", 1, Discrete(1)),
)


def detector() -> RepeatedAction:
    groups = tuple(
        Group(name, tuple(f"{name}_{i}" for i in range(count)), 3, action, "team") for name, count, action in GROUPS
    )
    return RepeatedAction(EnvSpec("test", tuple(agent for group in groups for agent in group.agents), groups))


def sameness(**stuck: float) -> dict[str, float]:
    usual = {"walker_0": 0.3, "walker_1": 0.5, "arm_0": 0.0, "arm_1": 0.5, "rock_0": 1.0}
    return usual | stuck


def test_the_stuck_agent_is_named_at_its_second_reading_with_numbers_and_only_once():
    watch = detector()
    evidence = {"walker_1": {"saturation": 0.9}}
    assert watch(100, sameness(walker_1=0.97), evidence) == []
    (incident,) = watch(200, sameness(walker_1=0.98), evidence)
    assert (incident.steps, incident.kind, incident.where) == (200, "repeated_action", {"agent": "walker_1"})
    assert (incident.value, incident.limit, incident.action) == (0.98, SAME_ACTION_SHARE, "warned")
    assert incident.evidence == {"saturation": 0.9}
    assert watch.repeating() == ["walker_1"]
    for steps in range(300, 900, 100):
        assert watch(steps, sameness(walker_1=1.0), evidence) == []
    assert watch.repeating() == ["walker_1"]


def test_one_odd_batch_is_no_alarm():
    watch = detector()
    for steps in range(10):
        assert watch(steps, sameness(walker_0=1.0 if steps % 2 else 0.4), {}) == []
    assert watch.repeating() == []


def test_after_a_recovery_the_agent_is_named_again():
    watch = detector()
    found = [bool(watch(steps, sameness(arm_0=value), {})) for steps, value in enumerate([1, 1, 1, 0.2, 1, 1, 1])]
    assert found == [False, True, False, False, False, True, False]


@pytest.mark.parametrize(
    ("agent", "limit"), [("walker_0", SAME_ACTION_SHARE), ("arm_1", STUCK_DIMENSIONS_SHARE)], ids=["discrete", "box"]
)
def test_each_kind_of_action_has_its_limit(agent: str, limit: float):
    for value, alarm in ((limit, True), (limit - 0.01, False)):
        watch = detector()
        watch(1, sameness(**{agent: value}), {})
        assert [i.where["agent"] for i in watch(2, sameness(**{agent: value}), {})] == ([agent] if alarm else [])


def test_two_stuck_agents_are_two_incidents():
    watch = detector()
    stuck = sameness(walker_0=1.0, arm_0=1.0)
    watch(1, stuck, {})
    assert [i.where["agent"] for i in watch(2, stuck, {})] == ["walker_0", "arm_0"]


def test_an_agent_with_only_one_action_cannot_repeat_itself():
    watch = detector()
    assert [watch(steps, sameness(rock_0=1.0), {}) for steps in range(4)] == [[]] * 4


def test_a_number_that_is_not_there_is_no_alarm():
    watch = detector()
    assert [watch(steps, sameness(walker_0=float("nan")), {}) for steps in range(4)] == [[]] * 4


def test_readings_survive_a_checkpoint():
    watch, fresh = detector(), detector()
    watch(1, sameness(walker_0=1.0), {})
    fresh.load_state_dict(watch.state_dict())
    watch(2, sameness(), {})
    (incident,) = fresh(2, sameness(walker_0=1.0), {})
    assert incident.where == {"agent": "walker_0"}
