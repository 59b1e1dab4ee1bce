"""Baselines on games where both are known by heart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from marl_stable.config import EnvConfig
from marl_stable.envs import catalog
from marl_stable.envs.particle import make
from marl_stable.envs.probe import Aim, Allowed, Ending, Match, Probe, Roles
from marl_stable.investigate import baselines
from marl_stable.types import Box, Discrete, MultiDiscrete

CPU = torch.device("cpu")


class Third(Match):
    """A point for the third of four actions, whatever is seen."""

    action = Discrete(4)

    def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
        return (action == 2).float(), self._constant(0.0)


class Corner(Aim):
    """Minus the distance to the corner where the first dimension is highest and the second lowest."""

    def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
        aim = torch.tensor([1.0, 0.0])
        return -(action - aim).abs().sum(-1), self._constant(0.0)


def measured(env: Probe, seed: int = 1) -> dict:
    return baselines.measure(env, baselines.random_play(env, seed), seed)


def test_random_play_returns_what_chance_does_and_shows_what_was_seen():
    env = Match(10, CPU)
    played = baselines.random_play(env, seed=1)
    assert played.episodes.returns.shape == (100, 1)
    assert 0.35 < played.episodes.returns.mean() < 0.65
    assert played.horizon() == 1
    assert played.obs["agent"].shape == (100, 1, 1)
    assert set(played.obs["agent"].flatten().tolist()) == {-1, 1}
    assert baselines.random_play(Ending(10, CPU), 1).horizon() == 5


def test_random_actions_fill_the_range_of_a_box():
    seen: list[Tensor] = []

    class Watched(Aim):
        def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
            seen.append(action)
            return super()._play(action)

    baselines.random_play(Watched(100, CPU), 1)
    action = torch.cat(seen).flatten(0, 1)
    low, high = torch.tensor(Aim.action.low), torch.tensor(Aim.action.high)
    torch.testing.assert_close(action.mean(0) / high, ((low + high) / 2) / high, atol=0.3, rtol=0)
    assert (action >= low).all()
    assert (action <= high).all()
    assert (action.amax(0) > low + 0.95 * (high - low)).all()


def test_the_best_constant_action_is_found_and_measured_again():
    found = measured(Third(10, CPU))
    assert found["best_constant"]["action"] == {"agent_0": 2}
    assert (found["best_constant"]["return"], found["best_constant"]["ci95"]) == (1, [1, 1])
    assert 0.1 < found["random"]["return"] < 0.4
    low, high = found["random"]["ci95"]
    assert low < found["random"]["return"] < high


def test_the_best_constant_action_of_a_box_may_be_a_corner():
    found = measured(Corner(10, CPU))
    assert found["best_constant"]["action"] == {f"agent_{i}": pytest.approx([1.0, 0.0]) for i in range(2)}
    assert found["best_constant"]["return"] == 0


def test_what_needs_observations_no_constant_action_can_do():
    assert 0.3 < measured(Match(10, CPU))["best_constant"]["return"] < 0.7


def test_all_agents_of_a_group_hold_the_same_action():
    assert measured(Roles(10, CPU))["best_constant"]["return"] == 0


def test_groups_are_searched_one_after_the_other():
    env = make("simple_speaker_listener_v4", 10, CPU)
    found = measured(env)  # type: ignore[arg-type]
    assert found["best_constant"]["action"].keys() == {"speaker_0", "listener_0"}
    assert found["best_constant"]["action"]["listener_0"] == 0  # staying where one is; any push leads away for ever
    assert found["best_constant"]["return"] > found["random"]["return"] - 5


def test_a_search_that_would_cost_too_much_is_left_out():
    class Long(Ending):
        length = 400

    found = measured(Long(10, CPU))
    assert found["best_constant"] is None
    assert found["random"]["return"] == 400


def test_the_same_seed_measures_the_same():
    first, again, other = (measured(Match(10, CPU), seed) for seed in (1, 1, 2))
    assert first == again != other


def test_candidates_lie_in_any_space():
    rng = np.random.default_rng(0)
    for _ in range(50):
        least = rng.normal(size=3)
        low = torch.from_numpy(least).float()
        high = torch.from_numpy(least + 10 ** rng.uniform(-2, 2, 3)).float()
        group = Match(1, CPU).spec.groups[0]._replace(action=Box(tuple(low.tolist()), tuple(high.tolist())))
        space = spaces.Box(low.numpy(), high.numpy())
        candidates = baselines.constant_actions(group, 1)
        assert all(space.contains(candidate.numpy()) for candidate in candidates)
        assert any(torch.equal(candidate, high) for candidate in candidates)
        assert any(torch.equal(candidate, low) for candidate in candidates)


def test_a_constant_action_that_is_illegal_gives_way_to_the_next_one_that_is_not():
    legal = torch.tensor([[1, 0, 0, 1], [0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=torch.bool).unsqueeze(1)
    expected = {0: [0, 1, 0, 0], 1: [3, 1, 1, 1], 2: [3, 2, 2, 2], 3: [3, 1, 3, 3]}
    for wish, taken in expected.items():
        found = baselines.next_legal(torch.full((4, 1), wish), legal)
        assert found.flatten().tolist() == taken


def test_masks_are_obeyed_by_every_baseline():
    class Watched(Allowed):
        def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
            assert self.obs[..., 1:].gather(-1, action.unsqueeze(-1)).eq(1).all()
            return super()._play(action)

    found = measured(Watched(10, CPU))
    assert found["best_constant"]["action"]["agent_0"] in (2, 3)
    assert found["best_constant"]["return"] > found["random"]["return"]


class Locks(Match):
    """The share of three choices that are right: 1, 2 and 0."""

    action = MultiDiscrete((2, 3, 2), (0, 0, 0))

    def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
        return (action == torch.tensor([1, 2, 0])).float().mean(-1), self._constant(0.0)


def test_the_best_constant_choices_are_found_together():
    found = measured(Locks(10, CPU))
    assert found["best_constant"]["action"] == {"agent_0": [1, 2, 0]}
    assert found["best_constant"]["return"] == 1
    assert 0.3 < found["random"]["return"] < 0.6


def test_candidates_of_several_choices_are_all_or_where_they_are_many_some():
    group = Match(1, CPU).spec.groups[0]
    few = baselines.constant_actions(group._replace(action=MultiDiscrete((2, 3), (5, 5))), 1)
    assert [x.tolist() for x in few] == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    sizes = (4, 4, 4)
    many = baselines.constant_actions(group._replace(action=MultiDiscrete(sizes, (0, 0, 0))), 1)
    assert 20 < len(many) <= 33
    assert many[0].tolist() == [0, 0, 0]
    together = torch.stack(many)
    assert together.dtype == torch.int64
    for k, n in enumerate(sizes):
        assert set(together[:, k].tolist()) == set(range(n))


def test_baselines_of_an_environment_in_python():
    env = catalog.make(EnvConfig(id="mpe2/simple_v3", kwargs={"max_cycles": 3}), CPU, 4)
    found = measured(env)  # type: ignore[arg-type]
    assert found["best_constant"]["action"].keys() == {"agent_0"}
