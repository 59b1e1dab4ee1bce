"""VMAS on the device: specs, episodes, random numbers of its own, exact state, single copies and errors."""

from __future__ import annotations

import importlib
import io
import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from marl_stable.config import EnvConfig
from marl_stable.envs import catalog, names
from marl_stable.types import Box, Discrete, EnvironmentFailure, PerGroup, Step, UsageError

pytest.importorskip("vmas")
from marl_stable.envs import vmas
from marl_stable.envs.vmas.env import VmasEnv

CPU = torch.device("cpu")
SCENARIOS = (  # with shaping kept between steps, sensors, food that vanishes, joints, links that move, scripted players
    *("balance", "navigation", "transport", "wheel", "dispersion", "flocking", "football", "ball_passage"),
    *("simple_spread", "simple_tag", "simple_adversary", "simple_reference"),
)


def make(name: str = "balance", num_envs: int = 4, **kwargs: Any) -> VmasEnv:
    return vmas.make(name, num_envs, CPU, **kwargs)


def random_actions(env: VmasEnv, draw: torch.Generator) -> PerGroup:
    actions = {}
    for group in env.spec.groups:
        shape = (env.num_envs, len(group.agents))
        if isinstance(group.action, Box):
            low, high = torch.tensor(group.action.low), torch.tensor(group.action.high)
            actions[group.name] = low + (high - low) * torch.rand(*shape, len(low), generator=draw)
        else:
            assert isinstance(group.action, Discrete)
            actions[group.name] = torch.randint(group.action.n, shape, generator=draw)
    return actions


def nothing(env: VmasEnv) -> PerGroup:
    return {name: torch.zeros_like(action) for name, action in random_actions(env, torch.Generator()).items()}


def play(env: VmasEnv, steps: int, seed: int = 5) -> list[Step]:
    draw = torch.Generator().manual_seed(seed)
    return [env.step(random_actions(env, draw)) for _ in range(steps)]


def assert_equal(one: Any, other: Any) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


# ---- what it says of itself


def test_groups_follow_teams_and_spaces() -> None:
    (agents,) = make("balance", n_agents=2).spec.groups
    assert agents == (
        "agent",
        ("agent_0", "agent_1"),
        16,
        Box((-1.0, -1.0), (1.0, 1.0)),
        "team",
        False,
        ("pos_rew", "ground_rew"),
        None,
    )
    spec = make("simple_tag").spec
    assert [(g.name, len(g.agents), g.obs_size, g.team) for g in spec.groups] == [
        ("adversary", 3, 16, "adversary"),
        ("agent", 1, 14, "agent"),
    ]
    assert spec.agents == ("adversary_0", "adversary_1", "adversary_2", "agent_0")
    assert make("football", ai_red_agents=False, n_blue_agents=2, n_red_agents=2).spec.teams == ("blue", "red")


def test_actions_have_their_own_bounds_and_what_is_said_counts() -> None:
    (listener,) = (g for g in make("simple_reference").spec.groups)
    assert listener.action == Box((-1.0,) * 2 + (0.0,) * 10, (1.0,) * 12)
    (discrete,) = make("simple_reference", continuous_actions=False).spec.groups
    assert discrete.action == Discrete(3 * 3 * 10)  # left, stay, right; down, stay, up; one of ten words
    assert make("give_way").spec.groups[0].action == Box((-0.5, -0.5), (0.5, 0.5))


def test_discrete_actions_move_as_their_numbers_say() -> None:
    env = make("simple", continuous_actions=False)
    for action in range(9):
        env.reset(1)
        step = env.step({"agent": torch.full((4, 1), action)})
        push = {0: 0.0, 1: -1.0, 2: 1.0}
        expected = torch.tensor([push[action // 3], push[action % 3]])
        velocity = step.next_obs["agent"][:, 0, :2]
        assert_equal(velocity.sign(), expected.expand(4, 2))


def test_rewards_are_each_agents_own() -> None:
    env = make("navigation", shared_rew=False)
    env.reset(0)
    step = env.step({"agent": torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]).expand(4, 4, 2)})
    assert step.reward["agent"].shape == (4, 4)
    assert all(len(set(rewards)) == 4 for rewards in step.reward["agent"].tolist())


# ---- episodes


def test_the_time_limit_truncates_and_its_observation_is_kept() -> None:
    env, endless = make(max_steps=4), make(max_steps=100)
    env.reset(2)
    endless.reset(2)
    steps, whole = play(env, 9), play(endless, 4)
    assert [bool(step.done.all()) for step in steps] == [False, False, False, True] * 2 + [False]
    assert [step.next_obs is step.obs for step in steps] == [not step.done.any().item() for step in steps]
    assert steps[3].truncated["agent"].all()
    assert not steps[3].terminated["agent"].any()
    assert_equal(steps[3].next_obs, whole[3].next_obs)
    assert not torch.equal(steps[3].next_obs["agent"], steps[3].obs["agent"])
    assert steps[3].alive["agent"].all()


def test_a_copy_that_falls_terminates_alone() -> None:
    env = make(num_envs=16)
    env.reset(0)
    steps = play(env, 60)
    ended = [step for step in steps if step.done.any() and not step.done.all()]
    assert ended
    for step in ended:
        assert_equal(step.terminated["agent"], step.done.unsqueeze(1).expand(-1, 3).contiguous())
        assert not step.truncated["agent"].any()
        others = ~step.done
        assert_equal(step.obs["agent"][others], step.next_obs["agent"][others])
        assert (step.obs["agent"][step.done] != step.next_obs["agent"][step.done]).flatten(1).any(1).all()


@pytest.mark.parametrize("name", ["balance", "ball_trajectory", "joint_passage_size"])
def test_a_restart_does_not_touch_other_copies(name: str) -> None:
    """VMAS's own `reset_at` gives all copies of ball_trajectory the shaping of one, and moves the joints of others."""
    env, twin = make(name, max_steps=50), make(name, max_steps=50)
    env.reset(3)
    play(env, 3)
    twin.load_state_dict(env.state_dict())
    ended = torch.tensor([False, True, False, False])
    env.obs = env._begin_anew(ended, env.obs)
    for one, other in zip(play(env, 4), play(twin, 4), strict=True):
        assert_equal(one.next_obs["agent"][~ended], other.next_obs["agent"][~ended])
        assert_equal(one.reward["agent"][~ended], other.reward["agent"][~ended])
        assert not torch.equal(one.next_obs["agent"][ended], other.next_obs["agent"][ended])


def test_what_has_no_rows_is_restarted_one_by_one_as_if_nothing_else_had_been_tried() -> None:
    env, twin = make("football"), make("football")
    twin.simulator._can_mix = False
    ended = torch.tensor([False, True, False, True])
    for each in (env, twin):
        each.reset(3)
        play(each, 2)
        each.obs = each._begin_anew(ended, each.obs)
    assert not env.simulator._can_mix
    assert env.simulator.env.steps.tolist() == [2, 0, 2, 0]
    assert_equal(env.obs, twin.obs)
    assert_equal(play(env, 3), play(twin, 3))


def test_a_failing_step_says_what_failed() -> None:
    env = make()
    env.reset(0)
    with pytest.raises(EnvironmentFailure, match=r"vmas/balance failed in a step: .*not a number"):
        env.step({"agent": torch.full((4, 3, 2), torch.nan)})


# ---- random numbers


@pytest.mark.parametrize("name", ["balance", "football"])
def test_a_seed_repeats_everything_whatever_came_before(name: str) -> None:
    env = make(name, max_steps=5)
    first = env.reset(7)
    before = play(env, 8)
    play(env, 3, seed=1)
    assert_equal(env.reset(7), first)
    assert_equal(play(env, 8), before)
    other = make(name, max_steps=5)
    assert_equal(other.reset(7), first)
    assert not torch.equal(other.reset(8)["agent" if name == "balance" else "agent_blue"], next(iter(first.values())))


def test_instances_do_not_disturb_one_another() -> None:
    alone = make(max_steps=5)
    alone.reset(1)
    expected = play(alone, 12)
    one, other = make(max_steps=5), make("football", max_steps=3)
    one.reset(1)
    other.reset(1)
    draw, noise = torch.Generator().manual_seed(5), torch.Generator().manual_seed(6)
    for step in expected:
        other.step(random_actions(other, noise))
        assert_equal(one.step(random_actions(one, draw)), step)


def test_the_process_generators_are_left_alone() -> None:
    shared = importlib.import_module("vmas.simulator.environment").Environment.vmas_random_state

    def streams() -> list[Any]:
        keys = np.random.get_state(legacy=False)["state"]["key"]
        return [torch.get_rng_state().tolist(), keys.tolist(), random.getstate(), shared[0].tolist(), shared[2]]

    before = streams()
    env = make("football", max_steps=3)
    env.reset(1)
    play(env, 5)
    env.load_state_dict(env.state_dict())
    with pytest.raises(EnvironmentFailure):
        env.step({"agent_blue": torch.full((4, 3, 2), torch.nan)})
    assert streams() == before


# ---- state


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_saved_state_goes_on_exactly_in_a_new_instance(name: str) -> None:
    env, other = make(name, 3, max_steps=3), make(name, 3, max_steps=3)
    env.reset(3)
    play(env, 4)
    file = io.BytesIO()
    torch.save(env.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    expected = play(env, 4, seed=9)
    assert any(step.done.any() for step in expected)
    for seed in (None, 99):
        if seed is not None:  # not only in a new instance; a run resets its environments before it loads them
            play(other, 2)
            other.reset(seed)
        assert_equal(other.load_state_dict(state), state["obs"])
        assert other.replay_differs == ()
        assert_equal(play(other, 4, seed=9), expected)


def test_saving_changes_nothing() -> None:
    env, twin = make("navigation", max_steps=5), make("navigation", max_steps=5)
    env.reset(0)
    twin.reset(0)
    for seed in range(7):
        (one,), (other,) = play(env, 1, seed), play(twin, 1, seed)
        env.state_dict()
        assert_equal(one, other)


def test_copies_that_cannot_be_restored_begin_anew() -> None:
    env, fewer = make(n_agents=3), make(n_agents=2)
    env.reset(0)
    fewer.reset(0)
    play(env, 2)
    state = env.state_dict()
    state["obs"]["agent"][1] += 1  # what a scenario with hidden state would show
    obs = env.load_state_dict(state)
    assert list(env.replay_differs) == [1]
    assert_equal(obs["agent"][0], state["obs"]["agent"][0])
    assert env.simulator.env.steps.tolist() == [2, 0, 2, 2]
    state["world"] = fewer.state_dict()["world"]
    env.load_state_dict(state)
    assert list(env.replay_differs) == [0, 1, 2, 3]


def test_noise_in_observations_is_not_taken_for_a_failed_restore() -> None:
    env = make("give_way", obs_noise=0.1)
    env.reset(0)
    play(env, 3)
    state = env.state_dict()
    expected = play(env, 4, seed=2)
    assert_equal(env.load_state_dict(state), state["obs"])
    assert env.replay_differs == ()
    assert_equal(play(env, 4, seed=2), expected)


# ---- in the catalog


def test_every_name_in_the_catalog_is_one_of_vmas() -> None:
    package = importlib.import_module("vmas")
    assert set(names.VMAS) == {*package.scenarios, *package.mpe_scenarios}
    assert catalog.resolve_num_envs(EnvConfig(id="vmas/balance")) == 256


def test_the_catalog_makes_it() -> None:
    env = catalog.make(EnvConfig(id="vmas/wheel", kwargs={"n_agents": 2, "max_steps": 3}), CPU, 5)
    assert (env.num_envs, env.spec.id, len(env.spec.agents)) == (5, "vmas/wheel", 2)
    assert env.reset(0)["agent"].shape == (5, 2, 13)
    env.close()


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"n_agent": 2}, "unknown argument of vmas/balance in env.kwargs: 'n_agent'. Did you mean n_agents?"),
        ({"max_steps": 0}, "max_steps is 0; it must be a whole number, at least 1"),
        ({"max_steps": None}, "max_steps is None"),
        ({"continuous_actions": "no"}, "continuous_actions is 'no'; it must be true or false"),
        ({"seed": 3}, "holds seed, which cannot be set there"),
        ({"multidiscrete_actions": True}, "holds multidiscrete_actions"),
        ({"n_agents": "three"}, "vmas/balance cannot be made with env.kwargs"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(kwargs: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as error:
        make(**kwargs)
    assert said in str(error.value)


def test_a_misspelt_name_is_answered_with_the_right_one() -> None:
    with pytest.raises(UsageError, match="Did you mean vmas/balance"):
        catalog.require_known("vmas/balanc")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vmas", None)
    with pytest.raises(UsageError, match=r"vmas/balance needs the package vmas; pip install 'marl_stable\[vmas\]'"):
        make()


# ---- single copies


def test_a_single_copy_plays_what_the_batch_plays() -> None:
    single = catalog.make_single("vmas/simple_tag", {"max_steps": 3})
    batch = make("simple_tag", 1, max_steps=3)
    obs, _ = single.reset(seed=4)
    assert_equal(torch.from_numpy(obs["adversary_1"]), batch.reset(4)["adversary"][0, 1])
    assert single.teams == {"adversary": ["adversary_0", "adversary_1", "adversary_2"], "agent": ["agent_0"]}
    for step in play(batch, 3):
        assert single.agents == single.possible_agents
        zeros = {agent: np.zeros(2, np.float32) for agent in single.agents}
        obs, reward, terminated, truncated, _ = single.step(zeros)
        assert all(single.observation_space(agent).contains(value) for agent, value in obs.items())
        assert set(reward) == set(single.possible_agents)
        assert truncated["agent_0"] is bool(step.truncated["agent"][0, 0])
        assert not any(terminated.values())
    assert single.agents == []
    assert single.action_space("agent_0").contains(np.zeros(2, np.float32))


def test_a_single_copy_draws_itself() -> None:
    code = (
        "import numpy as np\nfrom marl_stable.envs import catalog\nfrom marl_stable.types import UsageError\n"
        "env = catalog.make_single('vmas/balance', {}, 'rgb_array')\nenv.reset(seed=0)\n"
        "try:\n    frame = env.render()\n"
        "except UsageError as error:\n    print('cannot' if 'drawn here' in str(error) else error)\n"
        "else:\n    print(frame.dtype, frame.ndim, frame.shape[2], frame.std() > 0)\nenv.close()\n"
    )
    # In a process of its own: pyglet keeps a window or a headless device for the rest of the process.
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() in ("uint8 3 3 True", "cannot"), done.stderr


def test_without_a_render_mode_nothing_is_drawn() -> None:
    assert catalog.make_single("vmas/simple", {}).render() is None


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("balance", ("pos_rew", "ground_rew")),
        ("navigation", ("pos_rew", "final_rew", "agent_collisions")),
        ("football", ("sparse_reward", "ball_goal_pos_rew", "all_agent_ball_pos_rew")),
        ("transport", ()),  # reports nothing
        ("wind_flocking", ()),  # reports parts that are no sum
    ],
)
def test_terms_are_the_infos_that_add_up_to_the_reward(name: str, terms: tuple[str, ...]) -> None:
    env = make(name)
    assert {group.terms for group in env.spec.groups} == {terms}
    env.reset(0)
    for step in play(env, 20):
        assert set(step.terms) == ({group.name for group in env.spec.groups} if terms else set())
        for group, parts in step.terms.items():
            assert parts.shape == (*step.reward[group].shape, len(terms))
            torch.testing.assert_close(parts.sum(-1), step.reward[group], rtol=1e-5, atol=1e-5)


def test_a_single_copy_reports_its_terms_in_its_infos() -> None:
    env = catalog.make_single("vmas/balance", {})
    env.reset(seed=0)
    _, rewards, _, _, infos = env.step({agent: np.zeros(2, np.float32) for agent in env.agents})
    for agent, reward in rewards.items():
        parts = infos[agent]["reward_terms"]
        assert list(parts) == ["pos_rew", "ground_rew"]
        assert sum(parts.values()) == pytest.approx(reward)
