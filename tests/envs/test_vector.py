"""Copies in this process: what a step carries, seeding, exact resume, and failures."""

from __future__ import annotations

import functools
import io
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from marl_stable import evaluation
from marl_stable.envs.base import BatchedEnv, lost, take_mishaps
from marl_stable.envs.crew import Failure, LocalCrew
from marl_stable.envs.ends import EndsAs
from marl_stable.envs.pettingzoo import ParallelCopy
from marl_stable.envs.vector import VectorEnv, episode_seed
from marl_stable.episodes import EpisodeStatistics
from marl_stable.types import EnvironmentFailure, Step, UsageError
from tests.envs.fakes import Walk
from tests.envs.playing import random_actions

CPU = torch.device("cpu")
TWO_NUMBERS = spaces.Box(-1, 1, (2,))


def vector(make: Any, num_envs: int = 2) -> VectorEnv:
    return VectorEnv(LocalCrew(lambda: ParallelCopy(make(), "walk"), "walk", num_envs), CPU)


def play(env: BatchedEnv, steps: int, seed: int = 0) -> list[Step]:
    generator = torch.Generator().manual_seed(seed)
    return [env.step(random_actions(env, generator)) for _ in range(steps)]


def assert_equal(left: Any, right: Any) -> None:
    """Bit for bit, through nested dicts and tuples of tensors."""
    if isinstance(left, torch.Tensor):
        assert (left.dtype, left.shape) == (right.dtype, right.shape)
        assert left.numpy().tobytes() == right.numpy().tobytes()
    elif isinstance(left, dict):
        assert left.keys() == right.keys()
        assert_equal(list(left.values()), list(right.values()))
    elif isinstance(left, list | tuple):
        for one, other in zip(left, right, strict=True):
            assert_equal(one, other)
    else:
        assert left == right


def saved(env: BatchedEnv) -> Any:
    """The state after a round through a checkpoint file that may hold no code."""
    file = io.BytesIO()
    torch.save(env.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_shapes_and_dtypes_are_those_of_the_interface():
    env = vector(lambda: Walk(agents=3, action=TWO_NUMBERS), 4)
    obs = env.reset(1)
    assert (obs["agent"].shape, obs["agent"].dtype) == ((4, 3, 2), torch.float32)
    step = play(env, 1)[0]
    assert (step.obs["agent"].shape, step.next_obs["agent"].shape) == ((4, 3, 2), (4, 3, 2))
    assert (step.reward["agent"].shape, step.reward["agent"].dtype) == ((4, 3), torch.float32)
    for flags in (step.terminated, step.truncated, step.alive):
        assert (flags["agent"].shape, flags["agent"].dtype) == ((4, 3), torch.bool)
    assert (step.done.shape, step.done.dtype) == ((4,), torch.bool)


def test_the_final_observation_is_the_true_one_and_the_next_episode_has_begun():
    env = vector(lambda: Walk(length=5))
    env.reset(7)
    actions = torch.randint(3, (5, 2, 2))
    steps = [env.step({"agent": action}) for action in actions]
    for copy in range(2):
        hand = Walk(length=5)
        hand.reset(seed=episode_seed(7, copy, 0))
        for action in actions:
            last = hand.step({f"agent_{i}": int(action[copy, i]) for i in range(2)})
        first, _ = hand.reset(seed=episode_seed(7, copy, 1))
        for i, agent in enumerate(hand.possible_agents):
            final = torch.from_numpy(last[0][agent]).float()
            assert torch.equal(steps[-1].next_obs["agent"][copy, i], final)
            assert torch.equal(steps[-1].obs["agent"][copy, i], torch.from_numpy(first[agent]).float())
            assert steps[-1].reward["agent"][copy, i] == last[1][agent]
    assert [step.done.tolist() for step in steps] == [[False, False]] * 4 + [[True, True]]
    assert steps[-1].truncated["agent"].all()
    assert not steps[-1].terminated["agent"].any()


def test_next_obs_is_obs_exactly_where_no_episode_ended():
    env = vector(lambda: Walk(length=3))
    env.reset(1)
    assert [step.next_obs is step.obs for step in play(env, 6)] == [True, True, False] * 2


def test_only_the_copy_whose_episode_ended_begins_anew():
    lengths = itertools.count(2)
    env = vector(lambda: Walk(length=next(lengths)))
    env.reset(1)
    step = play(env, 2)[-1]
    assert step.done.tolist() == [True, False]
    assert (step.obs["agent"][:, 0, 0].tolist(), step.next_obs["agent"][:, 0, 0].tolist()) == ([0, 2], [2, 2])
    assert torch.equal(step.obs["agent"][1], step.next_obs["agent"][1])


def test_an_environment_that_returns_one_buffer_again_and_again_does_not_rewrite_the_past():
    class Aliased(Walk):
        def observations(self) -> dict[str, Any]:
            if self.steps == 0 and not hasattr(self, "buffers"):
                self.buffers = {agent: np.zeros(2) for agent in self.possible_agents}
            for agent, value in super().observations().items():
                self.buffers[agent][...] = value
            return self.buffers

    fresh, aliased = vector(lambda: Walk(length=3)), vector(lambda: Aliased(length=3))
    assert_equal(fresh.reset(1), aliased.reset(1))
    assert_equal(play(fresh, 7), play(aliased, 7))  # compared once all steps were taken


def test_an_environment_that_changes_or_keeps_its_actions_changes_nothing_outside():
    class Vandal(Walk):
        def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
            result = super().step({agent: action.copy() for agent, action in actions.items()})
            for action in actions.values():
                action[...] = 99
            return result

    class Keeper(Walk):
        """Rewards the change of action, so it keeps the array that it was given."""

        def reset(self, seed: int | None = None, options: Any = None) -> Any:
            self.before = dict.fromkeys(self.possible_agents, np.zeros(2, np.float32))
            return super().reset(seed)

        def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
            obs, _, *rest = super().step(actions)
            rewards = {agent: float(np.abs(action - self.before[agent]).sum()) for agent, action in actions.items()}
            self.before = actions
            return obs, rewards, *rest

    env = vector(lambda: Vandal(length=9, action=TWO_NUMBERS))
    env.reset(1)
    action = torch.full((2, 2, 2), 0.5)
    for _ in range(3):
        assert (env.step({"agent": action}).reward["agent"] == 1).all()
    assert (action == 0.5).all()
    again = vector(lambda: Vandal(length=9, action=TWO_NUMBERS))
    again.load_state_dict(saved(env))
    assert again.replay_differs == ()

    env = vector(lambda: Keeper(length=9, action=TWO_NUMBERS))
    env.reset(1)
    assert (env.step({"agent": action}).reward["agent"] == 1).all()
    action.zero_()  # the caller's buffer, used again
    assert (env.step({"agent": action}).reward["agent"] == 1).all()


def test_the_same_seed_gives_the_same_run_and_another_seed_another():
    first, again, other = (vector(lambda: Walk(length=4)) for _ in range(3))
    obs = first.reset(3)
    assert_equal(obs, again.reset(3))
    assert not torch.equal(obs["agent"], other.reset(4)["agent"])
    assert_equal(play(first, 10), play(again, 10))


def test_reset_begins_the_same_run_again():
    env = vector(lambda: Walk(length=4))
    first = [env.reset(3), play(env, 6)]
    assert_equal(first, [env.reset(3), play(env, 6)])


def test_a_copy_does_not_depend_on_how_many_others_there_are():
    alone, among = vector(Walk, 1), vector(Walk, 5)
    first, others = alone.reset(3), among.reset(3)
    assert torch.equal(first["agent"][0], others["agent"][0])
    for _ in range(12):
        one, many = alone.step({"agent": torch.ones(1, 2).long()}), among.step({"agent": torch.ones(5, 2).long()})
        assert torch.equal(one.obs["agent"][0], many.obs["agent"][0])


def test_no_two_episodes_share_a_seed():
    seeds = {episode_seed(run, copy, episode) for run in range(4) for copy in range(8) for episode in range(8)}
    assert len(seeds) == 4 * 8 * 8
    assert all(type(seed) is int for seed in seeds)


class Sick(Walk):
    """Observes NaN in its third step."""

    def observations(self) -> dict[str, Any]:
        return {agent: value if self.steps != 3 else value * np.nan for agent, value in super().observations().items()}


@pytest.mark.parametrize("kind", [Walk, Sick])
@pytest.mark.parametrize("action", [None, TWO_NUMBERS, spaces.Box(-1, 1, ())])
@pytest.mark.parametrize("before", [0, 3, 11, 14])
def test_a_run_goes_on_exactly_where_its_state_was_taken(kind: Any, action: Any, before: int):
    def make() -> VectorEnv:
        lengths = itertools.count(7)
        return vector(lambda: kind(length=next(lengths), action=action), 3)

    env = make()
    env.reset(5)
    play(env, before, seed=1)
    state = saved(env)
    rest = play(env, 60, seed=2)
    fresh = make()
    obs = fresh.load_state_dict(state)
    assert fresh.replay_differs == ()
    assert_equal(obs, state["obs"])
    assert_equal(rest, play(fresh, 60, seed=2))
    assert_equal(saved(env)["actions"], saved(fresh)["actions"])


def test_loading_twice_and_into_a_used_object_changes_nothing():
    env, other = vector(Walk), vector(Walk)
    env.reset(5)
    play(env, 8)
    other.reset(6)
    play(other, 3)
    other.load_state_dict(saved(env))
    other.load_state_dict(saved(other))
    assert_equal(play(env, 12), play(other, 12))


class Leaky(Walk):
    """Carries something from one episode into the next, through reset."""

    episodes = 0

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.episodes += 1
        super().reset(seed)
        self.walk = self.walk + self.episodes
        return self.observations(), {}


def test_an_environment_that_leaks_through_reset_begins_a_new_episode_and_is_named():
    def make() -> VectorEnv:
        kinds = iter((lambda: Walk(length=4), lambda: Leaky(length=4)))
        return vector(lambda: next(kinds)())

    env = make()
    env.reset(5)
    play(env, 6)
    state = saved(env)
    fresh = make()
    obs = fresh.load_state_dict(state)
    assert fresh.replay_differs == (1,)
    assert torch.equal(obs["agent"][0], state["obs"]["agent"][0])
    assert obs["agent"][1, 0, 0] == 0  # steps of its new episode
    assert fresh.state_dict()["episodes"] == [1, 2]
    assert [step.done.tolist() for step in play(fresh, 4)] == [[False] * 2, [True, False], [False] * 2, [False, True]]


class Collapses(LocalCrew):
    """The second order to begin is the end of all copies, as when a worker dies of one of them."""

    begun = 0

    def begin(self) -> list[Failure]:
        self.begun += 1
        return [Failure("gone", (0, 1), 0, worker=0)] if self.begun == 2 else super().begin()


def test_a_worker_that_dies_in_a_reset_takes_the_running_episodes_of_its_other_copies_along():
    lengths = iter((2, 4))
    crew = Collapses(lambda: ParallelCopy(Walk(length=next(lengths)), "walk"), "walk", 2)
    env = VectorEnv(crew, CPU, max_failures=1)
    env.reset(5)
    before, step = play(env, 2)
    assert step.done.tolist() == [True, True]
    assert lost(step).tolist() == [False, True]
    assert step.next_obs["agent"][0, :, 0].tolist() == [2, 2]  # its own end, which nothing can take from it
    assert_equal(step.next_obs["agent"][1], before.obs["agent"][1])
    assert (step.obs["agent"][..., 0] == 0).all()
    assert env.state_dict()["episodes"] == [2, 1]
    assert "failed in reset (worker 0, copy 0" in env.mishaps[0].told


def test_copies_that_are_lost_after_their_replay_begin_new_episodes_too():
    def make(crew: type[LocalCrew]) -> VectorEnv:
        kinds = iter((lambda: Leaky(length=4), lambda: Walk(length=4)))
        return VectorEnv(crew(lambda: ParallelCopy(next(kinds)(), "walk"), "walk", 2), CPU, max_failures=1)

    env = make(LocalCrew)
    env.reset(5)
    play(env, 6)
    fresh = make(Collapses)
    fresh.load_state_dict(saved(env))
    assert fresh.replay_differs == (0, 1)
    assert fresh.state_dict()["episodes"] == [3, 2]
    assert fresh.state_dict()["actions"] == [{}, {}]


@pytest.mark.parametrize("trouble", ["raises", "ends early"])
def test_an_environment_that_cannot_repeat_its_episode_begins_a_new_one(trouble: str):
    class Fickle(Walk):
        def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
            if trouble == "raises" and changed:
                raise ValueError("not today")
            return super().step(actions)

    changed = False
    env = vector(lambda: Fickle(length=2 if changed else 9))
    env.reset(5)
    play(env, 4)
    state = saved(env)
    changed = True
    fresh = vector(lambda: Fickle(length=2 if changed else 9))
    obs = fresh.load_state_dict(state)
    assert fresh.replay_differs == (0, 1)
    assert (obs["agent"][..., 0] == 0).all()
    assert fresh.state_dict()["episodes"] == [1, 1]


def test_a_state_of_another_size_is_refused():
    env = vector(Walk, 3)
    env.reset(1)
    with pytest.raises(UsageError, match=r"3 copies of walk; env\.num_envs is 2"):
        vector(Walk, 2).load_state_dict(env.state_dict())
    with pytest.raises(UsageError, match="the saved state has observations"):
        vector(lambda: Walk(agents=4), 3).load_state_dict(env.state_dict())


class Failing(Walk):
    """Raises in its third step where it is the victim."""

    error: BaseException = ValueError()

    def __init__(self, victim: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.victim = victim

    def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
        if self.victim and self.steps == 2:
            raise self.error
        return super().step(actions)


@pytest.mark.parametrize("error", [ValueError("the door is stuck"), SystemExit("the door is stuck")])
def test_a_failing_step_says_where_it_happened_and_leaves_the_state_before_it(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Failing, "error", error)
    victims = iter((False, True, False))
    env = vector(lambda: Failing(next(victims), length=3), 3)
    env.reset(5)
    play(env, 2)
    before = saved(env)
    with pytest.raises(EnvironmentFailure) as caught:
        env.step({"agent": torch.tensor([[0, 0], [2, 1], [0, 0]])})
    for part in ("walk", "copy 1", f"seed {episode_seed(5, 1, 0)}", "step 3", "{'agent': [2, 1]}", "the door is stuck"):
        assert part in str(caught.value)
    assert caught.value.__cause__ is error
    assert_equal(before, saved(env))


def test_a_reset_that_fails_during_training_is_a_failure_and_before_it_bad_usage():
    class Once(Walk):
        resets = 0

        def reset(self, seed: int | None = None, options: Any = None) -> Any:
            self.resets += 1
            if self.resets == limit:
                raise OSError("no more levels")
            return super().reset(seed)

    limit = 4  # the first reset of all looks for action masks, the first copy's second for reward terms
    env = vector(lambda: Once(length=1))
    env.reset(5)
    before = saved(env)
    with pytest.raises(EnvironmentFailure, match=r"failed in reset \(copy 0, seed \d+\): OSError: no more levels"):
        play(env, 1)
    assert_equal(before, saved(env))
    limit = 3
    with pytest.raises(UsageError, match=r"failed in reset \(copy 0, seed \d+\): OSError: no more levels") as caught:
        vector(Once).reset(5)
    assert isinstance(caught.value.__cause__, OSError)


def test_an_environment_that_cannot_be_made_is_bad_usage():
    def make() -> Any:
        raise OSError("no such level")

    with pytest.raises(UsageError, match=r"walk cannot be made \(copy 0\): OSError: no such level") as caught:
        vector(make)
    assert isinstance(caught.value.__cause__, OSError)


def test_copies_must_be_alike_and_must_not_be_one_object():
    sizes = itertools.count(2)
    with pytest.raises(UsageError, match="copy 1 of walk has other agents or spaces"):
        vector(lambda: Walk(agents=next(sizes)))
    starts = itertools.count(0)
    with pytest.raises(UsageError, match="copy 1 of walk has other agents or spaces"):
        vector(lambda: Walk(action=spaces.Discrete(3, start=next(starts))))
    one = Walk()
    with pytest.raises(UsageError, match="must make a new one at every call"):
        vector(lambda: one)


class Survivors(LocalCrew):
    """Fails as a worker does, without one."""

    def step(self) -> list[Failure]:
        return [failure._replace(worker=0) for failure in super().step()]


class Stumbles(Walk):
    """Raises in the second step of every third episode."""

    episodes = 0

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.episodes += 1
        return super().reset(seed)

    def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
        if self.steps == 1 and self.episodes % 3 == 0:
            raise ValueError("no")
        return super().step(actions)


def survivors(length: int, num_envs: int = 2) -> VectorEnv:
    make = functools.partial(ParallelCopy, env_id="walk")
    return VectorEnv(Survivors(lambda: make(Stumbles(length=length)), "walk", num_envs), CPU, max_failures=1000)


def test_an_evaluation_plays_another_episode_for_one_that_was_given_up():
    env = survivors(length=4)
    episodes = evaluation.play(env, lambda obs: {"agent": torch.ones(2, 2).long()}, 10, 1)
    assert episodes.lengths.tolist() == [4] * 10
    assert (episodes.returns == 4).all()
    assert len(env.mishaps) > 2
    cut = evaluation.play(survivors(length=9), lambda obs: {"agent": torch.ones(2, 2).long()}, 2, 1, max_steps=2)
    assert cut.lengths.tolist() == [2, 2]


def test_an_episode_that_was_given_up_counts_for_nothing():
    env = survivors(length=4)
    statistics = EpisodeStatistics(env)
    env.reset(1)
    for _ in range(30):
        statistics.add(env.step({"agent": torch.ones(2, 2).long()}))
    found = statistics.take()
    assert take_mishaps(env)
    assert found["charts/return"]["agent"].tolist() == [4.0, 4.0]
    assert found["charts/episode_length"]["agent"] == 4
    assert found["rewards/mean"]["agent"] == 1


def test_the_end_of_an_episode_that_was_given_up_stays_a_truncation():
    for reading in ("truncation", "termination"):
        env = EndsAs(survivors(length=4), reading)
        env.reset(1)
        steps = [env.step({"agent": torch.ones(2, 2).long()}) for _ in range(30)]
        given_up = torch.stack([lost(step) for step in steps])
        assert given_up.any()
        assert torch.stack([step.truncated["agent"] for step in steps])[given_up].all()
        assert not torch.stack([step.terminated["agent"] for step in steps])[given_up].any()
        assert len(take_mishaps(env)) == given_up.sum()


def test_ends_can_be_read_as_the_user_says():
    class Mixed(Walk):
        """agent_0 is terminated and agent_1 truncated at the end."""

        def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
            obs, rewards, terminated, truncated, infos = super().step(actions)
            return obs, rewards, terminated | {"agent_0": truncated["agent_0"]}, truncated, infos

    ends = {}
    for reading in ("truncation", "termination"):
        env = EndsAs(vector(lambda: Mixed(length=2)), reading)
        env.reset(1)
        _, step = (env.step({"agent": torch.zeros(2, 2).long()}) for _ in range(2))
        ends[reading] = (step.terminated["agent"].tolist(), step.truncated["agent"].tolist())
    yes, no = [[True, True]] * 2, [[False, False]] * 2
    assert ends == {"truncation": (no, yes), "termination": (yes, no)}


def test_reading_ends_keeps_the_environment_below_resumable():
    env = EndsAs(vector(lambda: Leaky(length=4)), "termination")
    env.reset(5)
    env.step({"agent": torch.zeros(2, 2).long()})
    again = EndsAs(vector(lambda: Leaky(length=4)), "termination")
    again.env.reset(9)
    again.load_state_dict(env.state_dict())
    assert again.replay_differs == (0, 1)  # its second reset already
    assert (again.spec, again.num_envs) == (env.spec, 2)
    again.close()


def test_close_reaches_every_copy_though_one_fails():
    closed = []

    class Stubborn(Walk):
        def close(self) -> None:
            closed.append(self)
            raise OSError("already gone")

    vector(Stubborn, 3).close()
    assert len(closed) == 3
