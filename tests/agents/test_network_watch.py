"""A group's networks and optimisers, read in the middle of learning."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from marl_stable.agents.ddpg_learner import DDPGLearner
from marl_stable.agents.maddpg import MADDPG
from marl_stable.agents.mappo import MAPPO
from marl_stable.agents.ppo_learner import PPOLearner
from marl_stable.config import NetworkConfig
from marl_stable.envs.particle import make
from marl_stable.networks.layers import Linear
from tests.agents.loops import CPU, assert_same, copied, make_agent, make_ddpg, through_a_file, train
from tests.agents.test_waiting import waits_in

LR = 2e-3
ALGORITHMS = ("mappo", "ippo", "maddpg", "iddpg", "matd3")


def trained(algo: str, share: bool, iterations: int = 3, **settings: Any) -> MAPPO | MADDPG:
    """An agent that has learned a little."""
    env = make("simple_spread_v3", 8, CPU, max_cycles=5)
    maker = make_agent if algo in ("mappo", "ippo") else make_ddpg
    own = {"batch_size": 80} if algo in ("mappo", "ippo") else {"train_every": 96, "warm_up": 0, "buffer_size": 160}
    agent = maker(env, algo, share=share, **(own | settings))
    train(agent, env, env.reset(1), iterations)
    return agent


def learner_of(agent: MAPPO | MADDPG) -> PPOLearner | DDPGLearner:
    (learner,) = agent.learners.values()
    return learner


def probe_of(learner: PPOLearner | DDPGLearner) -> tuple[Tensor, Tensor]:
    """Drawn observations `(20, 3, O)`, and what the critic is given with them."""
    generator = torch.Generator().manual_seed(3)
    seen = torch.randn(20, 3, learner.group.obs_size, generator=generator)
    inputs = next(m for m in learner.critic.modules() if isinstance(m, Linear)).weight.shape[-2]
    if learner.central:
        return seen, torch.randn(20, inputs, generator=generator)
    extra = inputs - seen.shape[-1] - (3 if learner.config.share else 0)  # encoded actions of a Q
    return seen, torch.cat([seen, torch.randn(20, 3, extra, generator=generator)], dim=-1)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("algo", ALGORITHMS)
def test_signals_of_optimisers_are_those_of_their_weights(algo: str, share: bool):
    learner = learner_of(trained(algo, share))
    norms = {"grad_norm/actor": torch.full((1 if share else 3,), 2.0), "grad_norm/critic": torch.tensor([3.0])}
    learner.network_signals(LR, LR, norms)
    before = {name: value.detach().clone() for name, value in learner.critic.named_parameters()}
    with torch.no_grad():
        for i, value in enumerate(learner.critic.parameters()):
            value.add_(0.01 * i)
    found = learner.network_signals(LR, 2 * LR, norms)
    optimizer, names = learner.critic_optimizer, learner.layer_names("critic")
    matrices = [f"{name}.weight" for name, m in learner.critic.named_modules() if isinstance(m, Linear)]
    after = dict(learner.critic.named_parameters())
    assert len(names) == len(matrices) == len(set(names))
    for layer, name in enumerate(matrices):
        for row in range(optimizer.rows):
            weight, old = after[name].detach(), before[name]
            weight, old = (weight, old) if optimizer.rows == 1 else (weight[row], old[row])
            size = float(weight.square().mean().sqrt())
            change = float((weight - old).square().mean().sqrt())
            assert float(found["stability/layer_weight/critic"][row, layer]) == pytest.approx(size, rel=1e-4)
            assert float(found["stability/layer_change/critic"][row, layer]) == pytest.approx(change / size, rel=1e-3)
    weights = optimizer.flat.square().mean(1).sqrt()
    torch.testing.assert_close(found["stability/update_ratio/critic"], 2 * LR * optimizer.direction_rms() / weights)
    torch.testing.assert_close(found["stability/adam_memory/critic"], 3.0 / optimizer.memory())
    assert found["stability/layer_grad/critic"].gt(0).all()
    again = learner.network_signals(LR, LR, {})
    assert again["stability/layer_change/critic"].tolist() == torch.zeros(optimizer.rows, len(names)).tolist()
    assert "stability/adam_memory/critic" not in again  # without a step there is no norm


def test_layers_have_names():
    learner = learner_of(trained("matd3", True, 0))
    assert learner.layer_names("actor") == ["hidden.0", "final"]
    assert learner.layer_names("critic") == ["0.hidden.0", "0.final", "1.hidden.0", "1.final"]
    assert learner.unit_names("critic") == ["hidden.0"]
    recurrent = learner_of(trained("mappo", False, 0, network=NetworkConfig(hidden=(8,), recurrent="gru")))
    assert sorted(recurrent.layer_names("actor")) == ["final", "hidden.0", "recurrent.input", "recurrent.memory"]
    assert recurrent.unit_names("actor") == ["hidden.0", "recurrent"]


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("algo", ALGORITHMS)
def test_probe_signals_have_their_shapes_and_are_read(algo: str, share: bool):
    learner = learner_of(trained(algo, share, network=NetworkConfig(hidden=(16, 8), activation="relu")))
    found = learner.probe_signals(*probe_of(learner), LR)
    assert {name.removeprefix("stability/"): tuple(value.shape) for name, value in found.items()} == {
        "step_budget": (3,),
        "feature_importance": (3, learner.group.obs_size),
        "dormant/actor": (2,),
        "effective_rank/actor": (),
        "dormant/critic": (2,),
        "effective_rank/critic": (),
    }
    assert all(value.isfinite().all() for value in found.values())
    torch.testing.assert_close(found["stability/feature_importance"].sum(1), torch.ones(3))
    assert 0.1 < found["stability/effective_rank/actor"].item() <= 1


def test_dead_units_of_one_layer_are_found_there():
    learner = learner_of(trained("mappo", True, network=NetworkConfig(hidden=(16, 8), norm="none", activation="relu")))
    probe = probe_of(learner)
    before = learner.probe_signals(*probe, LR)
    first = next(m for m in learner.actor.modules() if isinstance(m, Linear))
    with torch.no_grad():
        first.weight[:, :4], first.bias[:4] = 0.0, -1.0
    after = learner.probe_signals(*probe, LR)
    assert before["stability/dormant/actor"][0] == 0
    assert after["stability/dormant/actor"][0] == 4 / 16
    torch.testing.assert_close(after["stability/dormant/critic"], before["stability/dormant/critic"])


@pytest.mark.parametrize("algo", ["mappo", "iddpg"])
def test_dead_agents_rows_are_left_out(algo: str):
    learner = learner_of(trained(algo, False))
    seen, critic_input = probe_of(learner)
    alive = torch.rand(20, 3, generator=torch.Generator().manual_seed(5)) < 0.5
    alive[:3] = False
    other = torch.where(alive.unsqueeze(-1), seen, 7.0)
    there = alive.unsqueeze(-1) if critic_input.dim() == 3 else alive.any(1, keepdim=True)
    one = learner.probe_signals(seen, critic_input, LR, alive)
    two = learner.probe_signals(other, torch.where(there, critic_input, 7.0), LR, alive)
    for name, value in one.items():
        torch.testing.assert_close(value, two[name])


@pytest.mark.parametrize("share", [True, False])
def test_rates_that_the_guard_lowered_count(share: bool):
    learner = learner_of(trained("mappo", share))
    probe = probe_of(learner)
    before = learner.probe_signals(*probe, LR)["stability/step_budget"]
    ratio = learner.network_signals(LR, LR, {})["stability/update_ratio/actor"]
    rows = [True] if share else [False, True, False]
    learner.actor_optimizer.scale_rate(rows, 0.5)
    factor = torch.tensor([0.5, 0.5, 0.5] if share else [1.0, 0.5, 1.0])
    torch.testing.assert_close(learner.probe_signals(*probe, LR)["stability/step_budget"], factor * before)
    lowered = learner.network_signals(LR, LR, {})["stability/update_ratio/actor"]
    torch.testing.assert_close(lowered, factor[: len(rows)] * ratio)


@pytest.mark.parametrize("algo", ["mappo", "maddpg"])
def test_a_resumed_run_reads_what_one_without_a_break_does(algo: str):
    """Read after each iteration, as training does; the second run begins from a checkpoint made after the second."""
    env = make("simple_spread_v3", 8, CPU, max_cycles=5)
    agent = trained(algo, True, 0)
    obs = train(agent, env, env.reset(1), 2)
    learner_of(agent).network_signals(LR, LR, {})
    state = through_a_file(copied(agent.state_dict()))
    world = env.state_dict()
    ring = copied(dict(agent.rings().groups))
    train(agent, env, obs, 1)
    expected = learner_of(agent).network_signals(LR, LR, {})
    other = trained(algo, True, 0)
    other.load_state_dict(state)
    for name, tensors in ring.items():
        for key, value in tensors.items():
            other.rings().groups[name][key].copy_(value)
    train(other, env, env.load_state_dict(world), 1)
    assert_same(learner_of(other).network_signals(LR, LR, {}), expected)
    assert expected["stability/layer_change/actor"].gt(0).all()


@pytest.mark.parametrize("algo", ["mappo", "maddpg"])
def test_reading_makes_nobody_wait_and_changes_nothing(algo: str):
    learner = learner_of(trained(algo, True))
    state, probe = copied(learner.state_dict()), probe_of(learner)
    assert waits_in(lambda: learner.network_signals(LR, LR, {})) == {}
    assert waits_in(lambda: learner.probe_signals(*probe, LR, torch.ones(20, 3) > 0)) == {}
    assert_same(learner.state_dict(), state)
    assert all(p.grad is None for p in learner.actor.parameters())


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_networks_with_memory_answer_as_where_episodes_begin(kind: str):
    learner = learner_of(trained("mappo", True, network=NetworkConfig(hidden=(16,), recurrent=kind)))  # type: ignore[arg-type]
    found = learner.probe_signals(*probe_of(learner), LR)
    assert found["stability/dormant/actor"].shape == (2,)
    assert all(value.isfinite().all() for value in found.values())
