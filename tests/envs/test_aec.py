"""One copy of a turn-based AECEnv as arrays: turns, rewards, ends, masks, and what breaks the interface."""

from __future__ import annotations

import subprocess
import sys
from copy import deepcopy
from typing import Any

import numpy as np
import pytest

from marl_stable.envs import catalog, factory
from marl_stable.envs.aec import TurnCopy
from marl_stable.envs.copies import CopyStep
from marl_stable.types import Discrete, EnvironmentFailure, UsageError
from tests.envs.fakes import Turn, Turns

FIRST = {"agent": np.zeros(3, np.int64)}
NOTHING = Turn()
END = Turn(terminated="agent_0 agent_1 agent_2")


def play(env: Turns, turns: int) -> list[CopyStep]:
    """The steps of one copy, each with arrays of its own."""
    copy = TurnCopy(env, "test")
    copy.reset(1)
    return [_kept(copy.step(FIRST)) for _ in range(turns)]


def _kept(step: CopyStep) -> CopyStep:
    return deepcopy(step)


def column(steps: list[CopyStep], kind: str) -> list[Any]:
    return [getattr(step, kind)["agent"].tolist() for step in steps]


def test_one_agent_acts_in_each_step_in_the_order_of_the_environment():
    env = Turns([NOTHING])
    copy = TurnCopy(env, "test")
    assert copy.spec.turn_based
    copy.reset(1)
    steps = [_kept(copy.step({"agent": np.array([0, 1, 2])})) for _ in range(4)]
    assert column(steps, "alive") == [
        [True, False, False],
        [False, True, False],
        [False, False, True],
        [True, False, False],
    ]
    assert env.received == [("agent_0", 0), ("agent_1", 1), ("agent_2", 2), ("agent_0", 0)]
    assert not any(step.done for step in steps)


def test_every_agent_is_observed_after_every_turn():
    copy = TurnCopy(Turns([NOTHING]), "test")
    np.testing.assert_array_equal(copy.reset(1)["agent"], [[0, 0], [0, 1], [0, 2]])
    np.testing.assert_array_equal(copy.step(FIRST).obs["agent"], [[1, 0], [1, 1], [1, 2]])


def test_agents_are_observed_in_one_order_since_to_observe_may_be_to_draw_random_numbers():
    class Noisy(Turns):
        asked: list[str]

        def reset(self, seed: int | None = None, options: Any = None) -> None:
            super().reset(seed, options)
            self.asked = []

        def observe(self, agent: str) -> Any:
            self.asked.append(agent)
            return super().observe(agent)

    env = Noisy([Turn(terminated="agent_2 agent_4 agent_7")], agents=9)
    copy = TurnCopy(env, "test")
    copy.reset(1)
    copy.step({"agent": np.zeros(9, np.int64)})
    ended, on = ["agent_2", "agent_4", "agent_7"], [f"agent_{i}" for i in (0, 1, 3, 5, 6, 8)]
    assert env.asked == [f"agent_{i}" for i in range(9)] + ended + on


def test_each_step_brings_what_each_agent_gained_in_it():
    script = [
        Turn(rewards={"agent_0": 1.0, "agent_1": 2.0}),
        Turn(rewards={"agent_0": 4.0, "agent_1": 8.0, "agent_2": -1.0}),
        NOTHING,
        Turn(rewards={"agent_0": 16.0}),
    ]
    assert column(play(Turns(script), 4), "reward") == [[1, 2, 0], [4, 8, -1], [0, 0, 0], [16, 0, 0]]


@pytest.mark.parametrize("dead_first", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_rewards_of_an_episode_add_up_to_what_last_would_have_told(seed: int, dead_first: bool):
    rng = np.random.default_rng(seed)
    script = [
        Turn(
            rewards={f"agent_{i}": float(rng.normal()) for i in range(4) if rng.random() < 0.7},
            terminated=f"agent_{rng.integers(4)}" if rng.random() < 0.2 else "",
            truncated=f"agent_{rng.integers(4)}" if rng.random() < 0.2 else "",
        )
        for _ in range(30)
    ] + [Turn(terminated="agent_0 agent_1 agent_2 agent_3")]
    by_hand = Turns(script, agents=4, dead_first=dead_first)
    by_hand.reset()
    told = dict.fromkeys(by_hand.possible_agents, 0.0)
    for agent in by_hand.agent_iter():
        _, reward, terminated, truncated, _ = by_hand.last()
        told[agent] += reward
        by_hand.step(None if terminated or truncated else 0)
    copy = TurnCopy(Turns(script, agents=4, dead_first=dead_first), "test")
    copy.reset(1)
    steps: list[CopyStep] = []
    while not (steps and steps[-1].done):
        steps.append(_kept(copy.step({"agent": np.zeros(4, np.int64)})))
    assert copy.env.received == by_hand.received
    np.testing.assert_allclose(np.sum(column(steps, "reward"), axis=0), list(told.values()), atol=1e-5)
    ends = np.array(column(steps, "terminated")) | np.array(column(steps, "truncated"))
    assert ends.sum(axis=0).tolist() == [1] * 4  # each life ends once


@pytest.mark.parametrize("dead_first", [True, False])
def test_who_ends_out_of_turn_is_marked_in_that_step_and_never_acts_again(dead_first: bool):
    script = [Turn(terminated="agent_1", truncated="agent_2 agent_1"), NOTHING, NOTHING, Turn(terminated="agent_0")]
    env = Turns(script, dead_first=dead_first)
    steps = play(env, 4)
    assert column(steps, "terminated") == [[False, True, False], [False] * 3, [False] * 3, [True, False, False]]
    assert column(steps, "truncated") == [[False, False, True], [False] * 3, [False] * 3, [False] * 3]
    assert column(steps, "alive") == [[True, False, False]] * 4
    assert [agent for agent, _ in env.received] == ["agent_0"] * 4  # taking the dead away is no turn
    assert [step.done for step in steps] == [False, False, False, True]
    assert column(steps[:2], "obs") == [[[1, 0], [1, 1], [1, 2]], [[2, 0], [0, 0], [0, 0]]]


def test_all_are_observed_once_more_where_the_episode_ends():
    (step,) = play(Turns([Turn(truncated="agent_0 agent_1 agent_2")]), 1)
    assert step.done
    assert step.truncated["agent"].all()
    assert step.obs["agent"].tolist() == [[1, 0], [1, 1], [1, 2]]


def test_an_agent_that_leaves_without_a_word_was_terminated():
    steps = play(Turns([Turn(gone="agent_1"), NOTHING]), 2)
    assert column(steps, "terminated") == [[False, True, False], [False] * 3]
    assert column(steps, "alive") == [[True, False, False], [False, False, True]]
    assert steps[0].obs["agent"].tolist() == [[1, 0], [0, 0], [1, 2]]


def test_an_episode_begins_anew_after_its_end():
    copy = TurnCopy(Turns([Turn(rewards={"agent_1": 5.0}), END]), "test")
    for _ in range(2):
        copy.reset(1)
        assert copy.step(FIRST).reward["agent"].tolist() == [0, 5, 0]
        assert copy.step(FIRST).done


@pytest.mark.parametrize("masks", ["observation", "info"])
def test_the_mask_of_the_agent_to_act_comes_last_in_its_observation(masks: str):
    copy = TurnCopy(Turns([Turn(mask=np.array([0, 1, 1], np.int8)), NOTHING], masks=masks), "test")
    (group,) = copy.spec.groups
    assert (group.masked, group.obs_size, group.action) == (True, 5, Discrete(3))
    copy.reset(1)
    step = copy.step(FIRST)
    assert step.obs["agent"][1].tolist() == [1, 1, 0, 1, 1]
    others = step.obs["agent"][[0, 2], 2:]
    assert (others == (0 if masks == "observation" else [0, 1, 1])).all()  # as the environment gives them


def test_in_turns_the_first_info_has_one_mask_and_stands_for_all():
    class Alone(Turns):
        def reset(self, seed: int | None = None, options: Any = None) -> None:
            super().reset(seed, options)
            self.infos = {agent: self.infos[agent] if agent == self.agent_selection else {} for agent in self.agents}

    env = Alone([NOTHING], masks="info")
    env.teams = {agent: [agent] for agent in env.possible_agents}
    copy = TurnCopy(env, "test")
    assert [group.masked for group in copy.spec.groups] == [True, True, True]
    assert copy.reset(1)["agent_1"][0, 2:].tolist() == [1, 1, 1]


@pytest.mark.parametrize("masks", ["observation", "info"])
@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros(3, np.int8), "agent_1 is to act next, but its action mask allows nothing"),
        (np.ones(2, np.int8), "of agent_1 has an action_mask of 2 entries for 3 actions"),
    ],
)
def test_a_mask_that_is_of_no_use_is_a_failure(masks: str, mask: Any, message: str):
    copy = TurnCopy(Turns([Turn(mask=mask)], masks=masks), "test")
    copy.reset(1)
    who = message if masks == "observation" else message.replace("of agent_1", "of agent_0")  # infos tell every agent's
    with pytest.raises(EnvironmentFailure, match=who):
        copy.step(FIRST)


def test_a_mask_of_nobody_to_act_may_be_empty_at_the_end():
    (step,) = play(Turns([END._replace(mask=np.zeros(3, np.int8))], masks="observation"), 1)
    assert step.done


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"agents": []}, "reset left env.agents empty"),
        ({"agents": ["agent_0", "ghost"], "terminations": {}}, "holds 'ghost', which is not in possible_agents"),
        ({"observe": lambda agent: None}, "the observation of agent_0 has shape"),
        ({"observe": lambda agent: np.zeros(3)}, r"the observation of agent_0 has shape \(3,\)"),
    ],
)
def test_a_reset_that_breaks_the_interface_is_a_failure(change: dict[str, Any], message: str):
    class Broken(Turns):
        def reset(self, seed: int | None = None, options: Any = None) -> None:
            super().reset(seed, options)
            self.__dict__.update(change)

    with pytest.raises(EnvironmentFailure, match=message):
        TurnCopy(Broken([NOTHING]), "test").reset(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_cumulative_rewards": {"agent_0": np.ones(2)}}, "the reward of agent_0 is array"),
        ({"agents": ["agent_0", "ghost"]}, "holds 'ghost', which is not in possible_agents"),
        ({"terminations": dict.fromkeys(("agent_0", "agent_1", "agent_2"), True)}, None),
    ],
)
def test_a_step_that_breaks_the_interface_is_a_failure(change: dict[str, Any], message: str | None):
    class Broken(Turns):
        def step(self, action: Any) -> None:
            super().step(action)
            self.__dict__.update(change)

    copy = TurnCopy(Broken([NOTHING]), "test")
    copy.reset(1)
    if message is None:
        assert copy.step(FIRST).done
        return
    with pytest.raises(EnvironmentFailure, match=message):
        copy.step(FIRST)


def test_the_dead_must_be_taken_away_when_asked():
    class Undead(Turns):
        def step(self, action: Any) -> None:
            if action is not None:
                super().step(action)

    copy = TurnCopy(Undead([Turn(terminated="agent_1")]), "test")
    copy.reset(1)
    with pytest.raises(EnvironmentFailure, match=r"agent_1 has ended, but step\(None\) does not take it out"):
        copy.step(FIRST)


def test_agents_that_are_unknown_before_reset_are_refused():
    env = Turns([NOTHING])
    del env.possible_agents
    with pytest.raises(UsageError, match="attribute possible_agents before reset"):
        TurnCopy(env, "test")


def test_a_process_without_torch_can_run_a_copy():
    code = "import sys, marl_stable.envs.factory; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["tictactoe_v3", "connect_four_v3", "leduc_holdem_v4", "texas_holdem_v4", "hanabi_v5"])
def test_real_games_are_played_as_by_hand(name: str):
    pytest.importorskip("rlcard")
    pytest.importorskip("shimmy")
    env_id = f"classic/{name}"
    hand, copy = catalog.make_single(env_id, {}), factory.copy_of(catalog.make_single(env_id, {}), env_id)
    if name != "hanabi_v5":  # whose players are one team
        assert copy.spec.teams == copy.spec.agents
    seats = {agent: (group.name, row) for group in copy.spec.groups for row, agent in enumerate(group.agents)}
    rng = np.random.default_rng(0)
    for seed in range(5):
        obs, told = copy.reset(seed), dict.fromkeys(hand.possible_agents, 0.0)
        hand.reset(seed=seed)
        total, done = dict.fromkeys(hand.possible_agents, 0.0), False
        for agent in hand.agent_iter():
            seen, reward, terminated, truncated, _ = hand.last()
            told[agent] += reward
            if terminated or truncated:
                hand.step(None)
                continue
            group, row = seats[agent]
            wanted = np.concatenate([seen["observation"].ravel(), seen["action_mask"]]).astype(np.float32)
            np.testing.assert_array_equal(obs[group][row], wanted)
            action = rng.choice(np.flatnonzero(seen["action_mask"]))
            hand.step(action)
            actions = {group.name: np.zeros(len(group.agents), np.int64) for group in copy.spec.groups}
            actions[group][row] = action
            step = copy.step(actions)
            for player, (place, seat) in seats.items():
                total[player] += step.reward[place][seat]
            obs, done = step.obs, step.done
        assert done
        np.testing.assert_allclose(list(total.values()), list(told.values()), rtol=1e-6)
