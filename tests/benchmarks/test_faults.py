from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import marl_stable as ms
from benchmarks.faults import KINDS, distorted, set_clock
from benchmarks.faults.conditions import FAULTS, NONE
from benchmarks.faults.distortion import Distortion
from benchmarks.faults.observations import AddedFeatures, ObsNaN, ObsNoise, ObsScale, TwinAgents
from benchmarks.faults.rewards import canonical
from marl_stable.acting import random_action
from marl_stable.config import EnvConfig
from marl_stable.envs import catalog
from marl_stable.envs.base import BatchedEnv
from marl_stable.run import resume
from marl_stable.showing import evaluate
from marl_stable.types import Box, Discrete, EnvSpec, Group, PerGroup, Step, UsageError

SPREAD, CPU, COPIES, STEPS = "particle/simple_spread_v3", torch.device("cpu"), 8, 12
SHORT = {"max_cycles": 5}
BOX = {**SHORT, "continuous_actions": True}


class Seen(NamedTuple):
    """A play: T steps of `E` copies of three agents."""

    obs: Tensor  # (T + 1, E, A, O)
    next_obs: Tensor  # (T, E, A, O)
    reward: Tensor  # (T, E, A)
    terminated: Tensor
    truncated: Tensor
    alive: Tensor
    done: Tensor  # (T, E)


def made(*faults: Mapping[str, Any], env_kwargs: Mapping[str, Any] = SHORT, **more: Any) -> BatchedEnv:
    return distorted(COPIES, CPU, SPREAD, env_kwargs, faults, **more)


def clean(env_kwargs: Mapping[str, Any] = SHORT) -> BatchedEnv:
    return catalog.make(EnvConfig(id=SPREAD, kwargs=dict(env_kwargs)), CPU, COPIES)


def drawn(env: BatchedEnv, steps: int = STEPS, seed: int = 0) -> list[Tensor]:
    """Random actions for every step; the same for all environments with these actions."""
    generator = torch.Generator().manual_seed(seed)
    (group,) = env.spec.groups
    return [random_action(group, torch.zeros(COPIES, 3, 1), generator) for _ in range(steps)]


def played(env: BatchedEnv, actions: list[Tensor], seed: int = 5) -> Seen:
    return going_on(env, actions, env.reset(seed))


def going_on(env: BatchedEnv, actions: list[Tensor], first: PerGroup) -> Seen:
    steps: list[Step] = []
    for action in actions:
        steps.append(env.step({"agent": action}))
        assert (steps[-1].next_obs is steps[-1].obs) is not bool(steps[-1].done.any())
    obs = torch.stack([first["agent"], *(step.obs["agent"] for step in steps)])
    names = ("next_obs", "reward", "terminated", "truncated", "alive")
    parts = [torch.stack([getattr(step, name)["agent"] for step in steps]) for name in names]
    return Seen._make([obs, *parts, torch.stack([step.done for step in steps])])


def both(*faults: Mapping[str, Any], env_kwargs: Mapping[str, Any] = SHORT, steps: int = STEPS) -> tuple[Seen, Seen]:
    """The same actions with and without faults."""
    actions = drawn(clean(env_kwargs), steps)
    return played(clean(env_kwargs), actions), played(made(*faults, env_kwargs=env_kwargs), actions)


def same(one: Seen, other: Seen, but: tuple[str, ...] = ()) -> None:
    for name in set(Seen._fields) - set(but):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=0, msg=name)


# ---- rewards


@pytest.mark.parametrize(
    ("kind", "dose", "paid"),
    [
        ("reward_scale", 1e-4, lambda r: r * 1e-4),
        ("reward_offset", 1e3, lambda r: r + 1e3),
        ("reward_flip", 1.0, lambda r: -r),
        ("reward_zero", 1.0, lambda r: 0 * r),
    ],
)
def test_rewards_alone_are_changed_for_whom_and_from_when_it_is_said(kind: str, dose: float, paid: Any) -> None:
    truth, found = both({"kind": kind, "dose": dose})
    same(truth, found, but=("reward",))
    torch.testing.assert_close(found.reward, paid(truth.reward), rtol=0, atol=0)
    truth, found = both({"kind": kind, "dose": dose, "from": 7, "agents": ["agent_1"]})
    same(truth, found, but=("reward",))
    expected = truth.reward.clone()
    expected[7:, :, 1] = paid(expected[7:, :, 1])
    torch.testing.assert_close(found.reward, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("fault", "value"),
    [
        ({"kind": "reward_spike", "dose": 1e6, "probability": 0.1}, 1e6),
        ({"kind": "reward_nan", "dose": 0.1}, math.nan),
        ({"kind": "reward_inf", "dose": 0.1}, math.inf),
    ],
)
def test_rare_rewards_strike_a_copy_as_often_as_they_should(fault: dict[str, Any], value: float) -> None:
    truth, found = both(fault, steps=100)
    same(truth, found, but=("reward",))
    hit = found.reward.isnan() if math.isnan(value) else found.reward == value
    assert (hit == hit[..., :1]).all()  # all agents of a copy at once
    assert 0.06 < hit.float().mean() < 0.14
    torch.testing.assert_close(found.reward[~hit], truth.reward[~hit], rtol=0, atol=0)


def test_noise_is_as_wide_as_the_dose_says_times_the_rewards_own_deviation() -> None:
    truth, found = both({"kind": "reward_noise", "dose": 5.0}, steps=150)
    same(truth, found, but=("reward",))
    noise = found.reward - truth.reward
    assert abs(noise.mean() / noise.std()) < 0.05
    torch.testing.assert_close(noise.std((0, 1)), 5 * truth.reward.std((0, 1)), rtol=0.15, atol=0)


def test_delayed_rewards_are_paid_in_full_at_the_end_of_the_episode() -> None:
    truth, found = both({"kind": "reward_delay"}, steps=10)
    same(truth, found, but=("reward",))
    assert (found.reward[[0, 1, 2, 3, 5, 6, 7, 8]] == 0).all()
    sums = truth.reward.unflatten(0, (2, 5)).sum(1)
    torch.testing.assert_close(found.reward[[4, 9]], sums)


def test_sparse_rewards_are_paid_above_the_threshold_which_random_actions_pass_once_in_a_hundred_steps() -> None:
    truth, found = both({"kind": "reward_sparse", "threshold": -0.9, "dose": 2.0})
    same(truth, found, but=("reward",))
    assert torch.equal(found.reward, 2.0 * (truth.reward > -0.9))
    assert 0 < (found.reward > 0).float().mean() < 1
    env = distorted(512, CPU, SPREAD, {}, [{"kind": "reward_sparse"}])
    obs, draw = env.reset(1), torch.Generator().manual_seed(0)
    (group,) = env.spec.groups
    rewards = torch.stack(
        [env.step({"agent": random_action(group, obs["agent"], draw)}).reward["agent"] for _ in "x" * 50]
    )
    assert 0.005 < rewards.mean() < 0.02
    assert set(rewards.unique().tolist()) == {0.0, 1.0}


def test_rewards_from_chance_know_nothing_of_actions() -> None:
    fault = {"kind": "reward_from_chance"}
    one, other = (played(made(fault), drawn(clean(), 150, seed)) for seed in (0, 1))
    assert not torch.equal(one.obs, other.obs)
    torch.testing.assert_close(one.reward, other.reward, rtol=0, atol=0)
    truth = played(clean(), drawn(clean(), 150))
    torch.testing.assert_close(one.reward.std((0, 1)), truth.reward.std((0, 1)), rtol=0.2, atol=0)
    torch.testing.assert_close(one.reward.mean((0, 1)), truth.reward.mean((0, 1)), rtol=0.2, atol=0)


def test_a_task_where_one_constant_action_is_best() -> None:
    actions = drawn(clean())
    found = played(made({"kind": "constant_action_optimal", "choice": 2}), actions)
    assert torch.equal(found.reward, torch.stack(actions).eq(2).float())
    best = [torch.full((COPIES, 3, 5), 0.75)] * STEPS  # 0.5 of the way from -1 to 1
    fault = {"kind": "constant_action_optimal", "place": 0.5}
    assert (played(made(fault, env_kwargs=BOX), best).reward == 0).all()
    assert (played(made(fault, env_kwargs=BOX), drawn(clean(BOX))).reward < 0).all()


def test_a_task_where_only_the_bounds_are_best() -> None:
    env = made({"kind": "bang_bang_optimal"}, env_kwargs=BOX)
    obs = env.reset(5)
    for _ in range(STEPS):
        signs = obs["agent"][..., :5].sign()
        expected = (signs != 0).float().mean(-1)  # at rest there is no velocity to follow
        step = env.step({"agent": (signs + 1) / 2})
        torch.testing.assert_close(step.reward["agent"], expected)
        obs = step.obs
    half = played(made({"kind": "bang_bang_optimal"}, env_kwargs=BOX), [torch.full((COPIES, 3, 5), 0.5)])
    assert (half.reward == 0).all()


# ---- observations


def test_one_feature_is_scaled() -> None:
    truth, found = both({"kind": "obs_scale", "dose": 1e5, "features": [3], "agents": ["agent_2"], "from": 4})
    same(truth, found, but=("obs", "next_obs"))
    expected = truth.obs.clone()
    expected[4:, :, 2, 3] *= 1e5
    torch.testing.assert_close(found.obs, expected, rtol=0, atol=0)
    expected = truth.next_obs.clone()
    expected[3:, :, 2, 3] *= 1e5  # what step 3 led to is what step 4 acts on
    torch.testing.assert_close(found.next_obs, expected, rtol=0, atol=0)


@pytest.mark.parametrize(("kind", "value"), [("obs_frozen", 0.0), ("obs_nan_sensor", math.nan)])
def test_features_are_stuck_or_lost_from_some_step_on(kind: str, value: float) -> None:
    truth, found = both({"kind": kind, "dose": 2, "from": 6})
    same(truth, found, but=("obs", "next_obs"))
    expected = truth.obs.clone()
    expected[6:, ..., :2] = value
    torch.testing.assert_close(found.obs, expected, rtol=0, atol=0, equal_nan=True)


def test_single_entries_are_lost_now_and_then() -> None:
    truth, found = both({"kind": "obs_nan", "dose": 0.2}, steps=200)
    same(truth, found, but=("obs", "next_obs"))
    lost = found.obs.isnan()
    assert lost.sum((2, 3)).max() == 1
    assert 0.16 < lost.any(3).any(2).float().mean() < 0.24
    assert lost.any(0).any(0).float().mean() > 0.9  # any agent, any feature
    torch.testing.assert_close(found.obs[~lost], truth.obs[~lost], rtol=0, atol=0)
    running = ~found.done
    torch.testing.assert_close(found.obs[1:][running], found.next_obs[running], rtol=0, atol=0, equal_nan=True)


def test_features_drift_a_deviation_a_period() -> None:
    truth, found = both({"kind": "obs_drift", "dose": 2.0, "period": 40}, steps=100)
    same(truth, found, but=("obs", "next_obs"))
    moved = (found.obs - truth.obs).mean((1, 2))  # (T + 1, O)
    torch.testing.assert_close(moved[80], 2 * moved[40], rtol=1e-3, atol=1e-4)
    assert (moved[0] == 0).all()
    spread = truth.obs.flatten(0, 2).std(0)
    varies = spread > 0
    torch.testing.assert_close(moved[40][varies], 2 * spread[varies], rtol=0.25, atol=0)
    assert (moved[40][~varies] == 0).all()


def test_features_that_say_nothing_are_added() -> None:
    truth, found = both({"kind": "obs_constant", "dose": 4, "value": 2.5}, {"kind": "obs_noise", "dose": 30})
    assert found.obs.shape[-1] == 18 + 4 + 30
    torch.testing.assert_close(found.obs[..., :18], truth.obs, rtol=0, atol=0)
    assert (found.obs[..., 18:22] == 2.5).all()
    noise = found.obs[..., 22:]
    assert abs(noise.mean()) < 0.05
    assert abs(noise.std() - 1) < 0.05
    same(truth, found, but=("obs", "next_obs"))


def test_twins_see_what_the_first_agent_sees() -> None:
    truth, found = both({"kind": "twin_agents"})
    same(truth, found, but=("obs", "next_obs"))
    torch.testing.assert_close(found.obs, truth.obs[:, :, :1].expand_as(truth.obs), rtol=0, atol=0)


class Masked:
    """Four copies of two agents, one whose last three features say what is legal; every second step ends."""

    def __init__(self) -> None:
        agents = ("a", "b")
        self.spec = EnvSpec("masked", agents, (Group("g", agents, 5, Discrete(3), "team", masked=True),))
        self.num_envs, self.device = 4, CPU
        self.replay_differs: tuple[int, ...] = ()
        self.t = 0

    def obs(self) -> PerGroup:
        legal = torch.tensor([0.0, 1.0, 1.0]).expand(4, 2, 3)
        return {"g": torch.cat([torch.full((4, 2, 2), float(self.t + 1)), legal], dim=-1)}

    def reset(self, seed: int) -> PerGroup:
        self.t = 0
        return self.obs()

    def step(self, action: PerGroup) -> Step:
        self.action, self.t = action, self.t + 1
        seen = self.obs()
        yes = torch.ones(4, 2, dtype=torch.bool)
        return Step(seen, seen, {"g": torch.ones(4, 2)}, {"g": ~yes}, {"g": ~yes}, {"g": yes}, ~yes[:, 0])

    def state_dict(self) -> dict[str, Any]:
        return {"t": self.t}

    def load_state_dict(self, state: dict[str, Any]) -> PerGroup:
        self.t, self.replay_differs = -11, (2,)
        return self.obs()

    def close(self) -> None: ...


def no_measure() -> Any:
    raise AssertionError("nothing is to be measured")


@pytest.mark.parametrize("kind", [ObsScale, ObsNaN, AddedFeatures, ObsNoise, TwinAgents])
def test_features_that_say_what_is_legal_stay_last_and_as_they_are(kind: type[Distortion]) -> None:
    env = kind(Masked(), {"kind": "x", "dose": 3.0}, no_measure)
    (group,) = env.spec.groups
    for obs in (env.reset(0), env.step({"g": torch.ones(4, 2, dtype=torch.int64)}).obs):
        assert obs["g"].shape == (4, 2, group.obs_size)
        assert torch.equal(obs["g"][..., -3:], Masked().obs()["g"][..., -3:])


def test_who_is_ignored_does_the_first_thing_that_is_legal() -> None:
    inner = Masked()
    env = KINDS["lazy_agent"](inner, {"kind": "lazy_agent"}, no_measure)
    env.reset(0)
    env.step({"g": torch.full((4, 2), 2)})
    assert torch.equal(inner.action["g"], torch.tensor([[1, 2]]).expand(4, 2))


def test_copies_that_could_not_be_restored_are_distorted_anew() -> None:
    env = ObsScale(Masked(), {"kind": "obs_scale", "dose": 10.0}, no_measure)
    env.reset(0)
    before = env.step({"g": torch.ones(4, 2, dtype=torch.int64)}).obs["g"]
    after = env.load_state_dict(env.state_dict())["g"]
    assert env.replay_differs == (2,)
    assert torch.equal(after[[0, 1, 3]], before[[0, 1, 3]])
    assert torch.equal(after[2, :, :2], torch.tensor([-100.0, -10.0]).expand(2, 2))


# ---- actions


def test_a_tiny_range_is_scaled_to_the_true_one() -> None:
    truth = played(clean(BOX), actions := drawn(clean(BOX)))
    env = made({"kind": "action_range", "dose": 0.01}, env_kwargs=BOX)
    assert env.spec.groups[0].action == Box((-0.01,) * 5, (0.01,) * 5)
    found = played(env, [0.01 * (2 * action - 1) for action in actions])
    for one, other in zip(truth, found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_range_beyond_what_is_obeyed_is_cut_off() -> None:
    env = made({"kind": "action_clipped", "dose": 10.0}, env_kwargs=BOX)
    action = env.spec.groups[0].action
    assert isinstance(action, Box)
    assert (action.low[0], action.high[0]) == (-4.5, 5.5)  # ten times as wide about the middle of 0 and 1
    wild = drawn(env)
    assert max(float(action.max()) for action in wild) > 5
    same(played(clean(BOX), [action.clamp(0, 1) for action in wild]), played(env, wild))


@pytest.mark.parametrize("env_kwargs", [SHORT, BOX], ids=["discrete", "box"])
def test_a_choice_or_a_dimension_without_effect(env_kwargs: dict[str, Any]) -> None:
    actions = drawn(clean(env_kwargs))
    dead = [action.clone() for action in actions]
    for action in dead:
        if env_kwargs is BOX:
            action[:, 1, 4] = 0.0
        else:
            action[:, 1] = action[:, 1].where(action[:, 1] != 4, 0)
    found = played(made({"kind": "action_dead", "agents": ["agent_1"]}, env_kwargs=env_kwargs), actions)
    same(played(clean(env_kwargs), dead), found)
    assert not torch.equal(found.obs, played(clean(env_kwargs), actions).obs)
    nothing = [torch.zeros_like(action) for action in actions]
    found = played(made({"kind": "action_dead", "dose": 5}, env_kwargs=env_kwargs), actions)
    same(played(clean(env_kwargs), nothing), found)


def test_a_lazy_agents_actions_are_ignored() -> None:
    actions = drawn(clean())
    ignored = [torch.cat([torch.zeros_like(action[:, :1]), action[:, 1:]], dim=1) for action in actions]
    found = played(made({"kind": "lazy_agent"}), actions)
    same(played(clean(), ignored), found)
    assert not torch.equal(found.obs, played(clean(), actions).obs)


# ---- episodes


def test_time_limits_are_called_the_end_of_the_world() -> None:
    truth, found = both({"kind": "time_limit_as_termination"})
    same(truth, found, but=("terminated", "truncated"))
    assert truth.truncated.any()
    assert torch.equal(found.terminated, truth.truncated)
    assert not found.truncated.any()
    _, half = both({"kind": "time_limit_as_termination", "dose": 0.5})
    assert torch.equal(half.terminated[:, :4], truth.truncated[:, :4])
    assert torch.equal(half.truncated[:, 4:], truth.truncated[:, 4:])
    assert not (half.terminated & half.truncated).any()


def test_agents_die_once_and_the_last_one_lives_on() -> None:
    actions = drawn(clean(), 200)
    found = played(made({"kind": "dying_agents", "dose": 0.1}), actions)
    truth = played(clean(), actions)
    assert torch.equal(found.done, truth.done)
    alive, died = found.alive, found.terminated
    assert (died <= alive).all()
    assert alive.any(2).all()
    assert 0.05 < died.sum() / alive.sum() < 0.11
    over = found.done.unsqueeze(2)
    after = torch.cat([torch.ones_like(alive[:1]), (alive & ~died) | over])[:-1]
    assert torch.equal(alive, after)  # until the copy's next episode
    assert torch.equal(found.truncated, truth.truncated & alive & ~died)
    assert (found.reward[~alive] == 0).all()
    dead = ~torch.cat([torch.ones_like(alive[:1]), (alive & ~died) | over])
    assert found.obs[dead].std() > 100
    assert found.obs[~dead].abs().max() < 100


def test_padded_agents_are_reported_as_living_though_they_see_nothing() -> None:
    actions = drawn(clean(), 100)
    honest = played(made({"kind": "dying_agents", "dose": 0.1, "garbage": 0.0}), actions)
    padded = played(made({"kind": "padded_agents", "dose": 0.1}), actions)
    assert not honest.alive.all()
    assert padded.alive.all()
    assert not padded.terminated.any()
    assert torch.equal(padded.truncated, played(clean(), actions).truncated)
    torch.testing.assert_close(padded.obs, honest.obs, rtol=0, atol=0)
    torch.testing.assert_close(padded.reward, honest.reward, rtol=0, atol=0)


# ---- all of them


def usual(name: str) -> BatchedEnv:
    fault = FAULTS[name]
    kwargs = fault.kwargs(SPREAD, (BOX if fault.box else SHORT) | {"max_cycles": 5}, onset=3 if fault.late else 0)
    if name == "long_horizon":
        kwargs["env_kwargs"]["max_cycles"] = 9
    for one in kwargs["faults"]:
        if "probability" in KINDS[one["kind"]].OPTIONS:
            one["probability"] = 0.1
        elif 0 < one["dose"] < 0.05 and one["kind"] not in ("action_range", "reward_scale"):
            one["dose"] = 0.1  # a probability; a short play is to see it
    return distorted(COPIES, CPU, **json.loads(json.dumps(kwargs)))


@pytest.mark.parametrize("name", FAULTS)
def test_the_seed_decides_everything_and_a_play_goes_on_exactly(name: str) -> None:
    env, twin = usual(name), usual(name)
    actions = drawn(env, 16)
    whole = played(env, actions)
    again = played(twin, actions)
    equal = {"rtol": 0, "atol": 0, "equal_nan": True}
    for one, other in zip(whole, again, strict=True):
        torch.testing.assert_close(one, other, **equal)  # type: ignore[arg-type]
    first = env.reset(5)
    begun = going_on(env, actions[:7], first)
    state = env.state_dict()
    going_on(env, actions[7:], first)  # must not move what was kept
    twin.reset(99)
    resumed = going_on(twin, actions[7:], twin.load_state_dict(state))
    torch.testing.assert_close(resumed.obs[0], begun.obs[-1], **equal)  # type: ignore[arg-type]
    for kind in ("next_obs", "reward", "terminated", "truncated", "alive", "done"):
        torch.testing.assert_close(getattr(resumed, kind), getattr(whole, kind)[7:], msg=kind, **equal)  # type: ignore[arg-type]


def test_faults_stand_on_one_another() -> None:
    truth, found = both({"kind": "reward_offset", "dose": 1.0}, {"kind": "reward_scale", "dose": 10.0})
    torch.testing.assert_close(found.reward, 10 * (truth.reward + 1), rtol=0, atol=0)
    truth, found = both({"kind": "reward_scale", "dose": 10.0}, {"kind": "reward_offset", "dose": 1.0})
    torch.testing.assert_close(found.reward, 10 * truth.reward + 1, rtol=0, atol=0)


def test_scoring_leaves_out_faults_of_the_reward_alone() -> None:
    faults = [{"kind": kind} for kind, made_of in KINDS.items() if made_of.REWARD]
    assert len(faults) == 11
    actions = drawn(clean())
    same(played(clean(), actions), played(made(*faults, score=True), actions))
    kept: list[dict[str, Any]] = [{"kind": "reward_zero"}, {"kind": "obs_scale", "dose": 2.0}, {"kind": "lazy_agent"}]
    same(played(made(*kept[1:]), actions), played(made(*kept, score=True), actions))
    trap = {"kind": "constant_action_optimal"}  # the task, not a fault
    same(played(made(trap), actions), played(made(trap, score=True), actions))


def test_the_clock_can_be_set_so_that_evaluations_see_what_began_late() -> None:
    late = {"kind": "reward_flip", "from": 100}
    actions = drawn(clean())
    truth = played(clean(), actions).reward
    for env in (made(late, late, began_at=95), made(late, late)):
        set_clock(env, 95)
        found = played(env, actions).reward
        torch.testing.assert_close(found, truth, rtol=0, atol=0)  # twice flipped
    env = made(late)
    set_clock(env, 95)
    torch.testing.assert_close(played(env, actions).reward[5:], -truth[5:], rtol=0, atol=0)


def test_mistakes_are_named() -> None:
    with pytest.raises(UsageError, match=r"unknown kind of fault 'reward_scal'\. Did you mean reward_scale"):
        made({"kind": "reward_scal"})
    with pytest.raises(UsageError, match=r"option of the fault reward_spike: 'probabilty'\. Did you mean probab"):
        made({"kind": "reward_spike", "probabilty": 1.0})
    with pytest.raises(UsageError, match="unknown agent of the fault reward_scale: 'agent_7'"):
        made({"kind": "reward_scale", "agents": ["agent_7"]})
    with pytest.raises(UsageError, match="from of obs_noise is 5; it must be 0"):
        made({"kind": "obs_noise", "from": 5})
    with pytest.raises(UsageError, match=r"features of obs_scale is \[18\]; it must be from 0 to 17"):
        made({"kind": "obs_scale", "features": [18]})
    with pytest.raises(UsageError, match="bang_bang_optimal needs continuous actions"):
        made({"kind": "bang_bang_optimal"})
    with pytest.raises(UsageError, match="each fault must be"):
        made({"dose": 1.0})
    with pytest.raises(UsageError, match="from of reward_zero is -1"):
        made({"kind": "reward_zero", "from": -1})
    with pytest.raises(UsageError, match="unknown environment"):
        distorted(2, CPU, "particle/simple_sprea")


def test_every_kind_is_in_a_condition_with_a_cause() -> None:
    kinds = {fault["kind"] for entry in FAULTS.values() for fault in entry.faults}
    assert kinds == set(KINDS)
    assert FAULTS["clean"].cause == NONE
    for fault in FAULTS.values():
        assert list(fault.doses) == sorted(fault.doses, reverse=fault.doses[:1] > fault.doses[-1:])


def test_a_training_with_faults_goes_on_and_its_true_return_is_measured(
    tmp_path: Path, quick_measurements: None
) -> None:
    faults = [{"kind": "reward_offset", "dose": 1000.0}, {"kind": "obs_noise", "dose": 2}, {"kind": "dying_agents"}]
    kwargs = {"env": SPREAD, "env_kwargs": SHORT, "faults": faults}
    flags: dict[str, Any] = {"env": "benchmarks.faults:distorted", "env__kwargs": kwargs, "env__num_envs": 8}
    flags |= {"algo__batch_size": 48, "algo__num_minibatches": 2, "algo__lr_schedule": "constant", "eval_episodes": 8}
    run = ms.train(total_steps=96, run_dir=str(tmp_path / "run"), quiet=True, **flags)
    assert run.status == "finished"
    assert run.returns[-1][1] > 1000
    found = evaluate(run.path, "benchmarks.faults:distorted", kwargs | {"score": True}, episodes=8, checkpoint="last")
    assert -50 < found["return"]["mean"] < 0
    longer = resume(run.path, total_steps=192, quiet=True)
    whole = ms.train(total_steps=192, run_dir=str(tmp_path / "whole"), quiet=True, **flags)
    assert longer.returns[-1] == whole.returns[-1]


def test_bounds_are_at_minus_one_and_one() -> None:
    box = Box((0.0, -2.0), (1.0, 2.0))
    found = canonical(box, torch.tensor([[[0.0, -2.0], [0.5, 0.0], [1.0, 2.0]]]))
    assert torch.equal(found, torch.tensor([[[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0]]]))
