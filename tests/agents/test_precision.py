"""With `--amp bf16` hidden layers multiply in bfloat16, and nothing else changes its type or its answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from marl_stable.config import NetworkConfig
from marl_stable.envs.probe import Aim, Match, Probe, Remember
from marl_stable.networks.layers import Linear
from tests import runs
from tests.agents.loops import CPU, collect, greedy_return, make_agent, make_ddpg, train, update

A, N, I, U = 3, 64, 32, 16  # noqa: E741 - the letters of layers.py
QUICK = {"lr": 5e-3, "tau": 0.1, "normalize_reward": False}


def mixed(env: Probe, algo: str, **settings: Any) -> Any:
    """An agent for `env` whose hidden layers multiply in bfloat16."""
    agent = make_ddpg(env, algo, **(QUICK | settings)) if algo == "maddpg" else make_agent(env, algo, **settings)
    for learner in agent.learners.values():
        learner.multiply_in_bf16()
    return agent


def tensors(state: Any) -> list[Tensor]:
    if isinstance(state, dict):
        return [x for value in state.values() for x in tensors(value)]
    return [state] if isinstance(state, Tensor) else []


@pytest.mark.parametrize("agents", [None, A])
def test_a_layer_rounds_its_product_and_hands_on_float32(agents: int | None) -> None:
    draw = torch.Generator().manual_seed(0)
    layer = Linear(I, U, agents)
    for p in layer.parameters():
        nn.init.normal_(p, generator=draw)
    x = torch.randn(*(() if agents is None else (agents,)), N, I, generator=draw, requires_grad=True)
    plain = layer(x)
    layer.bf16 = True
    rounded = layer(x)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, plain)
    products = x.abs() @ layer.weight.abs() + layer.bias.abs()  # what 8 bits of each factor and of the sum may cost
    assert ((rounded - plain).abs() <= 3 * 2**-8 * products).all()
    gradients = torch.autograd.grad(rounded.square().sum(), [x, *layer.parameters()])
    assert {g.dtype for g in gradients} == {torch.float32}


@pytest.mark.parametrize("network", [NetworkConfig(hidden=(32, 32)), NetworkConfig(hidden=(32, 32), block="residual")])
@pytest.mark.parametrize("algo", ["mappo", "maddpg"])
def test_hidden_layers_alone_are_rounded_those_of_targets_too(algo: str, network: NetworkConfig) -> None:
    learner = mixed(Match(8, CPU), algo, network=network).learners["agent"]
    parts = [getattr(learner, part) for part in learner.PARTS]
    names = {
        f"{part}.{name}": module.bf16
        for part, found in zip(learner.PARTS, parts, strict=True)
        if isinstance(found, nn.Module)
        for name, module in found.named_modules()
        if isinstance(module, Linear)
    }
    assert {name.split(".")[0] for name in names} == {
        part for part in learner.PARTS if part.endswith(("actor", "critic"))
    }
    assert names == {name: ".hidden." in name for name in names}


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
@pytest.mark.parametrize(
    ("algo", "game", "iterations"), [("mappo", Match, 10), ("maddpg", Match, 12), ("maddpg", Aim, 24)]
)
def test_the_known_answers_are_reached_and_what_learns_stays_float32(
    algo: str, game: type[Probe], iterations: int, norm: Any
) -> None:
    env = game(64, CPU)
    agent = mixed(env, algo, network=NetworkConfig(hidden=(32,), norm=norm, activation="relu"))
    obs = env.reset(1)
    agent.initialize_statistics(obs)
    train(agent, env, obs, iterations)
    assert greedy_return(agent, env) == pytest.approx(env.best_return, abs=0.05)
    assert torch.bfloat16 not in {x.dtype for x in tensors(agent.state_dict())}
    learner = agent.learners["agent"]
    for optimizer in (learner.actor_optimizer, learner.critic_optimizer):
        assert {optimizer.flat.dtype, optimizer.m.dtype, optimizer.v.dtype} == {torch.float32}


def test_cells_remember_in_float32() -> None:
    env = Remember(64, CPU)
    agent = mixed(env, "mappo", network=NetworkConfig(hidden=(32,), recurrent="gru"))
    obs = env.reset(1)
    agent.initialize_statistics(obs)
    train(agent, env, obs, 24)
    assert greedy_return(agent, env) == env.best_return
    assert torch.bfloat16 not in {x.dtype for x in tensors(agent.state_dict())}


@pytest.mark.parametrize("algo", ["mappo", "maddpg"])
def test_what_is_not_finite_is_still_refused(algo: str) -> None:
    env = Match(64, CPU)
    agent = mixed(env, algo)
    obs = env.reset(1)
    agent.initialize_statistics(obs)
    for _ in range(3):
        obs, _ = collect(agent, env, obs)
        update(agent)
    obs, _ = collect(agent, env, obs)
    learner = agent.learners["agent"]
    (learner.rollout if algo == "mappo" else learner.replay).reward[...] = torch.nan
    before = learner.critic_optimizer.flat.clone()
    stats = update(agent)
    assert float(stats["non_finite/critic"]["agent"]) == 1
    assert torch.equal(learner.critic_optimizer.flat, before)


@pytest.mark.parametrize("size", [1e30, 1e-30])
def test_no_loss_need_be_scaled(size: float) -> None:
    """bfloat16 has the range of float32: what is large does not overflow, and small gradients are not lost."""
    layer = Linear(2, 1, None)
    nn.init.constant_(layer.weight, 1.0)
    layer.bf16 = True
    out = layer(torch.full((3, 2), size))
    assert out.flatten().tolist() == pytest.approx([2 * size] * 3, rel=2**-7)
    (gradient,) = torch.autograd.grad(out.sum(), [layer.weight])
    assert gradient.flatten().tolist() == pytest.approx([3 * size] * 2, rel=2**-7)


def test_a_run_in_bf16_goes_on_exactly_and_is_another_than_in_float32(tmp_path: Path, quick_measurements: None) -> None:
    for name, more in (("whole", []), ("first", ["--total-steps", "96"]), ("plain", ["--amp", "off"])):
        assert runs.train(tmp_path / name, "--quiet", "--amp", "bf16", "--algo.lr-schedule", "constant", *more) == 0
    from marl_stable.cli import main

    assert main(["train", "--resume", str(tmp_path / "first"), "--total-steps", "240", "--quiet"]) == 0
    runs.assert_same_run(tmp_path / "whole", tmp_path / "first")
    whole, plain = (runs.networks(tmp_path / name)["agent"]["actor"] for name in ("whole", "plain"))
    assert any(not torch.equal(whole[name], plain[name]) for name in whole)
