"""What holds for every task of the particle world: spaces, episodes, seeds, state and errors."""

from __future__ import annotations

import importlib
import io
from typing import Any

import pytest
import torch

from marl_stable.config import EnvConfig
from marl_stable.envs import catalog, names, particle
from marl_stable.envs.particle import ParticleEnv
from marl_stable.types import Box, Step, UsageError
from tests.agents.test_waiting import waits_in
from tests.envs.particle.twins import CPU, assert_twins, make, random_actions

TASKS = tuple(particle.TASKS)
SPREAD = "simple_spread_v3"


def play(env: ParticleEnv, steps: int, draw: torch.Generator) -> list[Step]:
    return [env.step(random_actions(env, {}, draw)) for _ in range(steps)]


@pytest.mark.parametrize("name", TASKS)
def test_episodes_are_as_long_as_asked(name: str):
    assert_twins(make(name, max_cycles=4), name, max_cycles=4)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        *((name, {}) for name in TASKS),
        (SPREAD, {"N": 5}),
        ("simple_tag_v3", {"num_good": 2, "num_adversaries": 4, "num_obstacles": 0}),
        ("simple_adversary_v3", {"N": 1}),
        ("simple_world_comm_v3", {"num_good": 1, "num_adversaries": 1, "num_obstacles": 0, "num_forests": 0}),
        ("simple_world_comm_v3", {"num_good": 3, "num_adversaries": 2, "num_food": 1, "num_forests": 3}),
        ("simple_formation_v1", {"N": 10}),
        ("simple_line_v1", {"N": 1}),
        ("collect_treasure_v1", {"num_collectors": 3, "num_deposits": 6, "num_treasures": 4}),
    ],
)
@pytest.mark.parametrize("continuous", [False, True])
def test_agents_groups_teams_and_spaces_are_those_of_mpe2(name: str, kwargs: dict[str, Any], continuous: bool):
    kwargs = {**kwargs, "continuous_actions": continuous}
    ours = make(name, **kwargs).spec
    theirs = catalog.make(EnvConfig(id=f"mpe2/{name}", kwargs=kwargs), CPU, 1).spec
    assert ours._replace(id=theirs.id) == theirs
    assert ours.id == f"particle/{name}"


@pytest.mark.parametrize("name", TASKS)
def test_defaults_are_those_of_mpe2(name: str):
    env = make(name)
    theirs = importlib.import_module(f"mpe2.{name}").parallel_env().unwrapped
    assert list(env.spec.agents) == theirs.possible_agents
    assert env.max_cycles == theirs.max_cycles
    if hasattr(env, "local_ratio"):
        assert env.local_ratio == theirs.local_ratio
    assert theirs.continuous_actions is any(isinstance(group.action, Box) for group in env.spec.groups) is False


def test_the_catalog_lists_every_task():
    assert tuple(names.PARTICLE) == TASKS


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_drawn_by_its_mpe2_twin(name: str):
    env = catalog.make_single(f"particle/{name}", {"max_cycles": 7}, "rgb_array")
    assert env.possible_agents == list(make(name).spec.agents)
    env.reset(seed=1)
    assert env.render().shape == (700, 700, 3)
    env.close()


@pytest.mark.parametrize("name", TASKS)
def test_continuous_actions_beyond_their_bounds_count_as_the_bounds(name: str):
    envs = [make(name, continuous_actions=True) for _ in range(2)]
    draw = torch.Generator().manual_seed(0)
    for env in envs:
        env.reset(3)
    for _ in range(5):
        wild = {key: 4 * x - 2 for key, x in random_actions(envs[0], {}, draw).items()}
        tame = {key: x.clamp(0, 1) for key, x in wild.items()}
        steps = [env.step(action) for env, action in zip(envs, (wild, tame), strict=True)]
        assert all(torch.equal(steps[0].obs[key], steps[1].obs[key]) for key in wild)


@pytest.mark.parametrize("name", TASKS)
def test_the_final_observation_is_true_and_a_new_episode_begins_by_itself(name: str):
    env, longer = make(name, max_cycles=3), make(name, max_cycles=4)
    assert all(torch.equal(x, longer.reset(1)[key]) for key, x in env.reset(1).items())
    steps: list[tuple[Step, Step]] = []
    draw = torch.Generator().manual_seed(0)
    for _ in range(3):
        actions = random_actions(env, {}, draw)
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
    assert env.vel.eq(0).all()  # everyone rests where a new episode begins


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
    last = play(env, 7, draw)[-1]
    file = io.BytesIO()
    state = env.state_dict()
    torch.save(state, file)
    actions = [random_actions(env, {}, draw) for _ in range(20)]
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


@pytest.mark.parametrize("name", TASKS)
def test_a_seed_repeats_everything_and_another_does_not(name: str):
    def seen(env: ParticleEnv, seed: int) -> list[torch.Tensor]:
        first = list(env.reset(seed).values())
        return first + [x for step in play(env, 30, torch.Generator().manual_seed(0)) for x in step.obs.values()]

    env = make(name)
    once = seen(env, 1)
    assert all(torch.equal(one, other) for one, other in zip(once, seen(make(name), 1), strict=True))
    assert all(torch.equal(one, other) for one, other in zip(once, seen(env, 1), strict=True))
    begun = zip(env.reset(1).values(), env.reset(2).values(), strict=True)
    assert any(not torch.equal(one, other) for one, other in begun)  # not all: who only listens has heard nothing yet


@pytest.mark.parametrize("name", TASKS)
def test_what_a_step_returns_is_not_changed_by_the_next(name: str):
    env = make(name, max_cycles=3)
    env.reset(1)
    draw = torch.Generator().manual_seed(0)
    for _ in range(4):
        (step,) = play(env, 1, draw)
        kept = [x.clone() for part in step if isinstance(part, dict) for x in part.values()] + [step.done.clone()]
        play(env, 1, draw)
        now = [x for part in step if isinstance(part, dict) for x in part.values()] + [step.done]
        assert all(torch.equal(one, other) for one, other in zip(kept, now, strict=True))


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("name", TASKS)
def test_no_step_makes_the_host_wait_not_even_that_which_begins_an_episode(name: str, continuous: bool):
    env = make(name, max_cycles=2, continuous_actions=continuous)
    env.reset(1)
    actions = random_actions(env, {}, torch.Generator())
    assert waits_in(lambda: [env.step(actions) for _ in range(4)]) == {}


@pytest.mark.parametrize(
    ("name", "kwargs", "said"),
    [
        ("simple_sprad_v3", {}, "particle/simple_spread_v3"),
        (SPREAD, {"M": 3}, "N, local_ratio, max_cycles, continuous_actions"),
        (SPREAD, {"local_ration": 0.5}, "Did you mean local_ratio"),
        (SPREAD, {"N": 0}, "N is 0"),
        (SPREAD, {"N": 2.5}, "N is 2.5; it must be a whole number"),
        (SPREAD, {"N": True}, "N is True; it must be a whole number"),
        (SPREAD, {"local_ratio": 1.5}, "local_ratio is 1.5"),
        (SPREAD, {"local_ratio": "half"}, "half"),
        (SPREAD, {"max_cycles": 0}, "max_cycles is 0"),
        (SPREAD, {"max_cycles": 1.5}, "max_cycles is 1.5"),
        (SPREAD, {"continuous_actions": "false"}, "continuous_actions is 'false'; it must be true or false"),
        ("simple_speaker_listener_v4", {"N": 3}, "max_cycles, continuous_actions"),
        ("simple_speaker_listener_v4", {"max_cycles": -1}, "max_cycles is -1"),
        ("simple_tag_v3", {"num_good": 0}, "num_good is 0"),
        ("simple_tag_v3", {"num_adversaries": 1.0}, "num_adversaries is 1.0"),
        ("simple_tag_v3", {"num_obstacles": -1}, "num_obstacles is -1; it must be a whole number, 0 or more"),
        ("simple_tag_v3", {"curriculum": True}, "mpe2/simple_tag_v3 takes all that mpe2 has"),
        ("simple_tag_v3", {"terminate_on_success": True}, "num_good, num_adversaries, num_obstacles, max_cycles"),
        ("simple_adversary_v3", {"N": 0}, "N is 0"),
        ("simple_adversary_v3", {"num_agent_neighbors": 1}, "N, max_cycles, continuous_actions"),
        ("simple_reference_v3", {"local_ratio": -0.1}, "local_ratio is -0.1"),
        ("simple_reference_v3", {"N": 2}, "local_ratio, max_cycles, continuous_actions"),
        ("simple_world_comm_v3", {"num_adversaries": 0}, "num_adversaries is 0"),
        ("simple_world_comm_v3", {"num_food": 0}, "num_food is 0; it must be a whole number, 1 or more"),
        ("simple_world_comm_v3", {"num_forests": -1}, "num_forests is -1; it must be a whole number, 0 or more"),
        ("simple_formation_v1", {"N": 11}, "a whole number from 1 to 10; mpe2/simple_formation_v1 takes more"),
        ("simple_line_v1", {"N": 0}, "N is 0"),
        ("simple_line_v1", {"terminate_on_success": True}, "mpe2/simple_line_v1 takes all that mpe2 has"),
        ("collect_treasure_v1", {"num_deposits": 7}, "num_deposits is 7; it must be a whole number from 1 to 6"),
        ("collect_treasure_v1", {"num_treasures": 0}, "num_treasures is 0"),
    ],
)
def test_what_is_not_there_is_refused_in_one_sentence(name: str, kwargs: dict[str, Any], said: str):
    with pytest.raises(UsageError) as refused:
        make(name, **kwargs)
    assert said in str(refused.value)
