"""Algorithms whose critics pool over agents: what they are given, what it does not hang on, and what they learn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from marl_stable.agents.config import default_config
from marl_stable.agents.maddpg import MADDPG
from marl_stable.agents.mappo import MAPPO
from marl_stable.config import Block, NetworkConfig, Norm
from marl_stable.envs.base import BatchedEnv
from marl_stable.envs.particle import make
from marl_stable.envs.probe import Aim, Endless, Match, Probe, Recall, Relay, Roles
from marl_stable.networks.pooling import PooledNetwork
from marl_stable.types import PerGroup, Step, UsageError
from tests.agents.loops import (
    CPU,
    QUICK,
    assert_same,
    collect,
    greedy_return,
    make_agent,
    make_ddpg,
    teach,
    through_a_file,
    train,
    update,
)

SPREAD, SPEAKER, TAG = "simple_spread_v3", "simple_speaker_listener_v4", "simple_tag_v3"
ALGOS = ("mappo", "maddpg", "matd3")
GAMMA = 0.9


class Dying:
    """A particle game whose agents die one by one, in every copy at its own pace; what the dead see is garbage."""

    def __init__(self, env: BatchedEnv, left: float) -> None:
        self.env, self.left = env, left
        self.spec, self.num_envs, self.device = env.spec, env.num_envs, env.device

    def reset(self, seed: int) -> PerGroup:
        self.draw = torch.Generator().manual_seed(seed)
        self.here = {g.name: torch.ones(self.num_envs, len(g.agents), dtype=torch.bool) for g in self.spec.groups}
        return self.env.reset(seed)

    def step(self, action: PerGroup) -> Step:
        step = self.env.step({name: x * self.here[name] for name, x in action.items()})  # the dead stand still
        alive, dies, stays = self.here, {}, {}
        for name, here in alive.items():
            dies[name] = here & (torch.rand(here.shape, generator=self.draw) < 0.2) & ~step.done.unsqueeze(1)
            stays[name] = here & ~dies[name]
        over = step.done.unsqueeze(1)
        self.here = {name: x | over for name, x in stays.items()}
        next_obs = self._spoilt(step.next_obs, stays)
        return step._replace(
            obs=next_obs if step.next_obs is step.obs else self._spoilt(step.obs, self.here),
            next_obs=next_obs,
            terminated=dies,
            truncated={name: x & over for name, x in stays.items()},
            alive=alive,
        )

    def _spoilt(self, obs: PerGroup, here: PerGroup) -> PerGroup:
        return {name: torch.where(here[name].unsqueeze(-1), x, self.left) for name, x in obs.items()}


def made(env: Any, algo: str, **settings: Any) -> MAPPO | MADDPG:
    """An agent that pools, for batches of 80 or updates after 96 steps."""
    few: dict[str, Any] = {"batch_size": 80, "critic_input": "pool"}
    if algo == "mappo":
        return make_agent(env, algo, **(few | settings))
    small: dict[str, Any] = {"train_every": 96, "warm_up": 96, "buffer_size": 960, "critic_input": "pool"}
    return make_ddpg(env, algo, **(small | settings))


def started(name: str, algo: str, **settings: Any) -> tuple[MAPPO | MADDPG, BatchedEnv, PerGroup]:
    """One of 8 copies whose episodes take 5 steps, and what it sees first."""
    env = make(name, 8, CPU, max_cycles=5)
    agent, obs = made(env, algo, **settings), env.reset(1)
    agent.initialize_statistics(obs)
    return agent, env, obs


def given(agent: MAPPO | MADDPG, seen: Tensor, action: Tensor | None = None) -> Tensor:
    """What the critic of the only group is given where all are there: `seen (B, A, O)` and `action (B, A, U)`."""
    alive = torch.ones(seen.shape[:2])
    if isinstance(agent, MAPPO):
        return agent._joint({"agent": seen}, {"agent": alive})
    assert action is not None
    return agent._joint({"agent": (seen, action, alive)}).seen(agent.learners["agent"].pooled)


# ---- which algorithms


@pytest.mark.parametrize(("algo", "instead"), [("ippo", "mappo"), ("iddpg", "maddpg or matd3")])
def test_local_critics_have_nothing_to_pool(algo: str, instead: str):
    with pytest.raises(UsageError) as refused:
        replace(default_config(algo), critic_input="pool")
    assert str(refused.value) == (
        f"algo.critic_input is 'pool', but the critics of {algo} see their own agent alone; use {instead}, or "
        "concatenate."
    )


@pytest.mark.parametrize("algo", ALGOS)
def test_side_by_side_is_the_default(algo: str):
    agent = made(make(SPREAD, 8, CPU), algo, critic_input=default_config(algo).critic_input)
    assert not any(isinstance(m, PooledNetwork) for x in agent.learners.values() for m in x.critic.modules())


# ---- what critics are given


def test_who_is_there_comes_from_who_acts_and_who_goes_on():
    env = Dying(make(SPREAD, 8, CPU, max_cycles=7), left=0.0)
    agent = made(env, "mappo")
    assert isinstance(agent, MAPPO)
    _, steps = collect(agent, env, env.reset(1))  # type: ignore[arg-type]
    rollout = agent.learners["agent"].rollout
    (last,) = rollout.final_obs
    present = rollout.present()
    assert present.shape == (10 + 1 + 1, 8, 3)
    for t in range(10):
        assert torch.equal(present[t], steps[t].alive["agent"])
    for t, row in ((9, 10), (last, 11)):
        assert torch.equal(present[row], steps[t].alive["agent"] & ~steps[t].terminated["agent"])
    assert 0 < present.float().mean() < 1
    seen = {"agent": rollout.all_obs()}
    joint = agent._joint(seen, {"agent": present})
    assert torch.equal(joint, torch.cat([seen["agent"].flatten(2), present], dim=2))


def test_where_turns_are_taken_everybody_is_there():
    env = Relay(8, CPU)
    agent = made(env, "mappo")
    assert isinstance(agent, MAPPO)
    collect(agent, env, env.reset(1))
    rollout = agent.learners["agent"].rollout
    assert rollout.alive.float().mean() == 0.5
    joint = agent._joint({"agent": rollout.obs}, {"agent": rollout.present()[: len(rollout.obs)]})
    assert joint[..., -2:].eq(1).all()
    off_policy = made(env, "maddpg", train_every=96, warm_up=0)
    assert isinstance(off_policy, MADDPG)
    collect(off_policy, env, env.reset(1))
    _, _, now, then = off_policy._situation(torch.arange(64), 0.0)
    assert now.present.eq(1).all()
    assert then.present.eq(1).all()


@pytest.mark.parametrize(("name", "share"), [(SPREAD, False), (TAG, True)])
@pytest.mark.parametrize("algo", ["mappo", "maddpg"])
def test_what_the_dead_leave_behind_changes_nothing(algo: str, name: str, share: bool):
    """Bit for bit, with garbage where they were; statistics of observations know only who lives."""
    found = []
    for left in (0.0, 1e6):
        env = Dying(make(name, 8, CPU, max_cycles=7), left)
        agent, obs = made(env, algo, share=share), env.reset(1)
        agent.initialize_statistics(env.env.reset(1))
        losses = []
        for _ in range(2):
            obs, _ = collect(agent, env, obs)  # type: ignore[arg-type]
            stats = update(agent)
            losses.append({tag: stats[tag] for tag in ("losses/critic", "losses/actor")})
        found.append((losses, {n: x.critic.state_dict() for n, x in agent.learners.items()}))
    assert_same(found[0], found[1])


@pytest.mark.parametrize("algo", ALGOS)
def test_an_agents_value_does_not_hang_on_the_order_of_others(algo: str):
    values = {}
    for kind in ("pool", "concatenate"):
        agent, env, obs = started(SPREAD, algo, critic_input=kind, normalize_obs=False)
        train(agent, env, obs, 2)
        learner, draw = agent.learners["agent"], torch.Generator().manual_seed(0)
        seen, action = torch.randn(20, 3, 18, generator=draw), torch.randn(20, 3, 5, generator=draw)
        for order in ((0, 1, 2), (0, 2, 1)):
            values[kind, order] = learner.critic(given(agent, seen[:, order], action[:, order]))[..., 0]
    torch.testing.assert_close(values["pool", (0, 1, 2)], values["pool", (0, 2, 1)])
    assert not torch.allclose(values["concatenate", (0, 1, 2)], values["concatenate", (0, 2, 1)])


# ---- an update


@pytest.mark.parametrize("algo", ["maddpg", "matd3"])
@pytest.mark.parametrize("name", [SPEAKER, TAG])
def test_actors_are_judged_by_their_own_current_action_and_the_replays_others(algo: str, name: str):
    agent, env, obs = started(name, algo)
    assert isinstance(agent, MADDPG)
    train(agent, env, obs, 2)
    drawn, _, now, _ = agent._situation(agent._rows(), 0.0)
    for group, learner in agent.learners.items():
        action = torch.randn(drawn[group].action.shape, generator=torch.Generator().manual_seed(0))
        found = learner.value_of_own(action, drawn[group], now)
        for a in range(action.shape[1]):
            did = {n: (d.obs, d.action.clone(), d.alive) for n, d in drawn.items()}
            did[group][1][:, a] = action[:, a]
            expected = learner.critic.networks[0](agent._joint(did).seen(pooled=True))[:, a]
            torch.testing.assert_close(found[:, a], expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("name", "share"), [(SPREAD, False), (SPEAKER, True), (TAG, True)])
@pytest.mark.parametrize(("norm", "block"), [("layer", "plain"), ("batch", "residual")])
@pytest.mark.parametrize("algo", ALGOS)
def test_everything_around_works_with_it(algo: str, norm: Norm, block: Block, name: str, share: bool):
    network = NetworkConfig(hidden=(16, 16), norm=norm, block=block, activation="relu")
    agent, env, obs = started(name, algo, share=share, network=network)
    critics = {group: [p.clone() for p in x.critic.parameters()] for group, x in agent.learners.items()}
    obs = train(agent, env, obs, 2)
    for group, learner in agent.learners.items():
        assert learner.critic_optimizer.rows == 1
        assert not any(torch.equal(p, q) for p, q in zip(learner.critic.parameters(), critics[group], strict=True))
    collect(agent, env, obs)
    update(agent)
    signals, names = agent.signals(True), agent.layer_names()
    for group, learner in agent.learners.items():
        layers = names[group]["critic"]
        assert layers["layer"][0].endswith(f"encoder.{env.spec.groups[0].name}")
        assert signals["stability/layer_grad/critic"][group].shape == (1, len(layers["layer"]))
        assert signals["stability/dormant/critic"][group].shape == (len(layers["unit"]),)
        assert layers["unit"][0] == "encoder"
        assert all(x.isfinite().all() for x in learner.critic_optimizer.layers()[1:])
        for tag in ("layer_grad", "layer_weight", "dormant", "effective_rank"):
            assert signals[f"stability/{tag}/critic"][group].isfinite().all()


@pytest.mark.parametrize(("kind", "share"), [("gru", True), ("lstm", False)])
def test_critics_with_memory_value_first_what_they_valued_when_they_were_asked(kind: Any, share: bool):
    """Before any step, values within chunks are those of the whole rollout: memory starts where it was kept."""
    network = NetworkConfig(hidden=(16, 16), recurrent=kind)
    agent, env, obs = started(TAG, "mappo", share=share, network=network, chunk_length=4, normalize_value=False)
    assert isinstance(agent, MAPPO)
    obs = train(agent, env, obs, 2)
    collect(agent, env, obs)
    batches, _ = agent._batches()
    for group, learner in agent.learners.items():
        part = learner.part(batches[group], torch.arange(learner.samples))
        counts = part.alive > 0  # a step that fills up a shorter chunk does not
        assert 0 < counts.float().mean() < 1
        torch.testing.assert_close(learner._value(part)[counts], part.value[counts], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"network": NetworkConfig(hidden=(8, 8), norm="batch")}], ids=str)
@pytest.mark.parametrize("algo", ALGOS)
def test_a_loaded_agent_goes_on_bit_for_bit(algo: str, settings: dict[str, Any]):
    agent, env, obs = started(TAG, algo, **settings)
    obs = train(agent, env, obs, 2)
    other, twin, _ = started(TAG, algo, seed=5, **settings)
    other.load_state_dict(through_a_file(agent.state_dict()))
    if isinstance(agent, MADDPG) and isinstance(other, MADDPG):
        for name, learner in agent.learners.items():
            for key, kept in learner.replay.tensors().items():
                other.learners[name].replay.tensors()[key].copy_(kept)
    seen = twin.load_state_dict(through_a_file(env.state_dict()))
    assert_same(obs, seen)
    train(agent, env, obs, 2)
    train(other, twin, seen, 2)
    assert_same(agent.state_dict(), other.state_dict())


# ---- learning


def learned(game: type[Probe], algo: str, iterations: int, **settings: Any) -> tuple[MAPPO | MADDPG, Probe]:
    """An agent after `iterations` of 320 steps in 64 copies."""
    env, pooling = game(64, CPU), {"critic_input": "pool"} | settings
    if algo == "mappo":
        agent: MAPPO | MADDPG = make_agent(env, algo, gamma=GAMMA, **pooling)
    else:
        agent = make_ddpg(env, algo, **(QUICK | pooling))
    teach(agent, env, iterations)
    return agent, env


@torch.no_grad()
def first_values(agent: MAPPO | MADDPG, obs: Tensor) -> Tensor:
    """`(B, A)` what the critic says of observations `(B, A, O)` and greedy actions."""
    learner: Any = agent.learners["agent"]
    seen = learner.normalized(obs)
    if isinstance(agent, MAPPO):
        value: Tensor = learner.value_norm.inverse(learner.critic(given(agent, seen)))
        return value
    action = learner.actor.encoded(agent.policy({"agent": obs})["agent"].mode())
    least: Tensor = learner.critic(given(agent, seen, action)).amin(0)
    return least


@pytest.mark.parametrize(
    ("game", "algo", "iterations", "settings"),
    [
        (Recall, "mappo", 24, {}),
        (Endless, "mappo", 20, {"lr": 1e-2}),
        (Match, "maddpg", 12, {}),
        (Match, "matd3", 12, {}),
    ],
    ids=str,
)
def test_values_are_the_known_ones(game: type[Probe], algo: str, iterations: int, settings: dict[str, Any]):
    agent, env = learned(game, algo, iterations, **settings)
    assert greedy_return(agent, env) == env.best_return
    assert float(first_values(agent, env.reset(99)["agent"]).mean()) == pytest.approx(env.value(GAMMA), rel=0.05)


WIDE = {"network": NetworkConfig(hidden=(64, 64), activation="relu", norm="none"), "seed": 2}


@pytest.mark.parametrize(("algo", "iterations", "settings"), [("mappo", 12, {}), ("maddpg", 16, WIDE)], ids=str)
def test_two_agents_who_see_nothing_take_different_roles(algo: str, iterations: int, settings: dict[str, Any]):
    """What they see is embedded alike: the critic must know whom it judges."""
    agent, env = learned(Roles, algo, iterations, **settings)
    assert greedy_return(agent, env) == env.best_return


@pytest.mark.parametrize("algo", ["mappo", "maddpg"])
def test_continuous_actions_reach_their_aim(algo: str):
    agent, env = learned(Aim, algo, 16, lr=5e-3)
    assert greedy_return(agent, env) > -0.02  # an action that ignores what it sees loses 0.1


def test_a_turn_gets_what_is_paid_after_it():
    agent, env = learned(Relay, "mappo", 20, lr=5e-3)
    assert greedy_return(agent, env) == env.best_return
    value = first_values(agent, env.reset(99)["agent"])[:, 0]  # whose turn is the first
    assert float(value.mean()) == pytest.approx(env.value(GAMMA), rel=0.05)


@pytest.mark.parametrize("algo", ["mappo", "maddpg"])
def test_what_only_others_see_is_learned_from_means(algo: str):
    """Each of three agents is paid for the mean of what all see: its own sight alone would explain a third of it."""
    agent, env = learned(Mean, algo, 20, lr=5e-3)
    obs = env.reset(7)["agent"]
    value = first_values(agent, obs)
    expected = obs.mean(1).expand(-1, 3)
    error = (value - expected).square().mean() / expected.var()
    assert float(error) < 0.05


class Mean(Match):
    """One step: whatever is done, all three agents are paid the mean of what they see."""

    agents = 3

    def _begin(self) -> Tensor:
        return self._uniform()

    def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
        return self.obs.mean(1).expand(-1, 3).contiguous(), self._constant(0.0)
