"""What agents tell the monitor: the right figures of the right steps, without a trace in the training."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
import torch
from torch import Tensor

from marl_stable.agents import critic_probe
from marl_stable.agents.ddpg import td_target
from marl_stable.agents.maddpg import MADDPG
from marl_stable.agents.mappo import MAPPO
from marl_stable.config import NetworkConfig
from marl_stable.envs.base import BatchedEnv
from marl_stable.envs.particle import make
from marl_stable.envs.probe import Allowed, Endless, Relay
from marl_stable.monitor.table import SIGNALS, signal_of
from marl_stable.types import ActionSpec, Box, Discrete, EnvSpec, Group, MultiDiscrete, PerGroup, Step
from tests.agents.loops import CPU, assert_same, collect, copied, make_agent, make_ddpg, train, update
from tests.agents.test_mappo import Patchwork

SMALL = NetworkConfig(hidden=(16,))
TAG, TWO_GROUPS = "simple_tag_v3", "simple_speaker_listener_v4"
VALUES = ("value_mean", "value_std", "return_mean", "return_std", "explained_variance", "td_scale", "reward_share")
CRITIC = ("action_slope", "slope_agreement", "q_gap", "td_age_ratio")


class Patches(Patchwork):
    """The same with any actions: agents that die early, copies that are cut off or truly end."""

    def __init__(self, action: ActionSpec | None = None, unit: float = 1.0) -> None:
        super().__init__(8)
        group = Group("g", ("a", "b"), 1, action or Discrete(2), "t")
        self.spec, self.unit = EnvSpec("patches", ("a", "b"), (group,)), unit

    def step(self, action: PerGroup) -> Step:
        step = super().step(action)
        return step._replace(reward={"g": step.reward["g"] * self.unit})


def agent_for(env: BatchedEnv, algo: str, **settings: Any) -> MAPPO | MADDPG:
    small: dict[str, Any] = {"batch_size": 160, "update_epochs": 2}
    if algo in ("mappo", "ippo"):
        return make_agent(env, algo, **(small | {"network": SMALL} | settings))
    small = {"train_every": 160, "warm_up": 160, "buffer_size": 400, "batch_size": 64}
    return make_ddpg(env, algo, **(small | {"network": SMALL} | settings))


def trained(env: BatchedEnv, algo: str, **settings: Any) -> MAPPO | MADDPG:
    """After three iterations; a replay has wrapped by then."""
    agent = agent_for(env, algo, **settings)
    train(agent, env, env.reset(1), 3)
    return agent


# ---- all of it


@pytest.mark.parametrize("action", [Discrete(3), MultiDiscrete((3, 2), (0, 0)), Box((-1.0, 0.0), (2.0, 4.0))])
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("algo", ["mappo", "ippo", "maddpg", "matd3", "iddpg"])
def test_every_signal_has_the_axes_of_the_table(algo: str, share: bool, action: ActionSpec):
    agent = trained(Patches(action), algo, share=share)
    found = agent.signals(True)
    names = agent.layer_names()["g"]
    sizes = {"agent": {2}, "row": {1, 2}, "feature": {1}, "dimension": {2}}
    for tag, groups in found.items():
        name, network = signal_of(tag)
        if not tag.startswith("stability/"):
            continue
        axes, shape = SIGNALS[name].axes, groups["g"].shape
        sizes |= {axis: {len(called)} for axis, called in names[network].items()} if network else {}
        shown = axes[: len(shape)]  # discrete actions have no dimensions
        assert len(shape) == len(axes) or "dimension" in axes, tag
        assert all(size in sizes[axis] for size, axis in zip(shape, shown, strict=True)), tag
    known = {signal_of(tag)[0] for tag in found}
    expected = {*VALUES, "infeasible", "diversity", "equal_actions", "feature_importance", "effective_rank", "alive"}
    expected |= set() if algo in ("mappo", "ippo") else {*CRITIC, "data_age"}
    assert expected <= known
    for name in expected:
        tags = [tag for tag in found if signal_of(tag)[0] == name]
        assert all(found[tag]["g"].isfinite().all() for tag in tags), name


@pytest.mark.parametrize("algo", ["mappo", "maddpg"])
@pytest.mark.parametrize("game", [TWO_GROUPS, TAG, Allowed, Relay])
def test_groups_masks_and_turns(game: Any, algo: str):
    env = make(game, 8, CPU, max_cycles=5) if isinstance(game, str) else game(8, CPU)
    found = trained(env, algo).signals(True)
    assert found["stability/value_mean"].keys() == {group.name for group in env.spec.groups}
    for group in env.spec.groups:
        for name in (*VALUES, *(CRITIC if algo == "maddpg" else ())):
            if not (game is Relay and name == "explained_variance"):
                assert found[f"stability/{name}"][group.name].shape == (len(group.agents),), name
        for name in ("value_mean", "return_mean", "return_std", "reward_share"):
            assert found[f"stability/{name}"][group.name].isfinite().all(), name
        alone = len(group.agents) == 1
        assert alone == (group.name not in found.get("stability/diversity", {}))
        assert alone == (group.name not in found.get("stability/equal_actions", {}))


@pytest.mark.parametrize("algo", ["mappo", "maddpg"])
def test_without_the_probe_only_what_is_at_hand(algo: str):
    agent = trained(Patches(), algo)
    cheap, all_of_it = agent.signals(False), agent.signals(True)
    assert cheap.keys() < all_of_it.keys()
    assert {"stability/reward_peak", "stability/obs_peak", "stability/equal_actions", "sameness"} <= cheap.keys()
    assert not {"stability/diversity", "stability/feature_importance", "stability/action_slope"} & cheap.keys()
    assert ("stability/value_mean" in cheap) == (algo == "mappo")


@pytest.mark.parametrize("algo", ["mappo", "matd3"])
def test_being_watched_leaves_no_trace(algo: str):
    ends = []
    for watched in (True, False):
        env = make(TAG, 8, CPU, continuous_actions=True, max_cycles=5)
        agent, obs = agent_for(env, algo), env.reset(1)
        for _ in range(3):
            obs = train(agent, env, obs, 1)
            if watched:
                agent.signals(True)
        ends.append(copied(agent.state_dict()))
    assert_same(ends[0], ends[1])


@pytest.mark.parametrize("algo", ["mappo", "maddpg"])
def test_what_is_remembered_is_part_of_the_state(algo: str):
    env = Patches()
    agent, fresh = trained(env, algo), agent_for(Patches(), algo)
    fresh.load_state_dict(copied(agent.state_dict()))
    history, other = agent.learners["g"].history, fresh.learners["g"].history
    assert history.age.any()
    assert (history.low < history.high).all()
    assert_same(history.state_dict(), other.state_dict())


@pytest.mark.parametrize("algo", ["mappo", "maddpg"])
def test_an_interrupted_update_is_remembered_once(algo: str):
    env = Patches()
    agent = agent_for(env, algo, **({} if algo == "mappo" else {"warm_up": 0}))
    collect(agent, env, env.reset(1))
    before = copied(agent.state_dict())
    assert agent.update(0.0, lambda: True) is None
    assert_same(agent.state_dict(), before)


def test_the_probe_is_asked_less_often_where_updates_are_small():
    env = make("simple_spread_v3", 8, CPU)
    for algo, key in (("mappo", "update_epochs"), ("maddpg", "batch_size")):
        often, seldom = (agent_for(env, algo, **{key: n}).probe_every for n in (400, 4))
        assert 1 <= often < seldom


# ---- what was collected


@pytest.mark.parametrize("algo", ["mappo", "maddpg"])
def test_rewards_and_ends_are_those_of_the_last_steps(algo: str):
    env = Patches()
    agent, obs = agent_for(env, algo), env.reset(1)
    obs = train(agent, env, obs, 2)
    obs, steps = collect(agent, env, obs)
    update(agent)
    found = agent.signals(False)
    for a in range(2):
        rewards = [float(s.reward["g"][e, a]) for s in steps for e in range(8) if s.alive["g"][e, a]]
        assert float(found["stability/reward_mean"]["g"][a]) == pytest.approx(statistics.fmean(rewards), rel=1e-4)
        assert float(found["stability/alive"]["g"][a]) == pytest.approx(len(rewards) / len(steps) / 8)
    terminated = sum(int(s.terminated["g"].sum()) for s in steps)
    ended = sum(int((s.terminated["g"] | s.truncated["g"]).sum()) for s in steps)
    assert float(found["stability/ends_terminated"]["g"]) == pytest.approx(terminated / ended)


# ---- PPO


@pytest.mark.parametrize("recurrent", ["none", "gru"])
@pytest.mark.parametrize("continuous", [False, True])
def test_first_ratios_are_one_and_later_ones_are_not(continuous: bool, recurrent: Any):
    env = make(TAG, 8, CPU, continuous_actions=continuous, max_cycles=5)
    agent, obs = agent_for(env, "mappo", network=NetworkConfig(hidden=(16,), recurrent=recurrent)), env.reset(1)
    obs = train(agent, env, obs, 2)
    collect(agent, env, obs)
    stats = update(agent)
    for group in env.spec.groups:
        shape = (len(group.agents),)
        assert stats["stability/first_ratio"][group.name].shape == shape
        assert stats["stability/first_ratio"][group.name].max() < 1e-4
        assert stats["stability/log_ratio_peak"][group.name].min() > 1e-3
        assert (stats["stability/effective_samples"][group.name] - 1).abs().max() < 0.5
        assert agent.signals(True)["stability/value_mean"][group.name].shape == shape


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_the_weight_of_the_entropy_is_told_beside_the_size_of_advantages(scale: float):
    env = Patches(unit=scale)
    settings = {"entropy_coef": 0.05, "normalize_reward": False, "normalize_value": False, "lr_schedule": "constant"}
    weights = [
        _weight_of_entropy(agent_for(env, "mappo", normalize_advantage=normal, **settings), env)
        for normal in (True, False)
    ]
    assert weights[0] == pytest.approx(0.05, rel=0.2)  # advantages have a deviation of 1
    assert weights[1] == pytest.approx(0.05 / scale, rel=0.9)


def _weight_of_entropy(agent: Any, env: BatchedEnv) -> float:
    collect(agent, env, env.reset(1))
    return float(update(agent)["stability/entropy_weight"]["g"])


@pytest.mark.parametrize("share", [True, False])
def test_targets_are_as_far_behind_as_they_follow_slowly(share: bool):
    still, current = (trained(Patches(), "maddpg", tau=tau, share=share).signals(False) for tau in (1e-9, 1.0))
    usual = trained(Patches(), "maddpg", tau=0.01, share=share).signals(False)
    for network, rows in (("actor", 1 if share else 2), ("critic", 1)):
        gap, change = (f"stability/target_{name}/{network}" for name in ("gap", "change"))
        assert gap in usual
        assert usual[gap]["g"].shape == (rows,)
        assert 0 < usual[gap]["g"].max() < still[gap]["g"].max()
        assert current[gap]["g"].max() == 0
        assert still[change]["g"].max() < 1e-6 < usual[change]["g"].max() < current[change]["g"].max()


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("algo", ["mappo", "maddpg"])
def test_values_are_in_units_of_raw_reward(algo: str, normalize: bool):
    """Which are from 0 to 10,000, at 0.9 discounted: a return has about 5 of them, and so has the critic's guess."""
    env = Patches(unit=1e4)
    settings: dict[str, Any] = {} if algo == "mappo" else {"warm_up": 0, "huber": None}
    agent = agent_for(env, algo, normalize_reward=normalize, gamma=0.9, **settings)
    train(agent, env, env.reset(1), 4)
    found = agent.signals(True)
    for name, low, high in (("return_mean", 5e3, 5e4), ("return_std", 1e3, 5e4)):
        assert found[f"stability/{name}"]["g"].gt(low).all(), name
        assert found[f"stability/{name}"]["g"].lt(high).all(), name
    if normalize or algo == "mappo":  # values are normalised, too, so that a short training suffices
        assert (found["stability/value_mean"]["g"] / found["stability/return_mean"]["g"] - 1).abs().max() < 2
    assert found["stability/infeasible"]["g"].eq(0).all()


# ---- critics of actions


def situation(agent: MADDPG) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(5)
    at = critic_probe.moments(agent.t, agent.slots, agent.num_envs, agent.rollout_steps, generator)
    with torch.no_grad():
        return at, *agent._situation(at.rows, noise=0.0)


@pytest.mark.parametrize("t", [7, 50, 51, 130])
def test_moments_are_where_they_should_be(t: int):
    slots, copies, steps = 50, 6, 20
    at = critic_probe.moments(t, slots, copies, steps, torch.Generator().manual_seed(0))
    filled = min(t, slots)
    age = (t - 1 - at.rows // copies) % slots  # steps since the row was written
    everywhere, old, new, last = at.rows.new_tensor(age.tolist()).split([256, 128, 128, at.window[0] * at.window[1]])
    assert at.rows.min() >= 0
    assert age.max() < filled
    assert len(set(everywhere.tolist())) > 0.9 * filled
    decile = max(1, filled // 10)
    assert set(new.tolist()) == set(range(decile))
    assert set(old.tolist()) == set(range(filled - decile, filled))
    grid = last.unflatten(0, at.window)
    assert grid[:, 0].tolist() == list(range(min(steps, filled)))[::-1]
    assert (grid == grid[:, :1]).all()
    assert (at.rows % copies)[512:].unflatten(0, at.window)[0].tolist() == list(range(copies))


@pytest.mark.parametrize("algo", ["maddpg", "iddpg"])
@pytest.mark.parametrize("normalize", [True, False])
def test_errors_in_raw_units_are_those_of_the_critic(algo: str, normalize: bool):
    """Also behind an end, where rewards are centred: what follows is worth 0 in raw reward."""
    agent = trained(Patches(), algo, normalize_reward=normalize, gamma=0.9)
    assert isinstance(agent, MADDPG)
    x = agent.learners["g"]
    _, drawn, next_action, now, then = situation(agent)
    d = drawn["g"]
    with torch.no_grad():
        q = x.critic(x.critic_input(d.obs, d.action, now))[0]
        next_q = x.target_critic(x.critic_input(d.next_obs, next_action["g"], then))
    error = td_target(d.reward, next_q, d.terminated, 0.9, x.scale.terminal_value()) - q
    ahead = x.scale.raw_value(next_q.amin(0)).masked_fill(d.terminated, 0.0)
    raw = x.scale.raw_reward(d.reward) + 0.9 * ahead - x.scale.raw_value(q)
    assert d.terminated.any()
    torch.testing.assert_close(raw, error * x.scale.unit(), rtol=1e-3, atol=1e-4)


def test_a_critic_is_compared_with_returns_that_go_on_behind_a_time_limit():
    """Reward 1 for ever, seen for a while: returns are what the target critic says of what follows, and not less."""
    env = Endless(8, CPU)
    agent, obs = agent_for(env, "maddpg", normalize_reward=False, lr=1e-2, tau=0.1), env.reset(1)
    train(agent, env, obs, 20)
    found = agent.signals(True)
    best, seen = Endless.value(0.9), float(Endless.length)
    for name in ("return_mean", "value_mean"):
        assert max(seen, 0.6 * best) < float(found[f"stability/{name}"]["agent"]) < 1.2 * best


@pytest.mark.parametrize("spec", [Discrete(3), MultiDiscrete((3, 2), (0, 0))])
def test_each_choice_is_tried_with_all_else_as_it_is(spec: Discrete | MultiDiscrete):
    sizes = (spec.n,) if isinstance(spec, Discrete) else spec.n
    draw = torch.Generator().manual_seed(0)
    chosen = [torch.randint(n, (4, 2), generator=draw) for n in sizes]

    def encoded(choices: list[Tensor]) -> Tensor:
        return torch.cat([torch.eye(n)[c] for c, n in zip(choices, sizes, strict=True)], -1)

    tried = critic_probe.one_changed(encoded(chosen), spec)
    u = 0
    for k, n in enumerate(sizes):
        for choice in range(n):
            other = [torch.full_like(c, choice) if i == k else c for i, c in enumerate(chosen)]
            torch.testing.assert_close(tried[u], encoded(other))
            u += 1
    assert len(tried) == u


@pytest.mark.parametrize("algo", ["maddpg", "iddpg"])
def test_the_slope_of_discrete_actions_is_asked_of_the_critic_choice_by_choice(algo: str):
    agent = trained(Patches(Discrete(3)), algo)
    assert isinstance(agent, MADDPG)
    x, (_, drawn, _, now, _) = agent.learners["g"], situation(agent)
    d = type(drawn["g"])._make(part[:6] for part in drawn["g"])
    seen = type(now)._make(part[:6] for part in now)
    d = d._replace(alive=torch.ones_like(d.alive))
    unit = torch.tensor([2.0, 3.0])
    found = critic_probe._spreads(x, d.action, d, seen, unit)
    for a in range(2):
        halves = []
        for n in range(6):
            worth = []
            for choice in range(3):
                own = d.action.clone()
                own[n, a] = torch.eye(3)[choice]
                with torch.no_grad():
                    worth.append(float(x.value_of_own(own, d, seen)[n, a]))
            halves.append((max(worth) - min(worth)) / 2)
        assert float(found["stability/action_slope"][a]) == pytest.approx(
            statistics.fmean(halves) / float(unit[a]), rel=1e-3
        )


def test_the_age_of_the_replay_is_a_share_of_the_run():
    agent = trained(Patches(), "maddpg")
    assert isinstance(agent, MADDPG)
    assert (agent.t, agent.slots) == (60, 50)
    assert float(agent.signals(False)["stability/data_age"]["g"]) == pytest.approx(24.5 / 60)
