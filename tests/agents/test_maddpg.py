"""MADDPG, MATD3 and IDDPG around their losses: who sees what, equation 5, targets, noise, refusals, what is saved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from marl_stable.agents.ddpg import critic_loss, td_target
from marl_stable.agents.ddpg_learner import DDPGLearner, Drawn, Joint
from marl_stable.agents.maddpg import MADDPG
from marl_stable.agents.mappo import MAPPO
from marl_stable.envs.particle import ParticleEnv, make
from marl_stable.envs.probe import Aim, Match, Relay
from marl_stable.networks.heads import Deterministic
from marl_stable.optim import StepStats
from marl_stable.types import Box, PerGroup
from tests.agents.loops import CPU, assert_same, collect, copied, make_agent, make_ddpg, train, update

TWO_GROUPS, ONE_GROUP, TAG = "simple_speaker_listener_v4", "simple_spread_v3", "simple_tag_v3"
ALGOS = ("maddpg", "matd3", "iddpg")
SMALL: dict[str, Any] = {"batch_size": 32, "train_every": 80, "steps_per_update": 40, "warm_up": 0, "buffer_size": 400}


def begun(
    name: str = TWO_GROUPS, algo: str = "maddpg", continuous: bool = False, **settings: Any
) -> tuple[MADDPG, ParticleEnv, PerGroup]:
    """An agent, its environment and the first observations."""
    env = make(name, 8, CPU, continuous_actions=continuous, max_cycles=6)
    agent = make_ddpg(env, algo, **(SMALL | settings))
    obs = env.reset(1)
    agent.initialize_statistics(obs)
    return agent, env, obs


def filled(*args: Any, rounds: int = 2, **settings: Any) -> tuple[MADDPG, ParticleEnv, PerGroup]:
    """The same with a replay and, after some rounds, normalisers and weights that have moved; a round is due."""
    agent, env, obs = begun(*args, **settings)
    obs = train(agent, env, obs, rounds)
    obs, _ = collect(agent, env, obs)
    return agent, env, obs


def gradients_of(loss: Tensor, learner: DDPGLearner) -> list[Tensor]:
    found = torch.autograd.grad(loss, list(learner.actor.parameters()), allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, learner.actor.parameters(), strict=True)]


@contextmanager
def losses_of(optimizer: Any) -> Iterator[list[Tensor]]:
    """The losses handed to `optimizer`, which then does nothing."""
    seen: list[Tensor] = []
    none = torch.zeros(optimizer.rows)

    def look(loss: Tensor, lr: float) -> StepStats:
        seen.append(loss)
        return StepStats(none, *[none > 0] * 4)

    optimizer.move = look
    yield seen
    del optimizer.move


# ---- the paper's equation 5


def by_the_paper(agent: MADDPG, drawn: dict[str, Drawn], group: str, penalty: float, current: bool = False) -> Tensor:
    """-E[Q_i(x, a_1, ..., mu_i(o_i), ..., a_N)] agent by agent, for all agents of `group`, minus what exploring costs.

    Discrete: the sum over what agent i may do, or with `straight_through` at what it draws. `current`: the wrong
    variant, in which everybody does what they would do now.
    """
    learner = agent.learners[group]
    answers = {name: x.actor(drawn[name].obs) for name, x in agent.learners.items()}
    now = {name: answer.relaxed(torch.Generator().manual_seed(5)) for name, answer in answers.items()}
    if agent.config.discrete_gradient == "straight_through" or isinstance(learner.group.action, Box):
        return _of_actions(agent, drawn, group, now, current) + _cost(agent, drawn, group, penalty)
    probs = answers[group].log_probs.exp()
    total = _cost(agent, drawn, group, penalty)
    for choice in range(probs.shape[-1]):
        done = {name: x.detach() for name, x in now.items()}
        done[group] = torch.eye(probs.shape[-1])[choice].expand(probs.shape)
        total = total + _of_actions(agent, drawn, group, done, current, probs[..., choice])
    return total


def _mean(agent: MADDPG, terms: list[Tensor], alive: Tensor) -> Tensor:
    """Of `(B,)` terms of each agent, over those that lived: one mean where they share, else each its own."""
    if agent.config.share:
        return torch.stack([term * alive[:, i] for i, term in enumerate(terms)]).sum() / alive.sum()
    return torch.stack([(term * alive[:, i]).sum() / alive[:, i].sum() for i, term in enumerate(terms)]).sum()


def _cost(agent: MADDPG, drawn: dict[str, Drawn], group: str, penalty: float) -> Tensor:
    cost = penalty * agent.learners[group].actor(drawn[group].obs).penalty()
    return _mean(agent, list(cost.unbind(1)), drawn[group].alive)


def _of_actions(
    agent: MADDPG, drawn: dict[str, Drawn], group: str, now: PerGroup, current: bool, share: Tensor | None = None
) -> Tensor:
    """Minus the mean of Q_i where agent i does as in `now (B, A, U)`; times `share (B, A)`."""
    learner = agent.learners[group]
    everybody = [(name, a) for name, d in drawn.items() for a in range(d.obs.shape[1])]
    seen = torch.cat([drawn[name].obs[:, a] for name, a in everybody], dim=1)
    alive = drawn[group].alive
    terms = []
    for i in range(alive.shape[1]):
        done = [
            (now if current or (name, a) == (group, i) else {name: drawn[name].action})[name][:, a]
            for name, a in everybody
        ]
        if agent.centralised:
            q = learner.critic.networks[0](torch.cat([seen, *done], dim=1))[:, i]
        else:
            own = torch.cat([drawn[group].obs, drawn[group].action], dim=2).clone()
            own[:, i, drawn[group].obs.shape[2] :] = now[group][:, i]
            q = learner.critic.networks[0](own)[:, i, 0]
        terms.append(q if share is None else q.detach() * share[:, i])
    return -_mean(agent, terms, alive)


@pytest.mark.parametrize("actions", ["expected", "straight_through", "continuous"])
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("name", [TWO_GROUPS, TAG])
@pytest.mark.parametrize("algo", ALGOS)
def test_the_actors_gradient_is_the_papers_agent_by_agent(algo: str, name: str, share: bool, actions: str):
    how: dict[str, Any] = {} if actions == "continuous" else {"discrete_gradient": actions}
    agent, _, _ = filled(name, algo, actions == "continuous", share=share, action_penalty=0.03, **how)
    drawn, _, now, _ = agent._situation(agent._rows(), agent.config.target_noise)
    draw = torch.Generator().manual_seed(7)
    drawn = {
        name: d._replace(alive=(torch.rand(d.alive.shape, generator=draw) < 0.7).float()) for name, d in drawn.items()
    }
    for group, learner in agent.learners.items():
        with losses_of(learner.actor_optimizer) as losses:
            learner.improve_actor(drawn[group], now, 1e-3, torch.Generator().manual_seed(5))
        ours = gradients_of(losses[0], learner)
        for mine, theirs in zip(ours, gradients_of(by_the_paper(agent, drawn, group, 0.03), learner), strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-4)
        assert any(g.abs().max() > 1e-4 for g in ours)
        if algo != "iddpg":
            wrong = gradients_of(by_the_paper(agent, drawn, group, 0.03, current=True), learner)
            assert not all(torch.allclose(mine, w, atol=1e-6, rtol=1e-2) for mine, w in zip(ours, wrong, strict=True))


# ---- critics


@pytest.mark.parametrize("name", [TWO_GROUPS, TAG])
def test_central_critics_see_what_everybody_sees_and_does(name: str):
    agent, _, _ = filled(name)
    drawn, _, now, then = agent._situation(agent._rows(), agent.config.target_noise)
    everybody = [(name, a) for name, d in drawn.items() for a in range(d.obs.shape[1])]
    for joint, obs in ((now, "obs"), (then, "next_obs")):
        seen = torch.cat([getattr(drawn[name], obs)[:, a] for name, a in everybody], dim=1)
        assert torch.equal(joint.obs, seen)
    assert torch.equal(now.action, torch.cat([drawn[name].action[:, a] for name, a in everybody], dim=1))
    for learner in agent.learners.values():
        x = now.seen().requires_grad_()
        q = learner.critic(x)
        for a in range(q.shape[2]):
            (gradient,) = torch.autograd.grad(q[:, :, a].sum(), x, retain_graph=True)
            assert (gradient.abs().sum(0) > 0).float().mean() > 0.9


@pytest.mark.parametrize("share", [True, False])
def test_local_critics_see_their_own_agent_alone(share: bool):
    agent, _, _ = filled(ONE_GROUP, "iddpg", share=share)
    drawn, _, now, _ = agent._situation(agent._rows(), agent.config.target_noise)
    learner, d = agent.learners["agent"], drawn["agent"]
    elsewhere = Joint(now.obs + 1, now.action + 1, now.present)
    before = learner.critic(learner.critic_input(d.obs, d.action, now))
    for a in range(3):
        others = [i for i in range(3) if i != a]
        obs, action = d.obs.clone(), d.action.clone()
        obs[:, others] += 1
        action[:, others] = action[:, others].roll(1, 0)
        after = learner.critic(learner.critic_input(obs, action, elsewhere))
        assert torch.equal(after[..., a], before[..., a])
        assert not torch.equal(after[..., others], before[..., others])


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("algo", ALGOS)
def test_the_critic_goes_to_the_target_that_target_networks_give(algo: str, share: bool):
    agent, _, _ = filled(TAG, algo, share=share)
    drawn, next_action, now, then = agent._situation(agent._rows(), agent.config.target_noise)
    for group, learner in agent.learners.items():
        with losses_of(learner.critic_optimizer) as losses:
            learner.fit_critic(drawn[group], next_action[group], now, then, 1e-3)
        d, a = drawn[group], next_action[group]
        central = algo != "iddpg"
        seen = then.seen() if central else torch.cat([d.next_obs, a], dim=2)
        q = learner.critic(now.seen() if central else torch.cat([d.obs, d.action], dim=2))
        assert len(q) == (2 if algo == "matd3" else 1)
        target = td_target(d.reward, learner.target_critic(seen), d.terminated, 0.9, learner.scale.terminal_value())
        expected = critic_loss(q, target, d.alive, 1.0, central or share)
        torch.testing.assert_close(losses[0], expected)
        assert not torch.equal(learner.target_critic(seen), learner.critic(seen))


def test_what_target_actors_do_next_is_smoothed_where_asked():
    plain, _, _ = filled(TWO_GROUPS, "maddpg", True)
    drawn, next_action, _, then = plain._situation(plain._rows(), plain.config.target_noise)
    for group, x in plain.learners.items():
        assert torch.equal(next_action[group], x.target_actor(drawn[group].next_obs).mode())
    assert torch.equal(then.action, torch.cat([a.flatten(1) for a in next_action.values()], dim=1))
    noisy, _, _ = filled(TWO_GROUPS, "matd3", True, target_noise=0.4, target_noise_clip=0.1)
    drawn, next_action, _, _ = noisy._situation(noisy._rows(), noisy.config.target_noise)
    for group, x in noisy.learners.items():
        off = (next_action[group] - x.target_actor(drawn[group].next_obs).mode()).abs()
        assert 0.05 < off.max() <= 0.1 + 1e-6
        assert next_action[group].abs().max() <= 1


# ---- one update


def weights(agent: MADDPG) -> dict[str, dict[str, Tensor]]:
    parts = {"actor": "actor_optimizer.flat", "critic": "critic_optimizer.flat"}
    targets = {"target_actor": "_target_actor", "target_critic": "_target_critic"}
    found = {}
    for name, x in agent.learners.items():
        found[name] = {part: getattr(x, path.split(".")[0]).flat.clone() for part, path in parts.items()}
        found[name] |= {part: getattr(x, path).clone() for part, path in targets.items()}
    return found


@pytest.mark.parametrize("algo", ALGOS)
@pytest.mark.parametrize("share", [True, False])
def test_targets_follow_by_their_share_and_are_what_their_networks_compute_with(algo: str, share: bool):
    agent, _, _ = filled(TWO_GROUPS, algo, share=share, steps_per_update=80, policy_delay=1, tau=0.3)
    before = weights(agent)
    update(agent)
    for name, after in weights(agent).items():
        for part in ("actor", "critic"):
            old, new = before[name], after
            assert not torch.equal(old[part], new[part])
            followed = torch.lerp(old[f"target_{part}"], new[part], 0.3)
            torch.testing.assert_close(new[f"target_{part}"], followed)
            network = getattr(agent.learners[name], f"target_{part}")
            rows = len(new[part])
            flat = torch.cat([p.reshape(rows, -1) for p in network.parameters()], dim=1)
            assert torch.equal(flat, new[f"target_{part}"])
            assert not any(p.requires_grad for p in network.parameters())


def test_targets_are_the_networks_at_first():
    agent, _, _ = begun(algo="matd3")
    for found in weights(agent).values():
        assert torch.equal(found["actor"], found["target_actor"])
        assert torch.equal(found["critic"], found["target_critic"])


def test_a_delayed_policy_moves_with_its_targets_at_every_second_update_only():
    agent, env, obs = begun(algo="matd3", steps_per_update=80)
    for count in range(1, 5):
        obs, _ = collect(agent, env, obs)
        before = weights(agent)
        stats = update(agent)
        assert ("losses/actor" in stats) is (count % 2 == 0)
        for name, after in weights(agent).items():
            moved = {part for part in after if not torch.equal(after[part], before[name][part])}
            assert moved == ({"actor", "critic", "target_actor", "target_critic"} if count % 2 == 0 else {"critic"})


@pytest.mark.parametrize(("steps_per_update", "expected"), [(80, [1, 2, 3]), (20, [4, 8, 12]), (160, [0, 1, 1])])
def test_updates_come_as_often_as_asked_fractions_kept(steps_per_update: int, expected: list[int]):
    agent, env, obs = begun(steps_per_update=steps_per_update)
    found = []
    for _ in range(3):
        obs = train(agent, env, obs, 1)
        found.append(agent.updates)
    assert found == expected


def test_matd3_is_maddpg_with_three_settings():
    settings: dict[str, Any] = {"twin_critics": True, "policy_delay": 2, "target_noise": 0.2}
    one, _, _ = filled(algo="matd3")
    other, _, _ = filled(algo="maddpg", **settings)
    update(one)
    update(other)
    assert_same(one.state_dict(), other.state_dict())
    plain, _, _ = filled(algo="maddpg")
    for key, value in settings.items():
        assert getattr(plain.config, key) != value


def test_an_interrupted_round_changes_nothing_and_can_be_repeated():
    agent, _, _ = filled(algo="matd3", steps_per_update=20)
    whole, _, _ = filled(algo="matd3", steps_per_update=20)
    before, asked = copied(agent.state_dict()), iter([False, False, True])
    assert agent.update(0.5, lambda: next(asked)) is None
    assert_same(agent.state_dict(), before)
    assert agent.ready()
    assert_same(update(agent, 0.5), update(whole, 0.5))
    assert_same(agent.state_dict(), whole.state_dict())


# ---- exploration


def test_the_warm_up_acts_uniformly_and_learns_nothing():
    env = Match(64, CPU)
    agent = make_ddpg(env, warm_up=64 * 20, train_every=640)
    with torch.no_grad():
        for p in agent.learners["agent"].actor.parameters():
            p.fill_(3.0)
        next(reversed(list(agent.learners["agent"].actor.parameters()))).copy_(torch.tensor([30.0, -30.0]))
    before = weights(agent)
    obs, _ = collect(agent, env, env.reset(1))
    share = agent.learners["agent"].replay.action[: agent.t].float().mean()
    assert 0.4 < float(share) < 0.6
    assert set(update(agent)) == {"weights/norm"}
    assert_same(weights(agent), before)
    assert agent.updates == 0
    collect(agent, env, obs)
    assert set(update(agent)) > {"weights/norm", "losses/critic", "losses/actor"}
    assert agent.updates == 20


def test_after_the_warm_up_the_policy_acts():
    env = Aim(64, CPU)
    agent = make_ddpg(env, warm_up=64, exploration_noise=0.0, final_noise=0.0)
    obs = env.reset(1)
    first = agent.act(obs)
    agent.observe(env.step(first))
    obs = {"agent": env.obs}
    greedy = agent.to_env({"agent": agent.policy(obs)["agent"].mode()})
    assert torch.equal(agent.act(obs)["agent"], greedy["agent"])
    assert not torch.allclose(first["agent"], agent.to_env({"agent": agent.policy(obs)["agent"].mode()})["agent"])


def test_exploration_falls_linearly_with_progress():
    env = Aim(64, CPU)
    agent = make_ddpg(env, warm_up=10**9, exploration_noise=0.4, final_noise=0.1)
    obs, found = env.reset(1), []
    for progress in (0.0, 0.5, 1.0, 1.2):
        obs, _ = collect(agent, env, obs)
        update(agent, progress)
        answer = agent.policy(obs)["agent"]
        assert isinstance(answer, Deterministic)
        found.append(answer.noise)
    assert found == pytest.approx([0.4, 0.25, 0.1, 0.1])


# ---- what is not finite


def test_an_agent_with_a_gradient_that_is_not_finite_stays_bit_for_bit_where_it_is():
    agent, _, _ = filled(ONE_GROUP, "iddpg", share=False)
    learner = agent.learners["agent"]
    learner.replay.obs[:, :, 1] = torch.nan
    before, stats = weights(agent)["agent"], update(agent)
    after = weights(agent)["agent"]
    for part in ("actor", "critic"):
        assert torch.equal(after[part][1], before[part][1])
        assert after[part].isfinite().all()
        assert after[part][[0, 2]].ne(before[part][[0, 2]]).any(1).all()
        assert stats[f"non_finite/{part}"]["agent"].tolist() == [0, 1, 0]


def test_a_central_critic_whose_target_is_not_finite_is_refused_and_actors_go_on():
    agent, _, _ = filled(ONE_GROUP, "maddpg", share=False)
    learner = agent.learners["agent"]
    learner.replay.reward[:, :, 1] = torch.nan
    before, stats = weights(agent)["agent"], update(agent)
    after = weights(agent)["agent"]
    assert torch.equal(after["critic"], before["critic"])
    assert stats["non_finite/critic"]["agent"].tolist() == [1]
    assert after["actor"].isfinite().all()
    assert after["actor"].ne(before["actor"]).any(1).all()


def test_without_the_guard_nothing_is_refused():
    env = make(ONE_GROUP, 8, CPU)
    agent = make_ddpg(env, refuse=False, **SMALL)
    collect(agent, env, env.reset(1))
    agent.learners["agent"].replay.reward[:, :, 1] = torch.nan
    update(agent)
    assert weights(agent)["agent"]["critic"].isnan().any()


# ---- state


@pytest.mark.parametrize("algo", ALGOS)
def test_an_agent_goes_on_from_its_state_and_its_replay_bit_for_bit(algo: str):
    agent, env, obs = filled(TAG, algo, True)
    other, _, _ = begun(TAG, algo, True)
    agent.signals(True)  # changes are since the last reading, which comes before a checkpoint
    state, rings = copied(agent.state_dict()), agent.rings()
    other.load_state_dict(state)
    assert other.rings().steps == rings.steps == agent.t
    assert rings.settled == agent.t
    for group, parts in other.rings().groups.items():
        for name, ring in parts.items():
            ring.copy_(rings.groups[group][name])
    twin = make(TAG, 8, CPU, continuous_actions=True, max_cycles=6)
    twin.reset(1)
    again = twin.load_state_dict(env.state_dict())
    assert_same(update(agent), update(other))
    train(agent, env, obs, 2)
    train(other, twin, again, 2)
    assert_same(agent.state_dict(), other.state_dict())
    assert_same(agent.rings().groups, other.rings().groups)
    assert_same(agent.signals(True), other.signals(True))


def test_the_state_of_turn_based_play_holds_open_turns():
    env = Relay(4, CPU)
    agent = make_ddpg(env, **SMALL)
    obs = env.reset(1)
    for _ in range(6):
        agent.observe(env.step(agent.act(obs)))
        obs = {"agent": env.obs}
    assert agent.rings().settled == 4  # of the second episode both first turns are open
    assert agent.state_dict()["turns"]["opened"].tolist() == [[4, 5]] * 4
    fresh = make_ddpg(env, seed=2, **SMALL)
    fresh.load_state_dict(copied(agent.state_dict()))
    assert fresh.rings().settled == 4


def test_to_act_takes_no_replay():
    env = make(ONE_GROUP, 8, CPU)
    config = replace(make_ddpg(env).config).to_act()
    agent = MADDPG(env.spec, config, 8, CPU, 1)
    assert agent.learners["agent"].replay.slots == 1
    assert agent.policy(env.reset(1))["agent"].mode().shape == (8, 3)


def test_algorithms_without_a_replay_have_no_rings():
    env = make(ONE_GROUP, 8, CPU)
    agent = make_agent(env)
    assert isinstance(agent, MAPPO)
    assert agent.rings() == ({}, 0, 0)
