"""One copy of a ParallelEnv as arrays: spaces, groups, lives and deaths, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from marl_stable.envs.pettingzoo import ParallelCopy
from marl_stable.types import Box, Discrete, EnvironmentFailure, UsageError
from tests.envs.fakes import Scripted, Walk

STILL = {"agent": np.zeros(2, np.int64)}
SEEN = np.array([7.0, 8.0])


class WithSpaces(Walk):
    """Gives every agent the spaces and the observations that a test asks for."""

    def __init__(self, observation: Any = None, action: Any = None, value: Any = None, agents: int = 1) -> None:
        super().__init__(agents, action=action)
        self.observation, self.value = observation, value

    def observation_space(self, agent: str) -> Any:
        return super().observation_space(agent) if self.observation is None else self.observation

    def observations(self) -> dict[str, Any]:
        return super().observations() if self.value is None else dict.fromkeys(self.possible_agents, self.value)


def script(*, ended: str = "", agents: tuple[str, ...] = ("agent_0", "agent_1"), **changes: Any) -> Any:
    """What `step` returns when `agents` acted, with single parts replaced."""
    parts = {
        "obs": dict.fromkeys(agents, SEEN),
        "rewards": dict.fromkeys(agents, 1.0),
        "terminated": {agent: agent in ended for agent in agents},
        "truncated": dict.fromkeys(agents, False),
        "infos": {},
    } | changes
    return tuple(parts.values())


def groups(env: Any, env_id: str = "test") -> list[tuple[str, tuple[str, ...], str]]:
    return [(group.name, group.agents, group.team) for group in ParallelCopy(env, env_id).spec.groups]


def named(agents: list[str], spaces_of: dict[str, Any] | None = None, **attributes: Any) -> Walk:
    env = Walk(len(agents))
    env.possible_agents = agents
    if spaces_of is not None:
        attributes["action_space"] = spaces_of.__getitem__
    for name, value in attributes.items():
        setattr(env, name, value)
    return env


def test_agents_with_equal_spaces_form_a_group_named_by_what_they_share():
    assert groups(named(["agent_0", "agent_12"])) == [("agent", ("agent_0", "agent_12"), "team")]


def test_a_group_of_differently_named_agents_is_called_like_its_first():
    assert groups(named(["alice_0", "bob_0"])) == [("alice_0", ("alice_0", "bob_0"), "team")]


def test_two_groups_that_would_be_called_alike_are_called_like_their_first_agents():
    wide = {"a_0": spaces.Discrete(2), "a_1": spaces.Discrete(3), "a_2": spaces.Discrete(2)}
    assert groups(named(list(wide), wide)) == [("a_0", ("a_0", "a_2"), "team"), ("a_1", ("a_1",), "team")]


def test_a_first_agents_name_that_is_another_groups_common_name_stays_unique():
    wide = {"a_0_1": spaces.Discrete(2), "a_0": spaces.Discrete(3), "b": spaces.Discrete(3)}
    assert [name for name, *_ in groups(named(list(wide), wide))] == ["a_0_1", "a_0"]


def test_teams_of_the_environment_split_groups_and_keep_the_order_of_agents():
    env = named(["x_0", "x_1", "x_2"], teams={"red": ["x_1"], "blue": ["x_0", "x_2"]})
    assert groups(env) == [("x_0", ("x_0", "x_2"), "blue"), ("x_1", ("x_1",), "red")]
    assert ParallelCopy(env, "test").spec.teams == ("blue", "red")


@pytest.mark.parametrize("teams", [{"red": ["x_0"]}, {"red": ["x_0", "x_1"], "blue": ["x_1"]}, {"red": "x_0"}, 2])
def test_teams_that_do_not_hold_every_agent_once_are_refused(teams: Any):
    with pytest.raises(UsageError, match="attribute teams is"):
        ParallelCopy(named(["x_0", "x_1"], teams=teams), "test")


def test_discrete_actions_begin_at_start_and_have_the_spaces_dtype():
    env = WithSpaces(action=spaces.Discrete(3, start=-1, dtype=np.int32), agents=2)
    copy = ParallelCopy(env, "test")
    assert copy.spec.groups[0].action == Discrete(3, start=-1, dtype="int32")
    copy.reset(1)
    copy.step({"agent": np.array([0, 2])})
    assert env.received == [{"agent_0": -1, "agent_1": 1}]
    assert all(env.action.contains(action) for action in env.received[0].values())


@pytest.mark.parametrize("shape", [(), (1,), (4,), (2, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_box_actions_arrive_in_the_shape_and_dtype_of_their_space(shape: tuple[int, ...], dtype: Any):
    env = WithSpaces(action=spaces.Box(-2, 3, shape, dtype), agents=2)
    copy = ParallelCopy(env, "test")
    size = int(np.prod(shape))
    form = (shape if len(shape) > 1 else (), shape == (), np.dtype(dtype).name)
    assert copy.spec.groups[0].action == Box((-2.0,) * size, (3.0,) * size, *form)
    copy.reset(1)
    actions = np.arange(2 * size, dtype=np.float32).reshape(2, size) % 4
    copy.step({"agent": actions})
    for row, agent in enumerate(env.possible_agents):
        received = env.received[0][agent]
        assert env.action.contains(received)
        np.testing.assert_array_equal(received.reshape(-1), actions[row])


def test_bounds_hold_per_dimension_and_a_rounding_beyond_them_is_taken_back():
    space = spaces.Box(np.array([-1.0, 0.1]), np.array([0.1, 0.7]), dtype=np.float64)
    env = WithSpaces(action=space)
    copy = ParallelCopy(env, "test")
    assert copy.spec.groups[0].action == Box((-1.0, 0.1), (0.1, 0.7), dtype="float64")
    copy.reset(1)
    copy.step({"agent": np.array([[0.1, 0.7]], np.float32)})  # 0.1 in float32 is above 0.1 in float64
    assert space.contains(env.received[0]["agent_0"])


def test_an_action_of_nan_is_not_clipped_into_a_number():
    env = WithSpaces(action=spaces.Box(-1, 1, (2,)))
    copy = ParallelCopy(env, "test")
    copy.reset(1)
    copy.step({"agent": np.array([[np.nan, 5.0]], np.float32)})
    np.testing.assert_array_equal(env.received[0]["agent_0"], [np.nan, 1.0])


def test_an_action_of_nan_for_whole_numbers_is_a_failure():
    copy = ParallelCopy(WithSpaces(action=spaces.Box(0, 9, (1,), np.int64)), "test")
    copy.reset(1)
    with pytest.raises(EnvironmentFailure, match="no whole number"):
        copy.step({"agent": np.array([[np.nan]], np.float32)})


@pytest.mark.parametrize(
    ("space", "value", "row"),
    [
        (spaces.Box(-9, 9, (3,), np.float64), np.array([1.0, 2.0, 3.0]), [1, 2, 3]),
        (spaces.Box(-9, 9, (2, 2)), np.array([[1.0, 2.0], [3.0, 4.0]]), [1, 2, 3, 4]),
        (spaces.Box(0, 1, ()), 0.5, [0.5]),
        (spaces.Box(0, 9, (2,), np.int64), [3, 4], [3, 4]),
        (spaces.Discrete(3, start=5), 6, [0, 1, 0]),
        (spaces.MultiBinary(2), np.array([1, 0], np.int8), [1, 0]),
        (spaces.Dict(a=spaces.Discrete(2), b=spaces.Box(-9, 9, (2,))), {"a": 1, "b": np.array([5, 6])}, [0, 1, 5, 6]),
        (spaces.Box(-np.inf, np.inf, (2,)), np.array([np.nan, -np.inf]), [np.nan, -np.inf]),
        (spaces.Box(-np.inf, np.inf, (1,), np.float64), np.array([1e300]), [np.inf]),  # too large for float32
    ],
)
def test_observations_become_float32_rows(space: Any, value: Any, row: list[float]):
    copy = ParallelCopy(WithSpaces(space, value=value), "test")
    obs = copy.reset(1)["agent"]
    assert obs.dtype == np.float32
    assert copy.spec.groups[0].obs_size == len(row)
    np.testing.assert_array_equal(obs, [row])


@pytest.mark.parametrize(
    ("space", "value"),
    [
        (spaces.Box(-9, 9, (3,)), np.zeros(1)),  # would broadcast
        (spaces.Box(-9, 9, (3,)), np.float64(0)),
        (spaces.Box(-9, 9, (3,)), np.zeros((1, 3))),
        (spaces.Box(-9, 9, (2,)), [[1.0], [2.0, 3.0]]),
        (spaces.Box(-9, 9, (2,)), np.array(["a", "b"])),
        (spaces.Discrete(3), -1),  # would light up another category
        (spaces.Tuple((spaces.Discrete(3), spaces.Discrete(2))), (1, 2)),
        (spaces.Dict(a=spaces.Discrete(2)), {"b": 1}),
        (spaces.Dict(a=spaces.Box(0, 1, (2,))), {"a": np.zeros(3)}),
    ],
)
def test_an_observation_that_does_not_fit_its_space_is_a_failure(space: Any, value: Any):
    copy = ParallelCopy(WithSpaces(space, value=value), "test")
    with pytest.raises(EnvironmentFailure, match="the observation of agent_0"):
        copy.reset(1)


@pytest.mark.parametrize("reward", [2, np.float32(2), np.float64(2), np.array(2.0), True])
def test_rewards_may_be_any_single_number(reward: Any):
    copy = ParallelCopy(Scripted([(script(rewards={"agent_0": reward, "agent_1": 1e300}), ["agent_0"])]), "test")
    copy.reset(1)
    np.testing.assert_array_equal(copy.step(STILL).reward["agent"], [float(reward), np.inf])


def test_a_dead_agent_leaves_zeros_behind_while_the_others_go_on():
    env = Scripted(
        [
            (script(ended="agent_0"), ["agent_1"]),
            (script(agents=("agent_1",)), ["agent_1"]),
            (script(agents=("agent_1",), truncated={"agent_1": True}), []),
        ]
    )
    copy = ParallelCopy(env, "test")
    copy.reset(1)
    first = copy.step(STILL)
    assert (first.terminated["agent"].tolist(), first.alive["agent"].tolist()) == ([True, False], [True, True])
    np.testing.assert_array_equal(first.obs["agent"], [SEEN, SEEN])  # the step it died in is still its own
    second = copy.step(STILL)
    assert list(env.received[1]) == ["agent_1"]
    assert (second.terminated["agent"].tolist(), second.alive["agent"].tolist()) == ([False, False], [False, True])
    assert (second.reward["agent"].tolist(), second.done) == ([0, 1], False)
    np.testing.assert_array_equal(second.obs["agent"], [[0, 0], SEEN])
    third = copy.step(STILL)
    assert (third.truncated["agent"].tolist(), third.done) == ([False, True], True)


def test_an_agent_that_stays_listed_after_its_end_is_dead_all_the_same():
    both = ["agent_0", "agent_1"]
    env = Scripted([(script(ended="agent_0"), both), (script(ended="agent_0"), both), (script(ended=str(both)), both)])
    copy = ParallelCopy(env, "test")
    copy.reset(1)
    assert not copy.step(STILL).done
    second = copy.step(STILL)
    assert list(env.received[1]) == both  # the environment lists it, so it is given an action
    assert (second.alive["agent"].tolist(), second.reward["agent"].tolist(), second.done) == (
        [False, True],
        [0, 1],
        False,
    )
    assert copy.step(STILL).done


def test_an_agent_may_be_absent_at_first_and_come_back():
    env = Scripted(
        [
            (script(ended="agent_1"), ["agent_0"]),
            (script(agents=("agent_0",), obs=dict.fromkeys(("agent_0", "agent_1"), SEEN)), ["agent_0", "agent_1"]),
            (script(), ["agent_0", "agent_1"]),
        ]
    )
    copy = ParallelCopy(env, "test")
    copy.reset(1)
    copy.step(STILL)
    born = copy.step(STILL)
    assert born.alive["agent"].tolist() == [True, False]  # it acts from the next step on
    np.testing.assert_array_equal(born.obs["agent"], [SEEN, SEEN])
    assert copy.step(STILL).alive["agent"].tolist() == [True, True]


def test_terminated_wins_over_truncated():
    both_true = {"agent_0": True, "agent_1": True}
    copy = ParallelCopy(Scripted([(script(ended="agent_0", truncated=both_true), [])]), "test")
    copy.reset(1)
    step = copy.step(STILL)
    assert (step.terminated["agent"].tolist(), step.truncated["agent"].tolist()) == ([True, False], [False, True])


def test_an_agent_that_vanishes_without_a_word_was_terminated():
    one = {"agent_0": SEEN}
    copy = ParallelCopy(Scripted([(script(obs=one), ["agent_0"]), (script(agents=("agent_0",)), [])]), "test")
    copy.reset(1)
    step = copy.step(STILL)
    assert (step.terminated["agent"].tolist(), step.done) == ([False, True], False)
    assert step.obs["agent"][1].tolist() == [0, 0]
    step = copy.step(STILL)
    assert (step.terminated["agent"].tolist(), step.done) == ([True, False], True)


BOTH = ["agent_0", "agent_1"]


@pytest.mark.parametrize(
    ("result", "after", "message"),
    [
        (script(rewards={"agent_0": 1.0}), BOTH, "agent_1 acted but is missing from rewards"),
        (script(terminated={"agent_0": False}), BOTH, "agent_1 acted but is missing from terminations"),
        (script(truncated={}), BOTH, "agent_0 acted but is missing from truncations"),
        (script(obs={"agent_0": SEEN}), BOTH, "agent_1 is missing from the observations"),
        (script(obs={}, truncated=dict.fromkeys(BOTH, True)), [], "agent_0 is missing from the observations"),
        (script(), [*BOTH, "ghost"], "'ghost', which is not in possible_agents"),
        (script(obs=dict.fromkeys(BOTH, np.zeros(3))), BOTH, r"has shape \(3,\) where its space says \(2,\)"),
        (script(rewards=dict.fromkeys(BOTH, np.ones(2))), BOTH, "the reward of agent_0 is array"),
        (script(rewards=dict.fromkeys(BOTH, None)), BOTH, "the reward of agent_0 is None"),
        (script()[:4], BOTH, "step must return"),
    ],
)
def test_a_step_that_breaks_the_interface_is_a_failure(result: Any, after: list[str], message: str):
    copy = ParallelCopy(Scripted([(result, after)]), "test")
    copy.reset(1)
    with pytest.raises(EnvironmentFailure, match=message):
        copy.step(STILL)


def test_a_reset_that_breaks_the_interface_is_a_failure():
    class Old(Walk):
        def reset(self, seed: int | None = None, options: Any = None) -> Any:
            return super().reset(seed)[0]  # two observations: unpacking alone would not notice

    class Empty(Walk):
        def reset(self, seed: int | None = None, options: Any = None) -> Any:
            result = super().reset(seed)
            self.agents = []
            return result

    with pytest.raises(EnvironmentFailure, match="reset must return"):
        ParallelCopy(Old(), "test").reset(1)
    with pytest.raises(EnvironmentFailure, match=r"reset left env\.agents empty"):
        ParallelCopy(Empty(), "test").reset(1)


class Restless(Walk):
    """Its observation space is another one at every call."""

    calls = 0

    def observation_space(self, agent: str) -> Any:
        self.calls += 1
        return spaces.Box(-1, 1, (self.calls,))


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (WithSpaces(action=spaces.Tuple((spaces.Discrete(2),))), "MultiBinary and Box action spaces are supported"),
        (WithSpaces(action=spaces.MultiDiscrete(np.zeros(0, np.int64))), "which is empty; give it one choice"),
        (WithSpaces(action=spaces.Box(-np.inf, np.inf, (2,))), "no finite bounds"),
        (WithSpaces(action=spaces.Box(-3e38, 3e38, (2,))), "no finite bounds"),
        (WithSpaces(action=spaces.Box(1, 1, (2,))), "every low bound must be below"),
        (WithSpaces(action=spaces.Box(0, 1, (0,))), "empty"),
        (WithSpaces(spaces.Box(0, 255, (8, 8, 3), np.uint8)), "for now observations must be vectors"),
        (WithSpaces(spaces.Dict(eye=spaces.Box(0, 255, (8, 8, 3), np.uint8))), "for now observations must be vectors"),
        (WithSpaces(spaces.Sequence(spaces.Discrete(2))), "no fixed size"),
        (WithSpaces(spaces.Box(0, 1, (0,))), "empty"),
        (Walk(201), "from 1 to 200"),
        (Walk(0), "from 1 to 200"),
        (named([1, 2]), "agent names must be text"),  # type: ignore[list-item]
        (named(["a", "a"]), "every name must appear once"),
        (Restless(), "changes between calls"),
    ],
)
def test_what_is_not_supported_is_refused_in_one_sentence(env: Any, message: str):
    with pytest.raises(UsageError, match=message):
        ParallelCopy(env, "test")


def test_agents_that_are_unknown_before_reset_are_refused():
    env = Walk()
    del env.possible_agents
    with pytest.raises(UsageError, match="attribute possible_agents before reset"):
        ParallelCopy(env, "test")


def test_a_process_without_torch_can_run_a_copy():
    code = "import sys, marl_stable.envs.pettingzoo, marl_stable.envs.gymnasium; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
