"""The batched particle world beside mpe2's own, copy by copy over whole episodes; then seeds, state and errors."""

from __future__ import annotations

import importlib
import io
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from marl_stable.envs import particle
from marl_stable.envs.particle import ParticleEnv, SimpleSpeakerListener, SimpleSpread
from marl_stable.types import Box, Discrete, PerGroup, Step, UsageError

CPU = torch.device("cpu")
TASKS = ("simple_spread_v3", "simple_speaker_listener_v4")


def make(name: str = "simple_spread_v3", num_envs: int = 3, **kwargs: Any) -> ParticleEnv:
    return particle.make(name, num_envs, CPU, **kwargs)


def random_actions(env: ParticleEnv, draw: torch.Generator) -> PerGroup:
    actions = {}
    for group in env.spec.groups:
        shape = (env.num_envs, len(group.agents))
        if isinstance(group.action, Discrete):
            actions[group.name] = torch.randint(group.action.n, shape, generator=draw)
        else:
            actions[group.name] = torch.rand(*shape, len(group.action.low), generator=draw)
    return actions


def colliding_actions(env: ParticleEnv, obs: PerGroup) -> PerGroup:
    """Everyone makes for a point near the middle, where they meet."""
    away = obs["agent"][..., 2:4] - 0.05  # (E, A, 2)
    right, up = -away[..., 0], -away[..., 1]
    if isinstance(env.spec.groups[0].action, Box):
        idle = torch.zeros_like(right)
        return {"agent": torch.stack([idle, -right, right, -up, up], -1).mul(3).clamp(0, 1)}
    across = torch.where(right > 0, 2, 1)
    along = torch.where(up > 0, 4, 3)
    return {"agent": torch.where(right.abs() > up.abs(), across, along)}


class Twin:
    """One mpe2 environment in the state of one of our copies."""

    def __init__(self, env: ParticleEnv, copy: int, name: str, **kwargs: Any) -> None:
        self.env, self.copy = env, copy
        self.mpe2 = importlib.import_module(f"mpe2.{name}").parallel_env(**kwargs)
        self.mpe2.reset(seed=0)
        self.world = self.mpe2.unwrapped.world
        place = env.pos[:, copy].reshape(-1, 2).numpy().copy()
        for entity, where in zip(self.world.entities, place, strict=True):
            entity.state.p_pos, entity.state.p_vel = where.copy(), np.zeros(2)
        if isinstance(env, SimpleSpeakerListener):
            self.world.agents[0].goal_b = self.world.landmarks[int(env.goal[copy])]

    def places(self) -> NDArray[np.float64]:
        return np.concatenate([entity.state.p_pos for entity in self.world.entities])

    def step(self, actions: PerGroup) -> tuple[Any, ...]:
        given: dict[str, Any] = {}
        for group in self.env.spec.groups:
            for i, agent in enumerate(group.agents):
                action = actions[group.name][self.copy, i]
                given[agent] = int(action) if isinstance(group.action, Discrete) else action.numpy()
        observed: tuple[Any, ...] = self.mpe2.step(given)
        return observed


def assert_twins(env: ParticleEnv, name: str, steps: int, directed: bool, **kwargs: Any) -> None:
    """Play one episode of `steps` in every copy and in its twin, and compare all that can be seen."""
    obs = env.reset(seed=11)
    twins = [Twin(env, copy, name, **kwargs) for copy in range(env.num_envs)]
    draw = torch.Generator().manual_seed(5)
    where = [(agent, group.name, i) for group in env.spec.groups for i, agent in enumerate(group.agents)]
    for t in range(steps):
        actions = colliding_actions(env, obs) if directed else random_actions(env, draw)
        before = env.pos.clone()
        step = env.step(actions)
        obs = step.obs
        assert step.done.tolist() == [t == steps - 1] * env.num_envs
        for copy, twin in enumerate(twins):
            observed, rewards, terminated, truncated, _ = twin.step(actions)
            if t < steps - 1:
                np.testing.assert_allclose(env.pos[:, copy].numpy(), twin.places(), atol=1e-7, rtol=0)
            else:
                assert not torch.equal(env.pos, before)  # the next episode has begun
            for agent, name_of_group, i in where:
                np.testing.assert_allclose(
                    step.next_obs[name_of_group][copy, i].numpy(), observed[agent], atol=1e-6, rtol=0
                )
                assert float(step.reward[name_of_group][copy, i]) == pytest.approx(rewards[agent], abs=1e-6)
                assert bool(step.terminated[name_of_group][copy, i]) is terminated[agent]
                assert bool(step.truncated[name_of_group][copy, i]) is truncated[agent]


# ---- the twins of mpe2


@pytest.mark.parametrize("directed", [False, True], ids=["random", "colliding"])
@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
@pytest.mark.parametrize(("n", "ratio"), [(1, 0.5), (2, 0.0), (2, 1.0), (3, 0.5), (5, 0.25)])
def test_simple_spread_equals_mpe2(n: int, ratio: float, continuous: bool, directed: bool):
    kwargs: dict[str, Any] = {"N": n, "local_ratio": ratio, "max_cycles": 25, "continuous_actions": continuous}
    assert_twins(make(**kwargs), "simple_spread_v3", 25, directed, **kwargs)


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
def test_simple_speaker_listener_equals_mpe2(continuous: bool):
    name, kwargs = "simple_speaker_listener_v4", {"max_cycles": 25, "continuous_actions": continuous}
    env = make(name, num_envs=12, **kwargs)
    env.reset(seed=11)
    assert isinstance(env, SimpleSpeakerListener)
    assert set(env.goal.tolist()) == {0, 1, 2}
    assert_twins(env, name, 25, False, **kwargs)


@pytest.mark.parametrize("name", TASKS)
def test_episodes_are_as_long_as_asked(name: str):
    assert_twins(make(name, max_cycles=4), name, 4, False, max_cycles=4)


def test_directed_actions_do_provoke_collisions():
    env = make(N=3, local_ratio=1.0)
    obs = env.reset(1)
    collided = torch.zeros(3, 3)
    for _ in range(24):
        step = env.step(colliding_actions(env, obs))
        obs, collided = step.obs, collided + step.reward["agent"]
    assert (collided <= -2).all()


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("name", TASKS)
def test_spaces_and_defaults_are_mpe2s(name: str, continuous: bool):
    env = make(name, continuous_actions=continuous)
    theirs = importlib.import_module(f"mpe2.{name}").parallel_env(continuous_actions=continuous)
    assert list(env.spec.agents) == theirs.possible_agents
    for group in env.spec.groups:
        for agent in group.agents:
            space = theirs.action_space(agent)
            if isinstance(group.action, Discrete):
                assert group.action.n == space.n
            else:
                assert (group.action.low, group.action.high) == (tuple(space.low.tolist()), tuple(space.high.tolist()))
            assert theirs.observation_space(agent).shape == (group.obs_size,)
    assert env.max_cycles == theirs.unwrapped.max_cycles
    if isinstance(env, SimpleSpread):
        assert env.local_ratio == theirs.unwrapped.local_ratio


def test_continuous_actions_beyond_their_bounds_count_as_the_bounds():
    envs = [make(continuous_actions=True) for _ in range(2)]
    draw = torch.Generator().manual_seed(0)
    for env in envs:
        env.reset(3)
    for _ in range(5):
        wild = 3 * torch.randn(3, 3, 5, generator=draw)
        steps = [env.step({"agent": action}) for env, action in zip(envs, (wild, wild.clamp(0, 1)), strict=True)]
        assert torch.equal(steps[0].obs["agent"], steps[1].obs["agent"])


# ---- what is its own


@pytest.mark.parametrize("name", TASKS)
def test_the_final_observation_is_true_and_a_new_episode_begins_by_itself(name: str):
    env, longer = make(name, max_cycles=3), make(name, max_cycles=4)
    assert all(torch.equal(x, longer.reset(1)[key]) for key, x in env.reset(1).items())
    steps: list[tuple[Step, Step]] = []
    draw = torch.Generator().manual_seed(0)
    for _ in range(3):
        actions = random_actions(env, draw)
        steps.append((env.step(actions), longer.step(actions)))
    assert [step.next_obs is step.obs for step, _ in steps] == [True, True, False]
    assert [step.done.any().item() for step, _ in steps] == [False, False, True]
    ours, theirs = steps[-1]
    for key in ours.obs:
        assert torch.equal(ours.next_obs[key], theirs.obs[key])
        assert not torch.equal(ours.next_obs[key], ours.obs[key])
        assert ours.truncated[key].all()
        assert not ours.terminated[key].any()
        assert ours.alive[key].all()
    if name == "simple_spread_v3":
        assert ours.obs["agent"][..., :2].eq(0).all()  # everyone rests where a new episode begins


@pytest.mark.parametrize("name", TASKS)
def test_initial_places_fill_the_square_evenly_and_differ_in_every_copy(name: str):
    env = make(name, num_envs=4000)
    env.reset(1)
    assert float(env.pos.min()) == pytest.approx(-1, abs=0.01)
    assert float(env.pos.max()) == pytest.approx(1, abs=0.01)
    torch.testing.assert_close(env.pos.mean(1), torch.zeros(len(env.pos), dtype=torch.float64), atol=0.05, rtol=0)
    assert len({tuple(column) for column in env.pos.T.tolist()}) == 4000


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("name", TASKS)
def test_state_in_mid_episode_goes_on_bit_for_bit_as_often_as_it_is_loaded(name: str, continuous: bool):
    env = make(name, continuous_actions=continuous, max_cycles=10)
    env.reset(1)
    draw = torch.Generator().manual_seed(0)
    for _ in range(7):
        last = env.step(random_actions(env, draw))
    file = io.BytesIO()
    state = env.state_dict()
    torch.save(state, file)
    actions = [random_actions(env, draw) for _ in range(20)]
    expected = [env.step(action) for action in actions]
    file.seek(0)
    for saved in (state, state, torch.load(file, weights_only=True)):
        fresh = make(name, continuous_actions=continuous, max_cycles=10)
        fresh.reset(99)
        obs = fresh.load_state_dict(saved)
        assert all(torch.equal(value, last.obs[key]) for key, value in obs.items())
        for action, step in zip(actions, expected, strict=True):
            again = fresh.step(action)
            assert torch.equal(again.done, step.done)
            for key in obs:
                assert torch.equal(again.obs[key], step.obs[key])
                assert torch.equal(again.next_obs[key], step.next_obs[key])
                assert torch.equal(again.reward[key], step.reward[key])


def test_a_state_saved_in_the_midst_of_a_collision_goes_on_with_it():
    env, fresh = make(), make()
    obs = env.reset(1)
    hits = 0
    for _ in range(20):
        action = colliding_actions(env, obs)
        fresh.reset(5)
        fresh.load_state_dict(env.state_dict())
        step, again = env.step(action), fresh.step(action)
        obs = step.obs
        assert torch.equal(again.obs["agent"], obs["agent"])
        assert torch.equal(again.reward["agent"], step.reward["agent"])
        touching = (env._gap < 2 * env.RADIUS).any() if isinstance(env, SimpleSpread) else False
        hits += bool(touching)
    assert hits > 5


@pytest.mark.parametrize("name", TASKS)
def test_a_seed_repeats_everything_and_another_does_not(name: str):
    def play(env: ParticleEnv, seed: int) -> list[torch.Tensor]:
        seen, draw = list(env.reset(seed).values()), torch.Generator().manual_seed(0)
        for _ in range(30):
            seen += env.step(random_actions(env, draw)).obs.values()
        return seen

    env = make(name)
    first = play(env, 1)
    assert all(torch.equal(one, other) for one, other in zip(first, play(make(name), 1), strict=True))
    assert all(torch.equal(one, other) for one, other in zip(first, play(env, 1), strict=True))
    assert not torch.equal(first[0], play(env, 2)[0])


@pytest.mark.parametrize("name", TASKS)
def test_what_a_step_returns_is_not_changed_by_the_next(name: str):
    env = make(name, max_cycles=3)
    env.reset(1)
    draw = torch.Generator().manual_seed(0)
    for _ in range(4):
        step = env.step(random_actions(env, draw))
        kept = [x.clone() for part in step if isinstance(part, dict) for x in part.values()] + [step.done.clone()]
        env.step(random_actions(env, draw))
        now = [x for part in step if isinstance(part, dict) for x in part.values()] + [step.done]
        assert all(torch.equal(one, other) for one, other in zip(kept, now, strict=True))


@pytest.mark.parametrize(
    ("name", "kwargs", "said"),
    [
        ("simple_sprad_v3", {}, "particle/simple_spread_v3"),
        ("simple_spread_v3", {"M": 3}, "N, local_ratio, max_cycles, continuous_actions"),
        ("simple_spread_v3", {"local_ration": 0.5}, "Did you mean local_ratio"),
        ("simple_speaker_listener_v4", {"N": 3}, "max_cycles, continuous_actions"),
        ("simple_spread_v3", {"N": 0}, "N is 0"),
        ("simple_spread_v3", {"N": 2.5}, "N is 2.5"),
        ("simple_spread_v3", {"local_ratio": 1.5}, "local_ratio is 1.5"),
        ("simple_spread_v3", {"local_ratio": "half"}, "half"),
        ("simple_spread_v3", {"max_cycles": 0}, "max_cycles is 0"),
        ("simple_speaker_listener_v4", {"max_cycles": -1}, "max_cycles is -1"),
    ],
)
def test_what_is_not_there_is_refused_in_one_sentence(name: str, kwargs: dict[str, Any], said: str):
    with pytest.raises(UsageError) as refused:
        make(name, **kwargs)
    assert said in str(refused.value)
