"""The twelve tasks of mpe2 and PettingZoo's own environments, through the catalog."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
import torch
from pettingzoo.utils import BaseWrapper  # type: ignore[import-untyped]
from pettingzoo.utils.conversions import aec_to_parallel  # type: ignore[import-untyped]

from marl_stable.config import EnvConfig
from marl_stable.envs import catalog, factory, names
from marl_stable.envs.base import BatchedEnv
from marl_stable.envs.crew import LocalCrew
from marl_stable.envs.mpe2 import Unwrapped, unwrapped
from marl_stable.envs.vector import episode_seed
from marl_stable.types import Box, Discrete, Step, UsageError
from tests.envs.playing import random_actions

CPU = torch.device("cpu")

GROUPS = {
    "simple_tag_v3": [
        ("adversary", ("adversary_0", "adversary_1", "adversary_2"), "adversary"),
        ("agent", ("agent_0",), "agent"),
    ],
    "simple_crypto_v3": [("eve", ("eve_0",), "eve"), ("bob_0", ("bob_0", "alice_0"), "alice_bob")],
    "simple_world_comm_v3": [
        ("leadadversary", ("leadadversary_0",), "adversary"),
        ("adversary", ("adversary_0", "adversary_1", "adversary_2"), "adversary"),
        ("agent", ("agent_0", "agent_1"), "agent"),
    ],
    "simple_adversary_v3": [("adversary", ("adversary_0",), "adversary"), ("agent", ("agent_0", "agent_1"), "agent")],
    "simple_push_v3": [("adversary", ("adversary_0",), "adversary"), ("agent", ("agent_0",), "agent")],
    "simple_spread_v3": [("agent", ("agent_0", "agent_1", "agent_2"), "team")],
    "simple_speaker_listener_v4": [("speaker", ("speaker_0",), "team"), ("listener", ("listener_0",), "team")],
    "collect_treasure_v1": [
        ("collector", tuple(f"collector_{i}" for i in range(6)), "team"),
        ("deposit", ("deposit_0", "deposit_1"), "team"),
    ],
}


def make(env_id: str, num_envs: int = 2, **kwargs: object) -> BatchedEnv:
    return catalog.make(EnvConfig(id=env_id, kwargs=kwargs), CPU, num_envs)


def play(env: BatchedEnv, steps: int, seed: int = 0) -> list[Step]:
    generator = torch.Generator().manual_seed(seed)
    return [env.step(random_actions(env, generator)) for _ in range(steps)]


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("name", names.MPE2)
def test_every_task_steps_ends_by_truncation_and_goes_on_exactly(name: str, continuous: bool):
    env = make(f"mpe2/{name}", 1, continuous_actions=continuous)
    first = env.reset(1)
    steps = play(env, 60)
    for group in env.spec.groups:
        assert isinstance(group.action, Box if continuous else Discrete)
        shape = (1, len(group.agents))
        assert first[group.name].shape == (*shape, group.obs_size)
        for step in steps:
            assert step.obs[group.name].shape == step.next_obs[group.name].shape == (*shape, group.obs_size)
            assert step.obs[group.name].dtype == step.reward[group.name].dtype == torch.float32
            assert step.reward[group.name].shape == shape
            assert step.obs[group.name].isfinite().all()
            assert step.reward[group.name].isfinite().all()
            assert step.alive[group.name].all()
            assert not step.terminated[group.name].any()
            assert step.truncated[group.name].equal(step.done[:, None].expand(shape))
    assert [k for k, step in enumerate(steps) if step.done.all()] == [24, 49]
    fresh = make(f"mpe2/{name}", 1, continuous_actions=continuous)
    obs = fresh.load_state_dict(env.state_dict())
    assert fresh.replay_differs == ()
    for key, value in obs.items():
        assert value.equal(steps[-1].obs[key])
    for one, other in zip(play(env, 20, seed=2), play(fresh, 20, seed=2), strict=True):
        for key in obs:
            assert one.obs[key].equal(other.obs[key])
            assert one.reward[key].equal(other.reward[key])


@pytest.mark.parametrize("name", GROUPS)
def test_groups_and_teams_of_known_tasks(name: str):
    spec = make(f"mpe2/{name}", 1).spec
    assert [(group.name, group.agents, group.team) for group in spec.groups] == GROUPS[name]
    assert spec.id == f"mpe2/{name}"


def test_spaces_of_simple_spread_are_those_of_its_documentation():
    (group,) = make("mpe2/simple_spread_v3", 1).spec.groups
    assert (group.obs_size, group.action) == (18, Discrete(5))
    (group,) = make("mpe2/simple_spread_v3", 1, continuous_actions=True).spec.groups
    assert group.action == Box((0.0,) * 5, (1.0,) * 5)


def test_every_number_is_that_of_the_environment_stepped_by_hand():
    env = make("mpe2/simple_tag_v3", 1, max_cycles=6)
    env.reset(3)
    hand = importlib.import_module("mpe2.simple_tag_v3").parallel_env(max_cycles=6)
    hand.reset(seed=episode_seed(3, 0, 0))
    generator = torch.Generator().manual_seed(1)
    for _ in range(6):
        actions = random_actions(env, generator)
        step = env.step(actions)
        agents = {agent: (group.name, row) for group in env.spec.groups for row, agent in enumerate(group.agents)}
        observed, rewards, *_ = hand.step({agent: int(actions[name][0, row]) for agent, (name, row) in agents.items()})
        for agent, (name, row) in agents.items():
            np.testing.assert_array_equal(step.next_obs[name][0, row].numpy(), observed[agent])
            assert step.reward[name][0, row].item() == np.float32(rewards[agent])
    assert step.done.all()
    again, _ = hand.reset(seed=episode_seed(3, 0, 1))
    np.testing.assert_array_equal(step.obs["agent"][0, 0].numpy(), again["agent_0"])


def test_agents_of_knights_archers_zombies_die_one_by_one():
    env_id = "pettingzoo.butterfly.knights_archers_zombies.knights_archers_zombies:parallel_env"
    env = make(env_id, 1, spawn_delay=4, line_death=True)
    env.reset(1)
    steps = play(env, 250)
    (group,) = env.spec.groups
    dead = [step for step in steps if 0 < step.alive[group.name].sum() < len(group.agents)]
    assert dead, "in 250 steps no agent died alone"
    for step in dead:
        gone = ~step.alive[group.name]
        assert (step.next_obs[group.name][gone] == 0).all()
        assert (step.reward[group.name][gone] == 0).all()
        assert not (step.terminated[group.name] | step.truncated[group.name])[gone].any()


def test_a_simultaneous_game_of_pettingzoo_pays_what_its_rules_say():
    env = make("pettingzoo.classic.rps.rps:parallel_env", 3, max_cycles=4)
    env.reset(1)
    rock, paper = 0, 1
    step = env.step({"player": torch.tensor([[rock, paper], [paper, rock], [rock, rock]])})
    assert step.reward["player"].tolist() == [[-1, 1], [1, -1], [0, 0]]
    assert step.obs["player"].sum(-1).tolist() == [[1, 1]] * 3  # the other's move, one-hot


def task(name: str, **kwargs: object) -> Any:
    return importlib.import_module(f"mpe2.{name}").parallel_env(**kwargs)


def actions_of(env: Any, draw: np.random.Generator) -> dict[str, Any]:
    spaces = {agent: env.action_space(agent) for agent in env.possible_agents}
    return {
        agent: draw.random(space.shape).astype(np.float32) if hasattr(space, "low") else draw.integers(space.n)
        for agent, space in spaces.items()
    }


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("name", names.MPE2)
def test_without_its_wrappers_a_task_is_the_same_bit_for_bit(name: str, continuous: bool):
    whole, quick = (task(name, max_cycles=9, continuous_actions=continuous) for _ in range(2))
    quick = unwrapped(quick)
    assert type(quick) is Unwrapped
    draw = np.random.default_rng(3)
    for episode in range(3):
        seed = 5 if episode == 0 else None  # later ones go on with the generator
        np.testing.assert_equal(quick.reset(seed=seed), whole.reset(seed=seed))
        while whole.agents:
            assert quick.agents == whole.agents
            actions = actions_of(whole, draw)
            given = {agent: np.copy(action) for agent, action in actions.items()}
            np.testing.assert_equal(quick.step(given), whole.step(actions))
    assert quick.agents == []


def test_what_a_task_tells_in_infos_stays():
    whole, quick = (task("simple_spread_v3", benchmark_data=True) for _ in range(2))
    whole.reset(seed=1), (quick := unwrapped(quick)).reset(seed=1)
    actions = dict.fromkeys(whole.agents, 2)
    np.testing.assert_equal(quick.step(actions)[4], infos := whole.step(actions)[4])
    assert infos["agent_0"]["benchmark_data"]


def test_a_task_that_ends_before_its_time_ends():
    whole, quick = (task("simple_v3") for _ in range(2))
    quick = unwrapped(quick)
    for env in (whole, quick):
        env.reset(seed=1)
        env.unwrapped.scenario.is_terminal = lambda world: True
    np.testing.assert_equal(quick.step({"agent_0": 1}), whole.step({"agent_0": 1}))
    assert quick.agents == whole.agents == []


class Doubled(BaseWrapper):  # type: ignore[misc]
    """A wrapper of the user's own."""

    def observe(self, agent: str) -> Any:
        return 2 * super().observe(agent)


def test_a_wrapper_of_the_users_own_stays():
    mine = aec_to_parallel(Doubled(importlib.import_module("mpe2.simple_v3").env()))
    assert unwrapped(mine) is mine
    copy, plain = (factory.copy_of(env, "mine") for env in (mine, task("simple_v3")))
    np.testing.assert_array_equal(copy.reset(1)["agent"], 2 * plain.reset(1)["agent"])


def test_other_environments_stay_as_they_are():
    other = importlib.import_module("pettingzoo.classic.rps.rps").parallel_env()
    assert unwrapped(other) is other


def test_a_factory_that_gives_one_task_twice_is_found_out():
    one = task("simple_v3")
    with pytest.raises(UsageError, match="same object"):
        LocalCrew(lambda: factory.copy_of(one, "mine"), "mine", 2)
