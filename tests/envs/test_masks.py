"""Action masks of agents who act at once: from the observation, from the info, and where they are of no use."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from marl_stable.envs import catalog, factory
from marl_stable.envs.copies import Arrays
from marl_stable.envs.pettingzoo import ParallelCopy
from marl_stable.types import Discrete, EnvironmentFailure
from tests.envs.fakes import Walk

STILL = {"agent": np.zeros(2, np.int64)}
FEATURES = spaces.Box(-np.inf, np.inf, (2,), np.float64)


class Masked(Walk):
    """In step k agent i is told `masks[k][i]`, in its observation or in its info."""

    def __init__(self, where: str, masks: list[list[Any]], agents: int = 2) -> None:
        super().__init__(agents, length=len(masks) - 1)
        self.where, self.masks = where, masks

    def observation_space(self, agent: str) -> Any:
        mask = spaces.Box(0, 1, (3,), np.int8)
        return spaces.Dict(action_mask=mask, observation=FEATURES) if self.where == "observation" else FEATURES

    def observations(self) -> dict[str, Any]:
        plain = super().observations()
        if self.where == "info":
            return plain
        now = dict(zip(self.possible_agents, self.masks[self.steps], strict=True))
        return {agent: {"observation": seen, "action_mask": now[agent]} for agent, seen in plain.items()}

    def infos(self) -> dict[str, Any]:
        if self.where == "observation":
            return {"common": 1}
        now = zip(self.possible_agents, self.masks[self.steps], strict=True)
        return {agent: {} if mask is None else {"action_mask": mask, "more": 2} for agent, mask in now}

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed)[0], self.infos()

    def step(self, actions: dict[str, Any]) -> Any:
        return *super().step(actions)[:4], self.infos()


def masks_of(obs: dict[str, Any]) -> list[list[float]]:
    return [row[2:].tolist() for row in obs["agent"]]


@pytest.mark.parametrize("where", ["observation", "info"])
def test_masks_are_the_last_features_in_every_step(where: str):
    given = [[[1, 0, 1], [0, 0, 1]], [[0, 1, 0], [1, 1, 1]], [[1, 1, 0], [1, 0, 0]]]
    copy = ParallelCopy(Masked(where, given), "test")
    (group,) = copy.spec.groups
    assert (group.masked, group.obs_size, group.action) == (True, 5, Discrete(3))
    assert masks_of(copy.reset(1)) == given[0]
    assert masks_of(copy.step(STILL).obs) == given[1]
    last = copy.step(STILL)
    assert (masks_of(last.obs), last.done) == (given[2], True)
    assert last.obs["agent"][:, 0].tolist() == [2, 2]  # the features are in front
    assert masks_of(copy.reset(1)) == given[0]


def test_masks_are_written_to_wherever_the_copy_is_told_to_write():
    copy = ParallelCopy(Masked("info", [[[1, 0, 1], [0, 0, 1]]] * 3), "test")
    batch = Arrays.zeros(copy.spec, 4)
    copy.write_into(batch.at(2))
    copy.reset(1)
    assert batch.obs["agent"][2, :, 2:].tolist() == [[1, 0, 1], [0, 0, 1]]
    assert not batch.obs["agent"][[0, 1, 3]].any()


def test_an_agent_whose_info_holds_no_mask_may_do_everything():
    copy = ParallelCopy(Masked("info", [[[1, 0, 1], None], [None, [0, 1, 0]], [None, None]]), "test")
    assert masks_of(copy.reset(1)) == [[1, 0, 1], [1, 1, 1]]
    assert masks_of(copy.step(STILL).obs) == [[1, 1, 1], [0, 1, 0]]


def test_without_a_mask_at_the_first_reset_there_are_none_and_one_that_comes_later_is_not_passed_over():
    copy = ParallelCopy(Masked("info", [[None, None], [None, None], [[1, 0, 0], None], [None, None]]), "test")
    assert not copy.spec.groups[0].masked
    copy.reset(1)
    assert copy.step(STILL).obs["agent"].shape == (2, 2)
    with pytest.raises(
        EnvironmentFailure, match="the info of agent_0 holds an action_mask, and that of the first reset"
    ):
        copy.step(STILL)


def test_a_mask_of_several_choices_at_once_is_not_passed_over():
    env = Masked("info", [[[1, 1, 1]] * 2] * 2)
    env.action = spaces.MultiDiscrete([2, 2])
    with pytest.raises(EnvironmentFailure, match=r"its action space is MultiDiscrete.*for Discrete actions only"):
        ParallelCopy(env, "test").reset(1)


@pytest.mark.parametrize("where", ["observation", "info"])
@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([0, 0, 0], "agent_1 is to act next, but its action mask allows nothing"),
        ([1, 1], "of agent_1 has an action_mask of 2 entries for 3 actions"),
        (None, "of agent_1 has an action_mask of 1 entries"),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_a_mask_of_no_use_is_a_failure_that_names_the_agent(where: str, mask: Any, message: str, at_once: bool):
    good, bad = [[1, 1, 1]] * 2, [[1, 1, 1], mask]
    copy = ParallelCopy(Masked(where, [bad if at_once else good, bad, good]), "test")
    if where == "info" and mask is None:
        copy.reset(1)
        return
    if not at_once:
        copy.reset(1)
    with pytest.raises(EnvironmentFailure, match=message):
        copy.reset(1) if at_once else copy.step(STILL)


@pytest.mark.parametrize("where", ["observation", "info"])
def test_a_mask_may_allow_nothing_where_nobody_is_to_act(where: str):
    copy = ParallelCopy(Masked(where, [[[1, 1, 1]] * 2, [[0, 0, 0]] * 2]), "test")
    copy.reset(1)
    step = copy.step(STILL)
    assert step.done
    assert masks_of(step.obs) == [[0, 0, 0]] * 2


def test_the_absent_have_rows_of_zeros_and_need_no_mask():
    class Late(Masked):
        def reset(self, seed: int | None = None, options: Any = None) -> Any:
            result = super().reset(seed)
            self.agents = ["agent_0"]
            return result

    copy = ParallelCopy(Late("info", [[[1, 0, 1], [0, 1, 1]]] * 3), "test")
    assert copy.reset(1)["agent"][1].tolist() == [0] * 5


def test_only_an_environment_that_may_hide_masks_is_reset_to_look_for_them():
    class Counting(Masked):
        resets = 0

        def reset(self, seed: int | None = None, options: Any = None) -> Any:
            self.resets += 1
            return super().reset(seed)

    looked, told = Counting("info", [[[1, 1, 1]] * 2] * 2), Counting("observation", [[[1, 1, 1]] * 2] * 2)
    moving = Counting("info", [[[1, 1, 1]] * 2] * 2)
    moving.action = spaces.Box(-1, 1, (3,))
    for env in (looked, told, moving):
        ParallelCopy(env, "test")
    assert (looked.resets, told.resets, moving.resets) == (1, 0, 0)


def test_a_reset_that_fails_while_masks_are_looked_for_is_left_to_the_first_real_one():
    class Broken(Walk):
        def reset(self, seed: int | None = None, options: Any = None) -> Any:
            raise OSError("no more levels")

    copy = ParallelCopy(Broken(), "test")
    with pytest.raises(OSError, match="no more levels"):
        copy.reset(1)


def test_masks_of_a_single_agent_come_from_its_info():
    copy = factory.copy_of(catalog.make_single("gymnasium/Taxi-v4", {}), "gymnasium/Taxi-v4")
    (group,) = copy.spec.groups
    assert (group.masked, group.obs_size, group.action) == (True, 506, Discrete(6))
    rng = np.random.default_rng(1)
    for seed in range(3):
        obs = copy.reset(seed)["agent"][0]
        for _ in range(30):
            legal = np.flatnonzero(obs[500:])
            before = obs[:500].copy()
            step = copy.step({"agent": np.array([rng.choice(legal)])})
            obs = step.obs["agent"][0]
            assert not np.array_equal(obs[:500], before)  # Taxi masks what would leave everything as it is
            if step.done:
                break
