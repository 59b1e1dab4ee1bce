"""MAPPO and IPPO around their losses: who sees what, which rows count, when an update ends, what is saved."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from marl_stable.agents.config import MAPPOConfig
from marl_stable.agents.mappo import MAPPO
from marl_stable.agents.ppo import Batch, policy_loss
from marl_stable.agents.ppo_learner import Learned, PPOLearner
from marl_stable.config import NetworkConfig
from marl_stable.envs.particle import ParticleEnv, make
from marl_stable.envs.probe import Relay
from marl_stable.types import Box, Discrete, EnvSpec, Group, PerGroup, Step
from tests.agents.loops import CPU, assert_same, collect, copied, make_agent, through_a_file, train, update
from tests.envs.fakes import Unsaved

SMALL = NetworkConfig(hidden=(16,))
TWO_GROUPS, ONE_GROUP = "simple_speaker_listener_v4", "simple_spread_v3"


def begun(
    name: str = ONE_GROUP, algo: str = "mappo", continuous: bool = False, **settings: Any
) -> tuple[MAPPO, ParticleEnv, PerGroup]:
    """An agent, its environment and the first observations."""
    env = make(name, 8, CPU, continuous_actions=continuous, max_cycles=6)
    small: dict[str, Any] = {"batch_size": 160, "update_epochs": 2, "network": SMALL}
    agent = make_agent(env, algo, **(small | settings))
    obs = env.reset(1)
    agent.initialize_statistics(obs)
    return agent, env, obs


def filled(*args: Any, **settings: Any) -> tuple[MAPPO, ParticleEnv, PerGroup]:
    """The same with a full batch, after two iterations that moved normalisers and weights."""
    agent, env, obs = begun(*args, **settings)
    obs = train(agent, env, obs, 2)
    obs, _ = collect(agent, env, obs)
    return agent, env, obs


def spied(agent: MAPPO, monkeypatch: pytest.MonkeyPatch, look: Callable[[PPOLearner, Batch], Any]) -> list[Any]:
    """What `look` sees before every step of every group."""
    seen: list[Any] = []
    learn = PPOLearner.learn

    def watched(self: PPOLearner, batch: Batch, scale: float, entropy_scale: float) -> Learned:
        seen.append(look(self, batch))
        return learn(self, batch, scale, entropy_scale)

    monkeypatch.setattr(PPOLearner, "learn", watched)
    return seen


@pytest.mark.parametrize("settings", [{}, {"squash": False}, {"log_std_init": -2.0}, {"share": False}])
def test_box_actions_are_explored_with_the_deviation_that_is_asked_for(settings: dict[str, Any]):
    agent, _, _ = begun(continuous=True, **settings)
    expected = settings.get("log_std_init", MAPPOConfig().log_std_init)
    for learner in agent.learners.values():
        policy = learner.actor(torch.zeros(2, len(learner.group.agents), learner.group.obs_size))
        torch.testing.assert_close(policy.log_std, torch.full_like(policy.mean, expected))


# ---- who sees what


@pytest.mark.parametrize("name", [ONE_GROUP, TWO_GROUPS])
def test_the_central_critic_sees_every_agent_of_every_group(name: str):
    agent, _, _ = filled(name)
    batches, _ = agent._batches()
    for group, learner in agent.learners.items():
        joint = batches[group].critic_input
        torch.testing.assert_close(joint, torch.cat([rows.obs.flatten(1) for rows in batches.values()], -1))
        joint = joint.clone().requires_grad_()
        value = learner.critic(joint)
        for a in range(value.shape[1]):
            (gradient,) = torch.autograd.grad(value[:, a].sum(), joint, retain_graph=True)
            start = 0
            for other in batches.values():
                for _ in range(other.obs.shape[1]):
                    own = gradient[:, start : start + other.obs.shape[2]]
                    assert own.abs().sum() > 0
                    start += other.obs.shape[2]
            assert start == joint.shape[1]


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("name", [ONE_GROUP, TWO_GROUPS])
def test_an_independent_critic_sees_its_own_agent_alone(name: str, share: bool):
    agent, _, _ = filled(name, "ippo", share=share)
    batches, _ = agent._batches()
    for group, learner in agent.learners.items():
        own = batches[group].critic_input.clone().requires_grad_()
        assert torch.equal(own, batches[group].obs)
        value = learner.critic(own)
        for a in range(value.shape[1]):
            (gradient,) = torch.autograd.grad(value[:, a].sum(), own, retain_graph=True)
            others = [i for i in range(value.shape[1]) if i != a]
            assert gradient[:, a].abs().sum() > 0
            assert gradient[:, others].eq(0).all()


@pytest.mark.parametrize("algo", ["mappo", "ippo"])
def test_actors_act_on_their_own_observations(algo: str):
    agent, _, obs = filled(TWO_GROUPS, algo)
    before = agent.policy(obs)["speaker"].log_prob(torch.zeros(8, 1, dtype=torch.int64))
    elsewhere = obs | {"listener": obs["listener"] + 1}
    assert torch.equal(agent.policy(elsewhere)["speaker"].log_prob(torch.zeros(8, 1, dtype=torch.int64)), before)


# ---- advantages of a whole batch


class Patchwork(Unsaved):
    """Two agents whose every observation is a number of its own, and who end by themselves: one dies early, a copy is
    cut off or truly ends at random. What they really saw at an end is told apart from what comes next.
    """

    def __init__(self, copies: int = 5) -> None:
        group = Group("g", ("a", "b"), 1, Discrete(2), "t")
        self.spec, self.num_envs, self.device = EnvSpec("patchwork", ("a", "b"), (group,)), copies, CPU
        self.replay_differs: tuple[int, ...] = ()

    def reset(self, seed: int) -> PerGroup:
        self.draw = torch.Generator().manual_seed(seed)
        self.alive = torch.ones(self.num_envs, 2, dtype=torch.bool)
        return {"g": self.random(self.num_envs, 2, 1)}

    def random(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.draw)

    def step(self, action: PerGroup) -> Step:
        copies, alive = self.num_envs, self.alive
        led_to = self.random(copies, 2, 1)
        over, cut = self.random(copies) < 0.2, self.random(copies) < 0.5
        dies = (self.random(copies) < 0.2) & ~over
        terminated = alive & (over & ~cut).unsqueeze(1)
        terminated[:, 0] |= alive[:, 0] & dies
        truncated = alive & (over & cut).unsqueeze(1)
        self.alive = (alive & ~terminated) | over.unsqueeze(1)
        obs = torch.where(over.reshape(-1, 1, 1), self.random(copies, 2, 1), led_to)
        reward = self.random(copies, 2) * alive
        following = {"g": obs}
        next_obs = {"g": led_to} if over.any() else following
        return Step(following, next_obs, {"g": reward}, {"g": terminated}, {"g": truncated}, {"g": alive}, over)


@pytest.mark.parametrize("normalize_value", [False, True])
@pytest.mark.parametrize("algo", ["mappo", "ippo"])
def test_advantages_and_targets_equal_a_loop_over_what_really_followed(algo: str, normalize_value: bool):
    env = Patchwork()
    off = {"normalize_obs": False, "normalize_advantage": False, "normalize_value": normalize_value}
    agent = make_agent(env, algo, batch_size=200, gamma=0.9, gae_lambda=0.8, **off)
    first = env.reset(3)
    _, steps = collect(agent, env, first)
    learner = agent.learners["g"]
    units = learner.value_norm
    units.update(torch.rand(100, 2) * 7 + 3)

    @torch.no_grad()
    def value(obs: Tensor) -> Tensor:  # (E, A), in units of reward
        normal: Tensor = learner.critic(obs.flatten(1) if algo == "mappo" else obs)
        return units.inverse(normal) if normalize_value else normal

    seen = [first["g"]] + [step.obs["g"] for step in steps]
    values = [value(obs) for obs in seen]
    follows = [value(step.next_obs["g"]) for step in steps]

    def advantage(t: int, e: int, a: int) -> float:
        total, weight = 0.0, 1.0
        for k in range(t, len(steps)):
            terminated, truncated = steps[k].terminated["g"][e, a], steps[k].truncated["g"][e, a]
            after = 0.0 if terminated else float(follows[k][e, a])
            total += weight * (float(steps[k].reward["g"][e, a]) + 0.9 * after - float(values[k][e, a]))
            if terminated or truncated:
                break
            weight *= 0.9 * 0.8
        return total

    rows = agent._batches()[0]["g"]
    kinds = {"terminated": 0, "truncated": 0, "dead": 0}
    for t, step in enumerate(steps):
        kinds["terminated"] += int(step.terminated["g"].sum())
        kinds["truncated"] += int(step.truncated["g"].sum())
        kinds["dead"] += int((~step.alive["g"]).sum())
        for e in range(5):
            for a in range(2):
                row = t * 5 + e
                assert bool(rows.alive[row, a]) is bool(step.alive["g"][e, a])
                if rows.alive[row, a] == 0:
                    continue
                expected = advantage(t, e, a)
                assert float(rows.advantage[row, a]) == pytest.approx(expected, abs=1e-5)
                target = torch.full((1, 2), expected + float(values[t][e, a]))
                target = units(target) if normalize_value else target  # in the units that the critic now learns
                assert float(rows.target[row, a]) == pytest.approx(float(target[0, a]), abs=1e-4)
    assert min(kinds.values()) > 10


def test_explained_variance_is_judged_by_returns_that_are_known():
    env = Patchwork()
    agent = make_agent(env, batch_size=500, gamma=0.9, gae_lambda=0.5, normalize_obs=False, normalize_value=False)
    _, steps = collect(agent, env, env.reset(4))
    learner = agent.learners["g"]
    value = env.random(len(steps) + 1, 5, 2)
    ends = [torch.where(steps[t].done[:, None], env.random(5, 2), value[t + 1]) for t in learner.rollout.final_obs]
    final = torch.stack(ends)  # where a copy goes on, what it saw is what it acts on next
    learner.critic.forward = lambda _: torch.cat([value, final]).flatten(0, 1)  # type: ignore[method-assign]
    row_of = {t: row for row, t in enumerate(learner.rollout.final_obs)}

    def discounted(t: int, e: int, a: int) -> float | None:
        """The sum of rewards to the episode's end, and there what a time limit cuts off; none where no end is seen."""
        total = 0.0
        for k in range(t, len(steps)):
            total += 0.9 ** (k - t) * float(steps[k].reward["g"][e, a])
            if steps[k].terminated["g"][e, a]:
                return total
            if steps[k].truncated["g"][e, a]:
                return total + 0.9 ** (k - t + 1) * float(final[row_of[k], e, a])
        return None

    explained = []
    for a in range(2):
        places = [(t, e) for t in range(len(steps)) for e in range(5) if steps[t].alive["g"][e, a]]
        pairs = [(discounted(t, e, a), float(value[t, e, a])) for t, e in places]
        known = torch.tensor([pair for pair in pairs if pair[0] is not None], dtype=torch.float64)
        assert 0 < len(known) < len(pairs)
        explained.append(1 - float((known[:, 0] - known[:, 1]).var() / known[:, 0].var()))
    _, stats = agent._batches()
    assert float(stats["losses/explained_variance"]["g"]) == pytest.approx(sum(explained) / 2, abs=1e-4)


# ---- old and new probabilities


@pytest.mark.parametrize("algo", ["mappo", "ippo"])
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("continuous", [False, True])
def test_the_first_minibatch_of_every_iteration_has_ratio_one(
    algo: str, share: bool, continuous: bool, monkeypatch: pytest.MonkeyPatch
):
    agent, env, obs = begun(TWO_GROUPS, algo, continuous, share=share, normalize_reward=True, update_epochs=1, lr=0.01)

    def deviation(learner: PPOLearner, batch: Batch) -> float:
        log_ratio = learner.actor(batch.obs).log_prob(batch.action).detach() - batch.log_prob
        return float((log_ratio.exp() - 1).abs().max())

    seen = spied(agent, monkeypatch, deviation)
    divisors = []
    for _ in range(4):
        seen.clear()
        divisors.append(agent.learners["listener"].obs_norm.divisor.clone())
        obs = train(agent, env, obs, 1)
        assert len(seen) == 4  # two groups, two minibatches
        assert max(seen[:2]) < 1e-4
        assert min(seen[2:]) > 1e-4  # or the first would prove nothing
    assert not any(torch.equal(one, other) for one, other in pairwise(divisors))


# ---- which rows, how many steps


def joined(parts: list[list[float]]) -> list[float]:
    return [value for part in parts for value in part]


def test_every_epoch_learns_from_every_row_once(monkeypatch: pytest.MonkeyPatch):
    agent, _, _ = filled(TWO_GROUPS, num_minibatches=3, update_epochs=2)
    seen = spied(agent, monkeypatch, lambda learner, batch: (learner.group.name, batch.log_prob.flatten().tolist()))
    everything = {name: sorted(x.rollout.log_prob.flatten().tolist()) for name, x in agent.learners.items()}
    update(agent)
    assert len(seen) == 2 * 2 * 3
    orders: list[list[float]] = []
    for name in agent.learners:
        parts = [values for group, values in seen if group == name]
        for epoch in (parts[:3], parts[3:]):
            assert max(map(len, epoch)) - min(map(len, epoch)) <= 1
            assert sorted(joined(epoch)) == everything[name]
            orders.append(joined(epoch))
    assert orders[0] != orders[1]


def test_more_minibatches_than_rows_are_one_row_each(monkeypatch: pytest.MonkeyPatch):
    env = make(ONE_GROUP, 2, CPU)
    agent = make_agent(env, batch_size=3, num_minibatches=3, update_epochs=1)
    collect(agent, env, env.reset(1))
    seen = spied(agent, monkeypatch, lambda _, batch: len(batch.obs))
    update(agent)
    assert seen == [1, 1]  # of three steps asked for, two copies give one each


@pytest.mark.parametrize("name", [ONE_GROUP, TWO_GROUPS])
def test_the_kl_stop_ends_all_epochs_and_not_only_the_inner_loop(name: str, monkeypatch: pytest.MonkeyPatch):
    groups = 1 if name == ONE_GROUP else 2
    counts = {}
    for target in (None, 1e9, 1e-9):
        agent, _, _ = filled(name, target_kl=target, num_minibatches=4, update_epochs=5)
        with monkeypatch.context() as patch:
            seen = spied(agent, patch, lambda *_: 1)
            update(agent)
        counts[target] = len(seen) // groups
    assert counts == {None: 20, 1e9: 20, 1e-9: 4}


def test_the_kl_stop_comes_once_the_policy_has_moved_that_far(monkeypatch: pytest.MonkeyPatch):
    free, _, _ = filled(num_minibatches=2, update_epochs=6, lr=5e-3)
    divergences: list[float] = []
    told = PPOLearner.told

    def watched(self: PPOLearner, steps: list[Learned]) -> list[dict[str, Tensor]]:
        figures = told(self, steps)
        divergences.extend(float(step["losses/approx_kl"]) for step in figures)
        return figures

    with monkeypatch.context() as patch:
        patch.setattr(PPOLearner, "told", watched)
        update(free)
    by_epoch = [sum(divergences[i : i + 2]) / 2 for i in range(0, 12, 2)]
    target = (by_epoch[2] + by_epoch[3]) / 2
    assert by_epoch[2] < target < by_epoch[3]
    agent, _, _ = filled(num_minibatches=2, update_epochs=6, lr=5e-3, target_kl=target)
    seen = spied(agent, monkeypatch, lambda *_: 1)
    update(agent)
    assert len(seen) == 2 * 4


# ---- interruption


@pytest.mark.parametrize("name", [ONE_GROUP, TWO_GROUPS])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_an_interrupted_update_leaves_no_trace_and_can_be_repeated(name: str, after: int):
    settings = {"normalize_reward": True, "share": False, "lr_schedule": "kl"}
    agent, env, obs = filled(name, **settings)
    twin, env_of_twin, obs_of_twin = filled(name, **settings)
    before = copied(agent.state_dict())
    calls = iter(range(1000))
    assert agent.update(0.5, lambda: next(calls) >= after) is None
    assert_same(agent.state_dict(), before)
    assert agent.ready()
    assert_same(update(agent, 0.5), update(twin, 0.5))
    train(agent, env, obs, 1)
    train(twin, env_of_twin, obs_of_twin, 1)
    assert_same(agent.state_dict(), twin.state_dict())


# ---- schedules


@pytest.mark.parametrize(
    ("schedule", "progress", "factor"),
    [
        ("constant", 0.9, 1.0),
        ("linear", 0.0, 1.0),
        ("linear", 0.25, 0.75),
        ("linear", 1.0, 0.0),
        ("linear", 1.2, 0.0),
        ("cosine", 0.0, 1.0),
        ("cosine", 1 / 3, 0.75),
        ("cosine", 1.0, 0.0),
    ],
)
def test_schedules_of_the_step_size(schedule: str, progress: float, factor: float, monkeypatch: pytest.MonkeyPatch):
    agent, _, _ = filled(lr_schedule=schedule, actor_lr=1e-3, critic_lr=4e-3, entropy_coef=0.0)
    learner = agent.learners["agent"]
    taken = {}
    for network in ("actor", "critic"):
        optimizer = getattr(learner, f"{network}_optimizer")
        step = optimizer.move

        def watched(loss: Tensor, lr: float, network: str = network, step: Any = step) -> Any:
            taken[network] = lr
            return step(loss, lr)

        monkeypatch.setattr(optimizer, "move", watched)
    update(agent, progress)
    assert taken == pytest.approx({"actor": factor * 1e-3, "critic": factor * 4e-3}, abs=1e-9)


def test_a_decay_takes_the_entropy_bonus_down_as_well(monkeypatch: pytest.MonkeyPatch):
    used: list[float] = []

    def watched(policy: Any, batch: Any, clip_coef: float, entropy_coef: float, *rest: Any) -> Any:
        used.append(entropy_coef)
        return policy_loss(policy, batch, clip_coef, entropy_coef, *rest)

    for schedule, expected in (("linear", 0.01), ("constant", 0.04), ("kl", 0.04)):
        agent, _, _ = filled(lr_schedule=schedule, entropy_coef=0.04)
        with monkeypatch.context() as patch:
            patch.setattr("marl_stable.agents.ppo_learner.policy_loss", watched)
            used.clear()
            update(agent, 0.75)
        assert used == pytest.approx([expected] * 4)


def test_the_kl_schedule_halves_and_raises_the_step_size_within_its_bounds():
    agent, _, _ = begun(lr_schedule="kl", target_kl=0.02)

    def after(divergence: float) -> float:
        agent._adapt_to_kl({"losses/approx_kl": {"agent": torch.tensor(divergence), "other": torch.tensor(0.0)}})
        return agent.kl_scale

    assert [after(0.05), after(0.05), after(0.03), after(0.011)] == [0.5, 0.25, 0.25, 0.25]
    assert after(0.001) == 0.375
    for _ in range(20):
        after(1.0)
    assert agent.kl_scale == pytest.approx(1 / 30)
    for _ in range(30):
        after(0.0)
    assert agent.kl_scale == 1.0
    assert agent._schedule(0.9) == (1.0, 1.0)
    agent.kl_scale = 0.5
    assert agent._schedule(0.9) == (0.5, 1.0)


# ---- state


@pytest.mark.parametrize("algo", ["mappo", "ippo"])
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("continuous", [False, True])
def test_state_in_the_middle_of_a_batch_goes_on_bit_for_bit(algo: str, share: bool, continuous: bool):
    settings = {"share": share, "normalize_reward": True, "lr_schedule": "kl", "target_kl": 1e-6}
    agent, env, obs = begun(TWO_GROUPS, algo, continuous, **settings)
    obs = train(agent, env, obs, 3)
    assert agent.kl_scale < 1
    for _ in range(8):  # past the end of an episode, whose final observations wait in the batch
        step = env.step(agent.act(obs))
        agent.observe(step)
        obs = step.obs
    state = through_a_file({"agent": agent.state_dict(), "env": env.state_dict()})
    fresh, fresh_env, _ = begun(TWO_GROUPS, algo, continuous, seed=9, **settings)
    fresh.load_state_dict(state["agent"])
    fresh_obs = fresh_env.load_state_dict(state["env"])
    assert_same(fresh.state_dict(), agent.state_dict())
    train(agent, env, obs, 2)
    train(fresh, fresh_env, fresh_obs, 2)
    assert_same(fresh.state_dict(), agent.state_dict())


def test_a_loaded_state_is_not_changed_by_going_on():
    agent, env, obs = filled()
    state = copied(agent.state_dict())
    kept = copied(state)
    agent.load_state_dict(state)
    update(agent)
    train(agent, env, obs, 1)
    assert_same(state, kept)


def test_a_state_of_before_drift_was_followed_can_be_gone_on_from():
    agent, _, _ = filled(TWO_GROUPS)
    fresh, _, _ = begun(TWO_GROUPS, seed=5)
    state = copied(agent.state_dict())
    for learner in state["learning"]["groups"].values():
        del learner["beginnings"]
    fresh.load_state_dict(state)
    for name, learner in fresh.learners.items():
        assert torch.equal(learner.obs_norm.mean, agent.learners[name].obs_norm.mean)
        assert not learner.beginnings.count.any()


def test_the_policys_state_is_enough_to_act():
    agent, _, obs = filled(TWO_GROUPS, continuous=True)
    fresh, _, _ = begun(TWO_GROUPS, continuous=True, seed=5)
    fresh.load_policy_state(copied(agent.policy_state()))
    for name, policy in agent.policy(obs).items():
        assert torch.equal(policy.mode(), fresh.policy(obs)[name].mode())


# ---- groups, agents and refusals


def test_both_groups_of_a_two_group_task_learn():
    agent, env, obs = begun(TWO_GROUPS)
    before = {name: copied(learner.state_dict()) for name, learner in agent.learners.items()}
    train(agent, env, obs, 2)
    for name, learner in agent.learners.items():
        for network in ("actor", "critic"):
            now = getattr(learner, network).state_dict()
            assert not any(torch.equal(now[key], before[name][network][key]) for key in now)
            assert all(value.isfinite().all() for value in now.values())


@pytest.mark.parametrize("continuous", [False, True])
def test_actions_are_in_the_environments_units_and_stored_raw(continuous: bool):
    agent, env, obs = begun(TWO_GROUPS, continuous=continuous)
    actions = agent.act(obs)
    for group in env.spec.groups:
        learner = agent.learners[group.name]
        assert torch.equal(learner.actor.to_env(learner.rollout.action[0]), actions[group.name])
        if isinstance(group.action, Box):
            assert actions[group.name].ge(0).all()
            assert actions[group.name].le(1).all()
            assert learner.rollout.action[0].lt(0).any()
        policy = agent.policy(obs)[group.name]
        torch.testing.assert_close(learner.rollout.log_prob[0], policy.log_prob(learner.rollout.action[0]))


def spoil(agent: MAPPO, agents: list[int]) -> None:
    """Make these agents' observations of one step not a number."""
    agent.learners["agent"].rollout.obs[3, :, agents] = torch.nan


@pytest.mark.parametrize("normalize_advantage", [True, False])
def test_a_bad_observation_stops_its_own_agent_only_where_nothing_is_shared(normalize_advantage: bool):
    settings = {"share": False, "num_minibatches": 1, "update_epochs": 1, "normalize_advantage": normalize_advantage}
    hit, _, _ = filled(algo="ippo", **settings)
    plain, _, _ = filled(algo="ippo", **settings)
    before = {name: p.clone() for name, p in hit.learners["agent"].actor.named_parameters()}
    spoil(hit, [1])
    stats = update(hit)
    update(plain)
    for network in ("actor", "critic"):
        assert stats[f"non_finite/{network}"]["agent"].tolist() == [0, 1, 0]
    undisturbed = dict(plain.learners["agent"].actor.named_parameters())
    for name, p in hit.learners["agent"].actor.named_parameters():
        assert torch.equal(p[1], before[name][1])
        for other in (0, 2):
            assert not torch.equal(p[other], before[name][other])
            if not normalize_advantage:  # its scale is the whole group's
                assert torch.equal(p[other], undisturbed[name][other])


@pytest.mark.parametrize("algo", ["mappo", "ippo"])
def test_with_shared_networks_bad_updates_are_refused_and_nothing_breaks(algo: str):
    agent, env, obs = filled(algo=algo)
    before = copied(agent.learners["agent"].actor.state_dict())
    spoil(agent, [0])
    agent.learners["agent"].rollout.reward[5] = torch.inf
    stats = update(agent)
    assert float(stats["non_finite/actor"]["agent"]) > 0
    now = agent.learners["agent"].state_dict()
    for part in ("actor", "critic", "obs_norm", "value_norm"):
        assert all(value.isfinite().all() for value in now[part].values())
    obs = train(agent, env, obs, 1)
    after = agent.learners["agent"].actor.state_dict()
    assert not any(torch.equal(after[key], before[key]) for key in after)


def test_where_the_guard_is_off_nothing_is_refused():
    agent, _, _ = filled(refuse=False)
    spoil(agent, [0])
    stats = update(agent)
    assert float(stats["non_finite/actor"]["agent"]) > 0
    assert any(value.isnan().any() for value in agent.learners["agent"].actor.state_dict().values())


# ---- measures


@pytest.mark.parametrize("ends", [False, True])
def test_the_critic_begins_at_the_value_of_the_median_reward(ends: bool):
    """Without ends 7 for ever is worth 7 / (1 - gamma); with an end at every fifth step 7 / (1 - 0.8 gamma)."""
    agent, env, obs = begun(gamma=0.9)
    collect(agent, env, obs)
    learner = agent.learners["agent"]
    learner.rollout.reward.fill_(7.0)
    learner.rollout.reward[0, 0] = 1e6  # one odd reward is none to begin with
    learner.rollout.terminated.fill_(False)
    learner.rollout.terminated[::5] = ends
    learner._expect_values(learner.rollout.reward)
    share = 0.8 if ends else 1.0
    torch.testing.assert_close(learner.value_norm.offset, torch.full((3,), 7 / (1 - 0.9 * share)))


def test_an_offset_of_the_reward_changes_nothing_from_the_first_update_on():
    found = []
    for offset in (0.0, 1000.0):
        agent, env, obs = begun(gamma=0.9)
        collect(agent, env, obs)
        agent.learners["agent"].rollout.reward.add_(offset)
        batches, _ = agent._batches()
        found.append(batches["agent"])
    torch.testing.assert_close(found[1].advantage, found[0].advantage, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(found[1].target, found[0].target, rtol=1e-2, atol=1e-2)


def test_scaled_rewards_are_divided_and_not_centred():
    agent, _, _ = begun(normalize_reward=True)
    learner = agent.learners["agent"]
    draw = torch.Generator().manual_seed(0)
    learner.rollout.reward.copy_(100 * torch.randn(learner.rollout.reward.shape, generator=draw) + 300)
    learner.rollout.alive.fill_(True)
    raw = learner.rollout.reward.clone()
    scaled = learner._scaled_reward()
    torch.testing.assert_close(scaled, raw / learner.reward_norm.divisor)
    assert float(scaled.std()) == pytest.approx(1, abs=0.05)
    assert torch.equal(learner.rollout.reward, raw)


def test_without_measures_critics_see_raw_observations_and_learn_raw_returns():
    agent, _, _ = begun(normalize_obs=False, normalize_value=False, normalize_advantage=False)
    env = make(ONE_GROUP, 8, CPU)
    _, steps = collect(agent, env, env.reset(1))
    rows = agent._batches()[0]["agent"]
    assert torch.equal(rows.obs[8:], torch.stack([step.obs["agent"] for step in steps[:-1]]).flatten(0, 1))
    assert float(rows.target.mean()) < -3  # sums of distances, far from deviations


def test_networks_are_built_as_configured():
    agent, _, _ = begun(network=NetworkConfig(hidden=(8,), norm="none"), share=False)
    learner = agent.learners["agent"]
    shapes = [tuple(p.shape) for p in learner.actor.parameters()]
    assert shapes == [(3, 18, 8), (3, 1, 8), (3, 8, 5), (3, 1, 5)]
    assert [tuple(p.shape) for p in learner.critic.parameters()] == [(54, 8), (8,), (8, 3), (3,)]


def test_the_seed_decides_everything():
    ends = []
    for seed in (1, 1, 2):
        agent, env, obs = begun(TWO_GROUPS, seed=seed)
        train(agent, env, obs, 1)
        ends.append(copied(agent.state_dict()))
    assert_same(ends[0], ends[1])
    assert not torch.equal(ends[0]["rollouts"]["listener"]["action"], ends[2]["rollouts"]["listener"]["action"])


# ---- being watched


@pytest.mark.parametrize("continuous", [False, True])
def test_signals_of_actions_come_agent_by_agent(continuous: bool):
    agent, _, _ = filled(TWO_GROUPS, continuous=continuous)
    signals = agent.signals(False)
    names = ("actions/saturation", "actions/repeat_ratio", "actions/responsiveness", "sameness")
    for groups in (signals[name] for name in names):
        assert {name: value.shape for name, value in groups.items()} == {"speaker": (1,), "listener": (1,)}
        assert all(value.isfinite().all() for value in groups.values())
    counts = agent.action_counts()
    dimensions = {"speaker_0": 3, "listener_0": 5} if continuous else {"speaker_0": 1, "listener_0": 1}
    assert counts.keys() == {f"{name}/{d}" for name, size in dimensions.items() for d in range(size)}
    rows = agent.rollout_steps * agent.num_envs
    assert all(int(value.sum()) == rows for value in counts.values())


def test_greedy_actions_that_never_change_are_the_same():
    agent, _, _ = begun(TWO_GROUPS)
    still, varied = torch.zeros(20, 16, 1, dtype=torch.int64), torch.arange(320).reshape(20, 16, 1)
    same = agent.sameness({"speaker": still, "listener": varied % 5})["sameness"]
    assert float(same["speaker"]) == 1.0
    assert float(same["listener"]) == pytest.approx(0.2)


def test_a_step_that_is_left_out_is_no_lesson_for_those_before():
    """What is stored as its reward stands for one that was no number, or that a crash has taken."""
    agent, _, _ = filled(normalize_advantage=False, normalize_value=False)
    (learner,) = agent.learners.values()
    learner.rollout.alive[3, 0, 1] = False
    found = []
    for reward in (0.0, 1e3):
        learner.rollout.reward[3, 0, 1] = reward
        batches, _ = agent._batches()
        found.append(batches["agent"])
    assert learner.rollout.reward.abs().max() == 1e3
    torch.testing.assert_close(found[0].advantage, found[1].advantage)
    torch.testing.assert_close(found[0].target, found[1].target)


def test_the_last_step_before_an_agents_death_keeps_its_reward():
    agent, _, _ = filled(normalize_advantage=False, normalize_value=False)
    (learner,) = agent.learners.values()
    r = learner.rollout
    r.ended[:3, 0, 1] = False
    r.terminated[3, 0, 1] = r.ended[3, 0, 1] = True
    r.alive[4:, 0, 1] = False
    found = []
    for reward in (0.0, 10.0):
        r.reward[3, 0, 1], r.reward[4:, 0, 1] = reward, -1e3 * reward
        found.append(agent._batches()[0]["agent"].advantage.unflatten(0, r.reward.shape[:2])[:5, 0, 1])
    assert isinstance(learner.config.gamma, float)
    fading = learner.config.gamma * learner.config.gae_lambda
    torch.testing.assert_close(found[1] - found[0], torch.tensor([10 * fading**k for k in (3, 2, 1, 0)] + [0.0]))


def test_statistics_begin_with_who_was_there():
    obs = {"agent": 100 + torch.randn(400, 3, 18, generator=torch.Generator().manual_seed(1))}
    alive = {"agent": torch.ones(400, 3)}
    obs["agent"][20:, 1:], alive["agent"][20:, 1:] = 0, 0  # gone after a twentieth of the time
    fresh = make_agent(make(ONE_GROUP, 8, CPU), "mappo", network=SMALL)
    fresh.initialize_statistics(obs, alive)
    norm = fresh.learners["agent"].obs_norm
    torch.testing.assert_close(norm.offset, torch.full((18,), 100.0), atol=0.3, rtol=0)
    torch.testing.assert_close(norm.divisor, torch.ones(18), atol=0.2, rtol=0)


def test_rewards_are_scaled_by_what_turns_earn_and_not_by_what_is_paid_in_them():
    agent = make_agent(Relay(8, CPU), normalize_reward=True)
    (learner,) = agent.learners.values()
    draw, r = torch.Generator().manual_seed(1), learner.rollout
    r.alive[::2, :, 0], r.alive[1::2, :, 1] = True, True
    paid = torch.randn(r.reward.shape, generator=draw)  # in the other's turn, and a hundredth of it in one's own
    r.reward.copy_(torch.where(r.alive, 0.01 * paid, paid))
    torch.testing.assert_close(learner._scaled_reward(), r.reward, atol=0.4, rtol=0.1)
    torch.testing.assert_close(learner.reward_norm.divisor, torch.ones(2), atol=0.1, rtol=0)
