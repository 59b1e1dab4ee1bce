"""What real environments do that an adapter must know: one test for each quirk, on the environments that have it.

Families that are not installed are skipped; `pip install 'marl_stable[sisl,butterfly,classic,magent2]'` brings all.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from marl_stable.config import EnvConfig
from marl_stable.envs import catalog, factory
from marl_stable.envs.base import BatchedEnv
from marl_stable.envs.copies import Copy, CopyStep
from marl_stable.envs.pettingzoo import ParallelCopy
from marl_stable.envs.vector import episode_seed
from marl_stable.types import Box, Discrete, EnvSpec, PerGroup, Step, UsageError
from tests.envs.fakes import Walk

CPU = torch.device("cpu")
NEEDS = {
    "sisl": ("Box2D",),
    "butterfly": ("pymunk",),
    "classic": ("rlcard", "shimmy", "chess"),
    "magent2": ("magent2",),
}
TURN_BASED = ["tictactoe_v3", "connect_four_v3", "leduc_holdem_v4", "texas_holdem_v4", "chess_v6", "go_v5"]


def make(env_id: str, num_envs: int = 1, time_limit_as: Any = None, **kwargs: Any) -> BatchedEnv:
    for package in NEEDS.get(env_id.partition("/")[0], ()):
        pytest.importorskip(package)
    return catalog.make(EnvConfig(id=env_id, kwargs=kwargs, time_limit_as=time_limit_as), CPU, num_envs)


def single(env_id: str, render_mode: str | None = None, **kwargs: Any) -> Any:
    for package in NEEDS.get(env_id.partition("/")[0], ()):
        pytest.importorskip(package)
    return catalog.make_single(env_id, kwargs, render_mode)


def legal_actions(spec: EnvSpec, obs: PerGroup, generator: torch.Generator) -> PerGroup:
    """Random actions, of masked groups among those that are legal."""
    actions = {}
    for group in spec.groups:
        shape = obs[group.name].shape[:2]
        if isinstance(group.action, Discrete):
            n = group.action.n
            chances = obs[group.name][..., -n:].clone() if group.masked else torch.ones(*shape, n)
            chances[chances.sum(-1) == 0] = 1.0  # who is not to act may be given anything
            drawn = torch.multinomial(chances.flatten(0, 1), 1, generator=generator)
            actions[group.name] = drawn.reshape(shape)
        else:
            assert isinstance(group.action, Box)
            low, high = (torch.tensor(bound) for bound in (group.action.low, group.action.high))
            actions[group.name] = low + (high - low) * torch.rand(*shape, len(low), generator=generator)
    return actions


def play(env: BatchedEnv, steps: int, seed: int = 1) -> list[Step]:
    generator = torch.Generator().manual_seed(seed)
    obs, played = env.reset(seed), []
    for _ in range(steps):
        played.append(env.step(legal_actions(env.spec, obs, generator)))
        obs = played[-1].obs
    return played


def last_of_first_episode(env: BatchedEnv, limit: int) -> Step:
    return next(step for step in play(env, limit) if step.done.all())


def test_1_a_time_limit_reported_as_a_termination_can_be_read_as_what_it_is():
    told = last_of_first_episode(make("sisl/multiwalker_v9", max_cycles=5), 10)
    assert told.terminated["walker"].all()  # what the environment says, and what is wrong with it
    read = last_of_first_episode(make("sisl/multiwalker_v9", time_limit_as="truncation", max_cycles=5), 10)
    assert read.truncated["walker"].all()
    assert not read.terminated["walker"].any()


@pytest.mark.parametrize("env_id", ["sisl/pursuit_v5", "butterfly/knights_archers_zombies_v11", "mpe2/simple_v3"])
def test_1_other_time_limits_are_truncations(env_id: str):
    step = last_of_first_episode(make(env_id, max_cycles=5), 10)
    assert all(cut.all() for cut in step.truncated.values())
    assert not any(end.any() for end in step.terminated.values())


@pytest.mark.parametrize(
    ("env_id", "kwargs", "steps"),
    [
        ("sisl/multiwalker_v9", {"terminate_on_fall": False, "remove_on_fall": True}, 200),
        ("butterfly/knights_archers_zombies_v11", {"spawn_delay": 4}, 250),
        ("magent2/combined_arms_v6", {"map_size": 16, "max_cycles": 60}, 60),
    ],
)
def test_2_agents_die_one_by_one_and_their_last_step_is_still_their_own(env_id: str, kwargs: Any, steps: int):
    env, hand = make(env_id, **kwargs), single(env_id, **kwargs)
    generator = torch.Generator().manual_seed(4)
    obs = env.reset(3)
    hand.reset(seed=episode_seed(3, 0, 0))
    places = {agent: (group.name, row) for group in env.spec.groups for row, agent in enumerate(group.agents)}
    died_alone = 0
    for _ in range(steps):
        acting = list(hand.agents)
        actions = legal_actions(env.spec, obs, generator)
        step = env.step(actions)
        seen, rewards, terminated, *_ = hand.step({a: plain(actions, *places[a]) for a in acting})
        for agent, (name, row) in places.items():
            mine = {kind: getattr(step, kind)[name][0, row] for kind in ("reward", "terminated", "alive", "next_obs")}
            assert mine["alive"].item() == (agent in acting)
            if agent not in acting:
                assert not mine["next_obs"].any()
                assert mine["reward"] == 0
                continue
            assert mine["reward"].item() == np.float32(rewards[agent])
            assert mine["terminated"].item() == terminated[agent]
            np.testing.assert_array_equal(mine["next_obs"], np.float32(seen[agent]).ravel())
        died_alone += len(hand.agents) < len(acting) and bool(hand.agents)
        obs = step.obs
        if step.done.all():
            break
    assert died_alone, "no agent died before the others"


def plain(actions: PerGroup, name: str, row: int) -> Any:
    action = actions[name][0, row]
    return action.numpy() if action.ndim else int(action)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # what pettingzoo.test imports
@pytest.mark.parametrize(
    "name",
    [
        "generated_agents_env_action_mask_info_v0",
        "generated_agents_env_action_mask_obs_v0",
        "generated_agents_env_cust_agentid_v0",
        "generated_agents_env_v0",
        "generated_agents_parallel_cust_agentid_v0",
        "generated_agents_parallel_v0",
    ],
)
def test_3_agents_that_are_made_up_on_the_fly_are_refused_in_one_sentence(name: str):
    module = importlib.import_module(f"pettingzoo.test.example_envs.{name}")
    with pytest.raises(UsageError, match=f"{name} does not say which agents it can have; give it an attribute"):
        factory.copy_of(getattr(module, "parallel_env", module.env)(), name)


@pytest.mark.parametrize(
    ("env_id", "wanted"),
    [
        ("mpe2/simple_tag_v3", [(3, 16, 5), (1, 14, 5)]),
        ("mpe2/simple_speaker_listener_v4", [(1, 3, 3), (1, 11, 5)]),
        ("mpe2/simple_world_comm_v3", [(1, 34, 20), (3, 34, 5), (2, 28, 5)]),
        ("magent2/tiger_deer_v4", [(101, 45, 5), (20, 405, 9)]),
    ],
)
def test_4_agents_of_different_spaces_are_different_groups(env_id: str, wanted: list[tuple[int, int, int]]):
    copy = factory.copy_of(single(env_id), env_id)
    found = []
    for group in copy.spec.groups:
        assert isinstance(group.action, Discrete)
        found.append((len(group.agents), group.obs_size, group.action.n))
    assert found == wanted


@pytest.mark.parametrize(
    ("name", "teams"),
    [
        ("adversarial_pursuit_v4", ("predator", "prey")),
        ("battle_v4", ("red", "blue")),
        ("battlefield_v5", ("red", "blue")),
        ("combined_arms_v6", ("red", "blue")),
        ("tiger_deer_v4", ("deer", "tiger")),
    ],
)
def test_4_armies_are_teams(name: str, teams: tuple[str, ...]):
    copy = factory.copy_of(single(f"magent2/{name}"), f"magent2/{name}")
    assert copy.spec.teams == teams


@pytest.mark.parametrize(
    ("env_id", "dtype"),
    [
        ("butterfly/knights_archers_zombies_v11", np.float64),
        ("sisl/pursuit_v5", np.float32),
        ("classic/hanabi_v5", np.float64),
        ("classic/connect_four_v3", np.int8),
        ("classic/chess_v6", bool),
        ("classic/rps_v2", np.int64),
    ],
)
def test_5_every_dtype_becomes_float32_at_the_border(env_id: str, dtype: Any):
    env = single(env_id)
    space = env.observation_space(env.possible_agents[0])
    space = space["observation"] if isinstance(space, spaces.Dict) else space
    assert space.dtype == dtype
    copy = factory.copy_of(env, env_id)
    copy.reset(1)
    step = first_step(copy)
    for group in copy.spec.groups:
        assert step.obs[group.name].dtype == step.reward[group.name].dtype == np.float32
        assert np.isfinite(step.obs[group.name]).all()
        assert step.obs[group.name].any()


def first_step(copy: Copy) -> CopyStep:
    obs = {name: torch.from_numpy(rows.copy())[None] for name, rows in copy.reset(1).items()}
    actions = legal_actions(copy.spec, obs, torch.Generator().manual_seed(1))
    return copy.step({name: rows[0].numpy() for name, rows in actions.items()})


@pytest.mark.parametrize("env_id", ["mpe2/simple_spread_v3", "sisl/multiwalker_v9"])
def test_6_observations_with_infinite_bounds_arrive_as_they_are(env_id: str):
    hand = single(env_id)
    assert np.isinf(hand.observation_space(hand.possible_agents[0]).high).all()
    seen, _ = hand.reset(seed=5)
    copy = factory.copy_of(single(env_id), env_id)
    (group,) = copy.spec.groups
    np.testing.assert_array_equal(copy.reset(5)[group.name], [np.float32(seen[agent]) for agent in group.agents])


def together(spec: EnvSpec, parts: PerGroup) -> torch.Tensor:
    """All agents' entries, group after group, `(E, N, ...)`."""
    return torch.cat([parts[group.name] for group in spec.groups], dim=1)


def test_7_masks_in_observations_say_which_moves_are_legal():
    env = make("classic/connect_four_v3", 4)
    columns = torch.zeros(4, 7)  # pieces in each
    generator, obs = torch.Generator().manual_seed(1), env.reset(1)
    for turn in range(60):
        masks = together(env.spec, obs)[..., -7:]  # each player is a team of its own
        actor = masks.any(-1).int().argmax(1)
        assert torch.equal(masks[torch.arange(4), actor], (columns < 6).float()), turn
        actions = legal_actions(env.spec, obs, generator)
        step = env.step(actions)
        columns[torch.arange(4), together(env.spec, actions)[torch.arange(4), actor]] += 1
        columns[step.done] = 0
        obs = step.obs


def test_7_masks_in_infos_say_which_moves_are_legal():
    copy = factory.copy_of(single("gymnasium/Taxi-v4"), "taxi")
    assert copy.spec.groups[0].masked
    info = copy.env.reset(seed=2)[1]["agent_0"]
    assert copy.reset(2)["agent"][0, -6:].tolist() == info["action_mask"].tolist()


@pytest.mark.parametrize("env_id", ["classic/tictactoe_v3", "classic/rps_v2"])
def test_8_an_environment_without_a_state_needs_none(env_id: str):
    env = single(env_id)
    env.reset(seed=1)
    with pytest.raises((NotImplementedError, TypeError)):
        env.state()
    assert len(play(make(env_id), 20)) == 20


def test_8_what_all_agents_see_together_is_the_state_of_the_particle_world():
    env = single("mpe2/simple_spread_v3")
    copy = factory.copy_of(env, "mpe2/simple_spread_v3")
    np.testing.assert_array_equal(copy.reset(1)["agent"].ravel(), env.state())


@pytest.mark.parametrize(
    "env_id",
    [
        "sisl/multiwalker_v9",
        "sisl/pursuit_v5",
        "butterfly/knights_archers_zombies_v11",
        "classic/leduc_holdem_v4",
        "classic/rps_v2",
        "mpe2/simple_tag_v3",
    ],
)
def test_9_everything_follows_from_the_seed_and_the_actions_whatever_their_spaces_would_sample(env_id: str):
    one, other = make(env_id), make(env_id)
    steps = play(one, 20)
    for space in {
        id(space): space for copy in crew_of(other) for pair in copy.spaces.values() for space in pair
    }.values():
        space.seed(99)
    for mine, theirs in zip(steps, play(other, 20), strict=True):
        for name in mine.obs:
            assert torch.equal(mine.next_obs[name], theirs.next_obs[name])
            assert torch.equal(mine.reward[name], theirs.reward[name])


def crew_of(env: Any) -> list[Copy]:
    return list(env._crew._copies.values())


@pytest.mark.filterwarnings("ignore:.*font.*:UserWarning")
@pytest.mark.parametrize(
    "env_id",
    [
        "mpe2/simple_v3",
        "sisl/multiwalker_v9",
        "sisl/pursuit_v5",
        "butterfly/knights_archers_zombies_v11",
        "classic/rps_v2",
        "classic/tictactoe_v3",
        "classic/connect_four_v3",
        "classic/leduc_holdem_v4",
    ],
)
def test_10_a_copy_that_is_made_to_be_drawn_draws_without_a_screen(env_id: str):
    copy = factory.copy_of(single(env_id, render_mode="rgb_array"), env_id)
    first_step(copy)
    frame = copy.env.render()
    assert (frame.dtype, frame.ndim, frame.shape[2]) == (np.uint8, 3, 3)
    assert frame.any()
    copy.close()


def test_11_keys_beside_the_agents_are_of_no_concern():
    class Chatty(Walk):
        def observations(self) -> dict[str, Any]:
            return super().observations() | {"common": "anything"}

        def reset(self, seed: int | None = None, options: Any = None) -> Any:
            return super().reset(seed)[0], {"common": {"action_mask": [1]}, "agent_0": None}

        def step(self, actions: dict[str, Any]) -> Any:
            return *super().step(actions)[:4], {"common": 3, "agent_1": {"hello": "world"}}

    talk, quiet = ParallelCopy(Chatty(), "test"), ParallelCopy(Walk(), "test")
    np.testing.assert_array_equal(talk.reset(1)["agent"], quiet.reset(1)["agent"])
    still = {"agent": np.zeros(2, np.int64)}
    np.testing.assert_array_equal(talk.step(still).obs["agent"], quiet.step(still).obs["agent"])
    assert not talk.spec.groups[0].masked


@pytest.mark.parametrize("name", TURN_BASED)
def test_12_turn_based_games_are_played_turn_by_turn_and_go_on_exactly(name: str):
    env = make(f"classic/{name}", 2)
    assert env.spec.turn_based
    steps = play(env, 40)
    assert all((together(env.spec, step.alive).sum(1) == 1).all() for step in steps)
    fresh = make(f"classic/{name}", 2)
    obs = fresh.load_state_dict(env.state_dict())
    assert fresh.replay_differs == ()
    assert torch.equal(together(env.spec, obs), together(env.spec, steps[-1].obs))
    generators = [torch.Generator().manual_seed(9) for _ in range(2)]
    left = right = obs
    for _ in range(10):
        mine = env.step(legal_actions(env.spec, left, generators[0]))
        theirs = fresh.step(legal_actions(env.spec, right, generators[1]))
        assert torch.equal(together(env.spec, mine.obs), together(env.spec, theirs.obs))
        assert torch.equal(together(env.spec, mine.reward), together(env.spec, theirs.reward))
        left, right = mine.obs, theirs.obs


def test_a_reset_that_does_not_reset_everything_is_noticed_where_an_episode_is_repeated():
    """Knights, archers, zombies keeps the interval at which zombies appear from one episode to the next."""
    env = make("butterfly/knights_archers_zombies_v11", max_cycles=30)
    play(env, 45)
    fresh = make("butterfly/knights_archers_zombies_v11", max_cycles=30)
    fresh.load_state_dict(env.state_dict())
    assert fresh.replay_differs == (0,)


@pytest.mark.parametrize(
    ("env_id", "kwargs", "message"),
    [
        ("butterfly/cooperative_pong_v6", {}, r"the observation of paddle_0 is an image \(280, 480, 3\)"),
        ("butterfly/pistonball_v6", {}, r"the observation of piston_0 is an image \(457, 120, 3\)"),
        ("butterfly/knights_archers_zombies_v11", {"obs_method": "image"}, "is an image"),
        ("magent2/gather_v5", {}, "has 495 agents; for now from 1 to 200 are supported"),
    ],
)
def test_pixels_and_hundreds_of_agents_are_refused_in_one_sentence(env_id: str, kwargs: Any, message: str):
    with pytest.raises(UsageError, match=message):
        make(env_id, **kwargs)
