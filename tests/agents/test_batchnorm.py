"""BatchNorm in the algorithms: one function for acting and learning, statistics that move between updates only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from marl_stable.agents import algorithm
from marl_stable.agents.config import default_config
from marl_stable.agents.ddpg_learner import DDPGLearner
from marl_stable.agents.maddpg import MADDPG
from marl_stable.agents.ppo import Batch
from marl_stable.agents.ppo_learner import Learned, PPOLearner
from marl_stable.config import NetworkConfig, NetworkOverride
from marl_stable.envs.base import BatchedEnv
from marl_stable.envs.particle import make
from marl_stable.envs.probe import Aim, Match, Probe
from marl_stable.evaluation import play
from marl_stable.networks.batchnorm import BatchNorm, BatchNorms
from marl_stable.types import PerGroup
from tests.agents.loops import CPU, assert_same, collect, copied, make_agent, through_a_file, train, update

SMALL = NetworkConfig(hidden=(16, 16), norm="batch")
PPO: dict[str, Any] = {"batch_size": 160, "update_epochs": 2, "network": SMALL}
DDPG: dict[str, Any] = {
    "gamma": 0.9,
    "lr": 2e-3,
    "batch_size": 64,
    "steps_per_update": 16,
    "train_every": 64,
    "warm_up": 64,
    "buffer_size": 640,
    "network": replace(SMALL, activation="relu"),
}
OFF_POLICY = ("maddpg", "matd3", "iddpg")
TWO_GROUPS = "simple_speaker_listener_v4"


def begun(algo: str, name: str = TWO_GROUPS, iterations: int = 0, **settings: Any) -> tuple[Any, BatchedEnv, PerGroup]:
    """An agent, its environment and the next observations, after `iterations` updates."""
    env = make(name, 8, CPU, max_cycles=6)
    if algo in OFF_POLICY:
        agent: Any = off_policy(env, algo, **settings)
    else:
        agent = make_agent(env, algo, **(PPO | settings))
    obs = env.reset(1)
    agent.initialize_statistics(obs)
    return agent, env, train(agent, env, obs, iterations)


def off_policy(env: BatchedEnv, algo: str, **settings: Any) -> MADDPG:
    config = replace(default_config(algo), **(DDPG | settings))
    agent = algorithm(algo)(env.spec, config, env.num_envs, CPU, 1)
    assert isinstance(agent, MADDPG)
    return agent


def norms_of(*networks: nn.Module) -> Iterator[BatchNorm]:
    return (m for network in networks for m in network.modules() if isinstance(m, BatchNorm))


def statistics(agent: Any) -> dict[str, Tensor]:
    """Every running statistic inside the agent's networks, by name."""
    state = copied(agent.policy_state()["groups"])
    kinds = ("mean", "var", "known")
    return {
        f"{group}/{part}/{name}": value
        for group, parts in state.items()
        for part, values in parts.items()
        if "actor" in part or "critic" in part
        for name, value in values.items()
        if name.rsplit(".", 1)[-1] in kinds
    }


# ---- one function for acting and learning


@pytest.mark.parametrize("algo", ["mappo", "ippo"])
@pytest.mark.parametrize("share", [True, False])
def test_ppos_first_ratios_are_one(algo: str, share: bool, monkeypatch: pytest.MonkeyPatch):
    agent, env, obs = begun(algo, iterations=3, share=share)
    collect(agent, env, obs)
    ratios: list[Tensor] = []
    learn = PPOLearner.learn

    def watched(self: PPOLearner, batch: Batch, scale: float, entropy_scale: float) -> Learned:
        with self.actor_norms.learning(batch.alive):
            learning = self.actor(batch.obs).log_prob(batch.action)
        assert torch.equal(learning, self.actor(batch.obs).log_prob(batch.action))
        ratios.append((learning - batch.log_prob).exp().detach())
        return learn(self, batch, scale, entropy_scale)

    monkeypatch.setattr(PPOLearner, "learn", watched)
    update(agent)
    for first in ratios[: len(agent.learners)]:
        torch.testing.assert_close(first, torch.ones_like(first), atol=1e-5, rtol=0)  # rounding of the products alone
    assert (ratios[-1] - 1).abs().max() > 1e-3


def test_the_batchs_own_statistics_would_begin_with_other_ratios():
    """The reason for all of this, on the same agent: plain BatchNorm learns from a policy that never acted."""
    agent, env, obs = begun("mappo", iterations=3)
    collect(agent, env, obs)
    batch = agent._batches()[0]["listener"]
    actor = agent.learners["listener"].actor
    for layer in norms_of(actor):
        layer.known.zero_()  # the next batch's statistics are then taken as they are
    part = batch.obs[:20]
    BatchNorms(actor).take_in(part, batch.alive[:20], 1)
    ratio = (actor(part).log_prob(batch.action[:20]) - batch.log_prob[:20]).exp()
    assert (ratio - 1).abs().max() > 0.02


# ---- when statistics move


@pytest.mark.parametrize("algo", ["mappo", "ippo", "maddpg", "iddpg"])
def test_statistics_move_between_updates_and_never_inside(algo: str, monkeypatch: pytest.MonkeyPatch):
    agent, env, obs = begun(algo, iterations=2)
    collect(agent, env, obs)
    seen: list[dict[str, Tensor]] = []
    ppo = algo in ("mappo", "ippo")
    owner, name = (PPOLearner, "learn") if ppo else (DDPGLearner, "fit_critic")
    original = getattr(owner, name)

    def watched(self: Any, *args: Any) -> Any:
        seen.append({key: x for key, x in statistics(agent).items() if "target" not in key})
        return original(self, *args)

    monkeypatch.setattr(owner, name, watched)
    before = {key: x for key, x in statistics(agent).items() if "target" not in key}
    update(agent)
    after = {key: x for key, x in statistics(agent).items() if "target" not in key}
    assert len(seen) >= 4
    for now in seen:
        assert_same(now, before if ppo else after)  # PPO's move after its steps, the others' before
    moved = [key for key in before if not torch.equal(before[key], after[key])]
    assert len(moved) == 2 * len(before) // 3  # every mean and variance


def test_statistics_start_from_the_random_play():
    agent, _, obs = begun("mappo")
    actor = agent.learners["listener"].actor
    first = next(norms_of(actor))
    seen = agent.learners["listener"].normalized(obs["listener"])
    torch.testing.assert_close(first.mean, actor.body.network.hidden[0](seen.flatten(0, 1)).mean(0))
    assert all(bool(known.all()) for key, known in statistics(agent).items() if key.endswith("known"))


@pytest.mark.parametrize("algo", ["mappo", "matd3"])
def test_an_interrupted_update_leaves_statistics_as_they_were(algo: str):
    agent, env, obs = begun(algo, iterations=2)
    collect(agent, env, obs)
    before = copied(agent.policy_state())
    calls = iter([False, True])
    assert agent.update(0.0, lambda: next(calls)) is None
    assert_same(agent.policy_state(), before)


# ---- which rows enter


@pytest.mark.parametrize("share", [True, False])
def test_what_dead_agents_see_changes_neither_weights_nor_statistics(share: bool):
    after = []
    for noise in (0.0, 1e3):
        agent, env, obs = begun("ippo", "simple_spread_v3", 1, share=share)
        collect(agent, env, obs)
        batch, learner = agent._batches()[0]["agent"], agent.learners["agent"]
        draw = torch.Generator().manual_seed(0)
        dead = torch.rand(batch.alive.shape, generator=draw) < 0.3
        seen = torch.where(dead.unsqueeze(-1), noise * torch.randn(batch.obs.shape, generator=draw), batch.obs)
        alive = (~dead).float()
        learner.learn(batch._replace(obs=seen, critic_input=seen, alive=alive), 1.0, 1.0)
        learner.take_in_activations(seen, seen, alive, 8)
        after.append(copied(agent.policy_state()))
    assert_same(*after)


@pytest.mark.parametrize("refuse", [True, False])
@pytest.mark.parametrize("algo", ["mappo", "maddpg"])
def test_statistics_stay_finite_whatever_comes(algo: str, refuse: bool):
    agent, env, obs = begun(algo, iterations=2, normalize_obs=False)
    for learner in agent.learners.values():
        for optimizer in (learner.actor_optimizer, learner.critic_optimizer):
            optimizer.refuse = refuse
    collect(agent, env, obs)
    for learner in agent.learners.values():
        kept = learner.rollout if algo == "mappo" else learner.replay
        kept.obs[::3, 0] = torch.nan
        kept.obs[1::3, 1] = torch.inf
        kept.reward[:, 2] = torch.nan
    update(agent)
    assert all(bool(x.isfinite().all()) for x in statistics(agent).values())


def test_groups_without_batch_norm_stay_without():
    agent, _, _ = begun("mappo", iterations=1, critic_network=NetworkOverride(norm="layer"))
    assert statistics(agent)
    assert all("/actor/" in key for key in statistics(agent))
    agent, _, _ = begun("matd3", iterations=2, network=replace(SMALL, norm="none"))
    assert statistics(agent) == {}


# ---- targets


@pytest.mark.parametrize("algo", OFF_POLICY)
def test_targets_begin_as_copies_and_follow_by_tau(algo: str, monkeypatch: pytest.MonkeyPatch):
    agent, env, obs = begun(algo, tau=0.2)
    begin = statistics(agent)
    steps: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
    follow = DDPGLearner.follow

    def watched(self: DDPGLearner) -> None:
        before = statistics(agent)
        follow(self)
        steps.append((before, statistics(agent)))

    monkeypatch.setattr(DDPGLearner, "follow", watched)
    train(agent, env, obs, 3)
    first = steps[0][0]
    for key in (key for key in first if "target_critic" in key):
        assert torch.equal(first[key], first[key.replace("target_", "")])
    for key in (key for key in begin if "target_actor" in key):
        assert torch.equal(begin[key], begin[key.replace("target_", "")])
    followed = 0
    for before, after in steps:
        for key in (key for key in before if "target" in key and not torch.equal(before[key], after[key])):
            learned = before[key.replace("target_", "")]
            torch.testing.assert_close(after[key], torch.lerp(before[key], learned, 0.2))
            followed += 1
    assert followed > 0


def test_the_actor_climbs_the_critic_as_it_is():
    """Renormalised gradients of the critic would hide from actors what moving all their actions does."""
    agent, _, _ = begun("maddpg", iterations=3)
    drawn, _, now, _ = agent._situation(agent._rows(), agent.config.target_noise)
    x = agent.learners["listener"]
    action = drawn["listener"].action.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(x.value_of_own(action, drawn["listener"], now).sum(), action)
    rows = action.detach().to(torch.float64)
    x.critic.double()
    wide = now._replace(obs=now.obs.double(), action=now.action.double())
    for k in range(rows.shape[-1]):
        step = torch.zeros_like(rows)
        step[..., k] = 1e-6
        up, down = (x.value_of_own(rows + s, drawn["listener"], wide) for s in (step, -step))
        numeric = (up - down).detach() / 2e-6
        close = (gradient[..., k] - numeric).abs() < 1e-4 + 1e-3 * numeric.abs()
        assert close.float().mean() > 0.99  # but for rows at a kink of the relu


# ---- saved and gone on with


@pytest.mark.parametrize("algo", ["mappo", "matd3"])
@pytest.mark.parametrize("share", [True, False])
def test_going_on_from_a_saved_state_is_exact(algo: str, share: bool):
    agent, env, obs = begun(algo, iterations=2, share=share)
    rings = {name: dict(tensors) for name, tensors in agent.rings().groups.items()}
    saved = through_a_file({"agent": agent.state_dict(), "env": env.state_dict(), "rings": rings})
    other, elsewhere, _ = begun(algo, share=share)
    other.load_state_dict(saved["agent"])
    for name, tensors in other.rings().groups.items():
        for key, tensor in tensors.items():
            tensor.copy_(saved["rings"][name][key])
    assert_same(statistics(other), statistics(agent))
    train(agent, env, obs, 2)
    train(other, elsewhere, elsewhere.load_state_dict(saved["env"]), 2)
    assert_same(other.policy_state(), agent.policy_state())


# ---- learning


def greedy_return(agent: Any, env: Probe) -> float:
    modes = lambda obs: agent.to_env({name: policy.mode() for name, policy in agent.policy(obs).items()})  # noqa: E731
    return float(play(env, modes, 64, seed=99).mean_returns().mean())


@pytest.mark.parametrize(("game", "iterations", "wanted"), [(Match, 10, 1.0), (Aim, 16, -0.005)])
@pytest.mark.parametrize("share", [True, False])
def test_mappo_learns_with_it(game: type[Probe], iterations: int, wanted: float, share: bool):
    env = game(64, CPU)
    agent = make_agent(env, lr=5e-3, share=share, network=NetworkConfig(hidden=(32,), norm="batch"))
    obs = env.reset(1)
    agent.initialize_statistics(obs)
    train(agent, env, obs, iterations)
    assert greedy_return(agent, env) >= wanted


@pytest.mark.parametrize("share", [True, False])
def test_maddpg_learns_with_it(share: bool):
    env = Match(64, CPU)
    settings = {"batch_size": 256, "steps_per_update": 32, "train_every": 640, "warm_up": 640, "buffer_size": 6_400}
    network = NetworkConfig(hidden=(32, 32), activation="relu", norm="batch")
    agent = off_policy(env, "maddpg", share=share, network=network, lr_schedule="constant", **settings)
    obs = env.reset(1)
    agent.initialize_statistics(obs)
    train(agent, env, obs, 6)
    assert greedy_return(agent, env) == env.best_return
