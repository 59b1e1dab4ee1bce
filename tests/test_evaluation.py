"""Playing whole episodes: which ones count, whose return stands where, and the figures made of them."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from torch import Tensor

from marl_stable.config import EnvConfig
from marl_stable.envs import catalog
from marl_stable.envs.probe import Match, Recall
from marl_stable.envs.vector import episode_seed
from marl_stable.evaluation import UNIT, Episodes, bootstrap_interval, describe, play, play_unless, summarize
from marl_stable.types import Discrete, EnvSpec, Group, PerGroup, Step
from tests.envs.fakes import Unsaved

CPU = torch.device("cpu")


class Lottery(Unsaved):
    """Episodes of 1 step that return 1, and of 10 steps that return -10 (minus 1 a step): whoever takes the first
    that end sees more of the short ones. Two groups, interleaved in the environment's order of agents.
    """

    def __init__(self, num_envs: int) -> None:
        groups = (Group("right", ("b", "d"), 1, Discrete(2), "t"), Group("left", ("c", "a"), 1, Discrete(2), "t"))
        self.spec = EnvSpec("lottery", ("a", "b", "c", "d"), groups)
        self.num_envs, self.device = num_envs, CPU
        self.replay_differs: tuple[int, ...] = ()
        self.steps = 0

    def reset(self, seed: int) -> PerGroup:
        self.rng = np.random.default_rng(seed)
        self.left = self._lengths(self.num_envs)
        self.short = self.left == 1
        return self._obs()

    def _lengths(self, count: int) -> Tensor:
        return torch.from_numpy(self.rng.choice([1, 10], count))

    def _obs(self) -> PerGroup:
        return {name: torch.zeros(self.num_envs, 2, 1) for name in ("right", "left")}

    def step(self, action: PerGroup) -> Step:
        self.steps += 1
        pay = torch.where(self.short, 1.0, -1.0).unsqueeze(1)
        reward = {"right": pay * torch.tensor([1.0, 3.0]), "left": pay * torch.tensor([2.0, 0.0])}
        self.left = self.left - 1
        done = self.left == 0
        self.left = torch.where(done, self._lengths(self.num_envs), self.left)
        self.short = torch.where(done, self.left == 1, self.short)
        ends = {name: done.unsqueeze(1).expand(-1, 2) for name in reward}
        no, yes = ({name: torch.full((self.num_envs, 2), x) for name in reward} for x in (False, True))
        next_obs = self._obs()
        return Step(self._obs() if done.any() else next_obs, next_obs, reward, ends, no, yes, done)


def nothing(obs: PerGroup) -> PerGroup:
    return {name: torch.zeros(value.shape[:2], dtype=torch.int64) for name, value in obs.items()}


# ---- playing


def test_short_episodes_are_not_preferred():
    played = play(Lottery(100), nothing, 300, seed=0)
    assert played.returns.shape == (300, 4)
    long = played.lengths == 10
    assert set(played.lengths.tolist()) == {1, 10}
    assert 0.4 < long.mean() < 0.6  # the first 300 that end would be 10 to 1 short ones
    np.testing.assert_array_equal(played.returns[long, 1], -10)
    np.testing.assert_array_equal(played.returns[~long, 1], 1)


def test_returns_stand_in_the_environments_order_of_agents():
    played = play(Lottery(3), nothing, 7, seed=0)
    pay = np.where(played.lengths == 1, 1.0, -10.0)
    np.testing.assert_array_equal(played.returns, pay[:, None] * np.array([0.0, 1.0, 2.0, 3.0]))
    np.testing.assert_allclose(played.mean_returns(), 1.5 * pay)


@pytest.mark.parametrize(("copies", "episodes"), [(1, 5), (4, 10), (8, 3), (5, 5)])
def test_every_copy_plays_its_share_and_one_more_in_the_first(copies: int, episodes: int):
    class Named(Match):
        def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
            return torch.arange(copies).float().unsqueeze(1), self._constant(0.0)

    played = play(Named(copies, CPU), nothing, episodes, seed=0)
    counts = np.bincount(played.returns[:, 0].astype(int), minlength=copies).tolist()
    assert counts == [episodes // copies + (copy < episodes % copies) for copy in range(copies)]


def test_playing_stops_with_the_last_episode_that_counts():
    env = Lottery(1)
    played = play(env, nothing, 5, seed=0)
    assert env.steps == played.lengths.sum()


def test_the_same_seed_plays_the_same_episodes():
    first, again, other = (play(Lottery(4), nothing, 20, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.returns, again.returns)
    assert not np.array_equal(first.returns, other.returns)


def test_endless_episodes_count_as_they_stand():
    class Long(Recall):
        length = 1_000_000

    played = play(Long(3, CPU), nothing, 5, seed=0, max_steps=7)
    assert played.lengths.tolist() == [7, 7, 7]


def test_an_episode_cut_off_after_others_have_ended_does_not_count():
    class Clock(Recall):
        length = 3

        def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
            return torch.ones(self.num_envs, 1), self._constant(0.0)

    for limit in (6, 7, 8):
        played = play(Clock(2, CPU), nothing, 100, seed=0, max_steps=limit)
        assert (played.lengths.tolist(), played.returns.flatten().tolist()) == ([3] * 4, [3.0] * 4)


def test_an_interruption_ends_playing_without_result():
    calls = iter([False, False, True])
    env = Lottery(2)
    assert play_unless(lambda: next(calls), env, nothing, 50, seed=0) is None
    assert env.steps == 2


def test_play_equals_a_plain_loop_over_mpe2():
    env = catalog.make(EnvConfig(id="mpe2/simple_tag_v3", kwargs={"max_cycles": 6}), CPU, 2)

    def act(obs: PerGroup) -> PerGroup:  # something that depends on what is seen
        return {name: (10 * value.sum(-1)).long() % 5 for name, value in obs.items()}

    played = play(env, act, 5, seed=3)
    hand = importlib.import_module("mpe2.simple_tag_v3").parallel_env(max_cycles=6)
    expected = []
    for copy, episode in ((0, 0), (1, 0), (0, 1), (1, 1), (0, 2)):
        observed, _ = hand.reset(seed=episode_seed(3, copy, episode))
        total = dict.fromkeys(hand.possible_agents, 0.0)
        while hand.agents:
            actions = {a: int(act({"": torch.tensor(o)[None, None]})[""]) for a, o in observed.items()}
            observed, rewards, *_ = hand.step(actions)
            total = {agent: total[agent] + rewards[agent] for agent in total}
        expected.append(list(total.values()))
    assert list(env.spec.agents) == hand.possible_agents
    np.testing.assert_allclose(played.returns, expected, rtol=1e-6, atol=1e-5)
    assert played.lengths.tolist() == [6] * 5


# ---- figures


def test_the_interquartile_mean_leaves_out_the_outer_quarters():
    values = np.array([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -100.0])
    assert describe(values)["iqm"] == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert describe(values)["mean"] == pytest.approx(21 / 8)
    assert describe(values)["std"] == pytest.approx(np.sqrt(np.mean((values - 21 / 8) ** 2)))


def test_the_bootstrap_interval_is_that_of_the_mean():
    rng = np.random.default_rng(1)
    values = rng.normal(5, 2, 400)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / np.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert bootstrap_interval(values) == (low, high)


def test_the_bootstrap_interval_of_two_values_spans_them():
    # the mean of two draws of 0 and 1 is 0, 1/2 or 1 with probability 1/4, 1/2, 1/4
    assert bootstrap_interval(np.array([0.0, 1.0])) == (0.0, 1.0)
    assert bootstrap_interval(np.array([3.0, 3.0, 3.0])) == (3.0, 3.0)


def test_a_summary_has_means_by_agent_and_by_group():
    episodes = Episodes(np.array([[0.0, 1.0, 2.0, 3.0], [2.0, 3.0, 4.0, 5.0]]), np.array([3, 5]))
    found = summarize(episodes, Lottery(1).spec)
    assert found["per_agent"] == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert found["per_group"] == {"right": 3, "left": 2}
    assert (found["episode_length"], found["unit"]) == (4, UNIT)
    assert found["return"] == describe(np.array([1.5, 3.5]))
