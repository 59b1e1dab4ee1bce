from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import batch_norm

import marl_stable as ms
from benchmarks.faults import distorted
from benchmarks.sabotage import SABOTAGE, at_boundaries, keep_clocks_together, sabotaged
from benchmarks.sabotage.reach import BOTH, networks
from marl_stable import configs
from marl_stable.agents import algorithm
from marl_stable.config import EnvConfig
from marl_stable.envs import catalog
from marl_stable.networks.batchnorm import EPS, BatchNorm
from marl_stable.training import Training
from marl_stable.types import UsageError

CPU, COPIES = torch.device("cpu"), 4
PPO = {"algo": "mappo", "algo__batch_size": 24, "algo__num_minibatches": 2, "algo__update_epochs": 1}
DDPG = {"algo": "maddpg", "algo__train_every": 24, "algo__steps_per_update": 12, "algo__batch_size": 16}
DDPG |= {"algo__warm_up": 0, "algo__buffer_size": 400}
SMALL = {"mappo": PPO, "maddpg": DDPG}
ENV = EnvConfig(id="particle/simple_spread_v3", kwargs={"max_cycles": 5})


def made(algo: str, **flags: Any) -> Training:
    """A training at its first step."""
    flags = {"algo__network__hidden": (8, 8), "algo__gamma": 0.9, **SMALL[algo], **flags}
    config = configs.resolve(configs.nested({**flags, "env__num_envs": COPIES}))
    envs, eval_env = (catalog.make(ENV, CPU, COPIES) for _ in "ab")
    settings: Any = config.algo
    agent = algorithm(algo)(envs.spec, settings, COPIES, CPU, 1)
    return Training(config, agent, envs, eval_env, envs.reset(1))


def collect(run: Training) -> None:
    while not run.agent.ready():
        step = run.envs.step(run.agent.act(run.obs))
        run.agent.observe(step)
        run.obs = step.obs


def iterate(run: Training, times: int = 1) -> Any:
    """Collect and update."""
    stats: Any = None
    for _ in range(times):
        collect(run)
        stats = run.agent.update(0.0, lambda: False)
        run.advance(0.0)
    return stats


def plant(run: Training, name: str, dose: float | None = None) -> None:
    fault = SABOTAGE[name]
    fault.apply(run, fault.dose if dose is None else dose)


def learner(run: Training) -> Any:
    agent: Any = run.agent
    return agent.learners["agent"]


def weights(run: Training, name: str) -> Tensor:
    flat: Tensor = getattr(learner(run), f"{name}_optimizer").flat
    return flat.clone()


EVERY = [
    (name, algo) for name, x in SABOTAGE.items() for algo in SMALL if {"mappo": "ppo"}.get(algo, "ddpg") in x.families
]


@pytest.mark.parametrize(("name", "algo"), EVERY)
def test_every_fault_can_be_planted_and_learned_with(name: str, algo: str) -> None:
    run = made(algo, **SABOTAGE[name].flags)
    iterate(run)
    plant(run, name)
    assert iterate(run, 2) is not None
    run.agent.state_dict()
    run.agent.rings()


@pytest.mark.parametrize("algo", SMALL)
@pytest.mark.parametrize("which", BOTH)
def test_a_learning_rate_holds_for_the_networks_it_is_meant_for(algo: str, which: str) -> None:
    steps = {}
    for planted in (False, True):
        run = made(algo, algo__num_minibatches=1) if algo == "mappo" else made(algo, algo__steps_per_update=24)
        if planted:
            plant(run, f"{which}_learning_rate_high", 100.0)
        collect(run)
        before = {name: weights(run, name) for name in BOTH}
        run.agent.update(0.0, lambda: False)
        steps[planted] = {name: weights(run, name) - before[name] for name in BOTH}
    for name in BOTH:
        if name == which:
            torch.testing.assert_close(steps[True][name], 100 * steps[False][name], rtol=1e-2, atol=1e-5)
        elif algo == "mappo":  # an actor of MADDPG follows a critic that has moved elsewhere
            assert torch.equal(steps[True][name], steps[False][name])


def test_one_gradient_is_a_spike() -> None:
    run = made("mappo")
    plant(run, "actor_gradient_spike", 1e6)
    optimizer = learner(run).actor_optimizer
    norms = []
    for _ in range(3):
        loss = sum(p.square().sum() for p in learner(run).actor.parameters())
        norms.append(float(optimizer.step(loss, 0.0).norm))
    assert norms[0] == pytest.approx(1e6 * norms[1], rel=1e-4)
    assert norms[1] == norms[2]


def test_some_weights_never_move() -> None:
    run = made("mappo")
    plant(run, "frozen_parameters", 1)
    before = {name: p.detach().clone() for name, p in learner(run).actor.named_parameters()}
    iterate(run, 2)
    stuck = [name for name, p in learner(run).actor.named_parameters() if torch.equal(p, before[name])]
    assert stuck == ["body.network.hidden.0.weight"]


def test_targets_stand_still_or_are_current() -> None:
    still, current = made("maddpg"), made("maddpg")
    plant(still, "targets_stand_still")
    plant(current, "targets_are_current")
    before = [p.clone() for p in learner(still).target_critic.parameters()]
    iterate(still)
    iterate(current)
    assert all(map(torch.equal, before, learner(still).target_critic.parameters()))
    assert not torch.equal(before[0], next(learner(still).critic.parameters()))
    for target, learned in (("target_actor", "actor"), ("target_critic", "critic")):
        pair = (getattr(learner(current), name).parameters() for name in (target, learned))
        assert all(map(torch.equal, *pair))
    assert not torch.equal(before[0], next(learner(current).target_critic.parameters()))


def test_values_come_back_too_high() -> None:
    run = made("mappo")
    norm = learner(run).value_norm
    norm.update(5 + 2 * torch.randn(100, 3, generator=torch.Generator().manual_seed(0)))
    truth = norm.inverse(torch.zeros(2, 3))
    plant(run, "value_normaliser", 3.0)
    torch.testing.assert_close(norm.inverse(torch.zeros(2, 3)), truth + 3 * norm.divisor)
    torch.testing.assert_close(norm(truth), torch.zeros(2, 3))


def test_log_probabilities_are_misremembered() -> None:
    run = made("mappo", algo__batch_size=400)
    plant(run, "log_prob_mismatch", 0.5)
    collect(run)
    agent: Any = run.agent
    batches, _ = agent._batches()
    off = batches["agent"].log_prob - learner(run).rollout.log_prob.flatten(0, 1)
    assert abs(off.std() - 0.5) < 0.05
    assert abs(off.mean()) < 0.05


def test_observations_are_moved_while_learning_alone() -> None:
    run, healthy = made("mappo", algo__update_epochs=4), made("mappo", algo__update_epochs=4)
    plant(run, "moved_observations", 6.0)
    obs = run.obs["agent"]
    acted = learner(run).normalized(obs)
    assert torch.equal(acted, learner(run).obs_norm(obs))
    moved, truth = iterate(run), iterate(healthy)
    kl = [float(stats["losses/approx_kl"]["agent"]) for stats in (truth, moved)]
    assert kl[1] > 2 * kl[0]
    assert torch.equal(learner(run).normalized(obs), learner(run).obs_norm(obs))


def test_the_replay_is_never_refreshed() -> None:
    run = made("maddpg", algo__buffer_size=96)
    iterate(run)
    agent: Any = run.agent
    count = agent.t * COPIES
    old = learner(run).draw(torch.arange(count))
    plant(run, "stale_replay")
    rows = torch.arange(96)
    learner(run)._normalize_obs = False  # their statistics go on
    plain = learner(run).replay.obs[: agent.t].flatten(0, 1).clone()
    iterate(run, 5)  # around the ring
    found = learner(run).draw(rows)
    assert torch.equal(found.obs, plain[rows % count])
    assert torch.equal(found.terminated, old.terminated[rows % count])
    assert not torch.equal(learner(run).replay.obs.flatten(0, 1)[:count], plain)


def test_nothing_can_be_stale_before_the_first_step() -> None:
    with pytest.raises(UsageError, match="let it begin later"):
        plant(made("maddpg"), "stale_replay")


@pytest.mark.parametrize(
    ("name", "dose"), [("entropy_coefficient_high", 10.0), ("entropy_coefficient_negative", -10.0)]
)
def test_entropy_is_sought_or_shunned(name: str, dose: float) -> None:
    run = made("mappo", algo__network__final_init=1.0, algo__lr=0.03)
    first = float(iterate(run)["losses/entropy"]["agent"])
    plant(run, name, dose)
    agent: Any = run.agent
    assert agent.config.entropy_coef == 0.01  # what the run says of itself
    assert learner(run).config.entropy_coef == dose
    last = float(iterate(run, 8)["losses/entropy"]["agent"])
    assert last > 1.1 * first if dose > 0 else last < 0.5 * first


def test_nothing_is_explored() -> None:
    run = made("maddpg", algo__warm_up=10_000)
    plant(run, "no_exploration")
    agent: Any = run.agent
    best = agent.policy(run.obs)["agent"].mode()
    for _ in range(3):
        assert torch.equal(run.agent.act(run.obs)["agent"], best)


def test_weights_are_multiplied() -> None:
    run, other = made("maddpg"), made("maddpg")
    final = learner(run).actor.body.network.final.weight.clone()
    critic = weights(run, "critic")
    plant(run, "large_final_layer", 1e3)
    torch.testing.assert_close(learner(run).actor.body.network.final.weight, 1e3 * final)
    assert torch.equal(weights(run, "critic"), critic)
    plant(other, "large_weights", 10.0)
    for network, truth in zip(networks(other, ("critic",)), networks(made("maddpg"), ("critic",)), strict=True):
        for (name, p), (_, q) in zip(network.named_parameters(), truth.named_parameters(), strict=True):
            torch.testing.assert_close(p, 10 * q if name.endswith("weight") else q)


@pytest.mark.parametrize("algo", SMALL)
def test_hidden_units_stay_dead(algo: str) -> None:
    run = made(algo)
    plant(run, "killed_units", 0.5)
    iterate(run, 2)
    for network in networks(run, (*BOTH, "target_critic")):
        first: Any = network.hidden[0]
        hidden = network.hidden(torch.randn(20, len(first.weight)))
        assert (hidden[:, :4] == 0).all()
        assert (hidden[:, 4:] != 0).any()


@pytest.mark.parametrize("algo", SMALL)
@pytest.mark.parametrize("share", [True, False])
def test_agents_are_all_alike(algo: str, share: bool) -> None:
    run = made(algo, algo__share=share)
    plant(run, "identical_agents")
    iterate(run, 2)
    obs = {"agent": run.obs["agent"][:, :1].expand(-1, 3, -1)}
    learner(run)._normalize_obs = False  # those that share nothing have statistics of their own
    agent: Any = run.agent
    logits = agent.policy(obs)["agent"].logits
    torch.testing.assert_close(logits, logits[:, :1].expand_as(logits))


def test_batchnorm_learns_on_the_minibatch_and_acts_on_what_it_remembers() -> None:
    run = made("mappo", algo__network__norm="batch", algo__network__hidden=(8,))
    layer = next(m for m in learner(run).actor.modules() if isinstance(m, BatchNorm))
    x, alive = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)) * 3 + 1, torch.ones(50)
    acting = layer(x)
    plant(run, "batchnorm_mode")
    assert torch.equal(layer(x), acting)
    layer.alive = alive
    expected = batch_norm(x, None, None, layer.gain, layer.bias, training=True, eps=EPS)
    torch.testing.assert_close(layer(x), expected)
    with pytest.raises(UsageError, match=r"set algo\.network\.norm to batch"):
        plant(made("mappo"), "batchnorm_mode")


def test_what_is_remembered_counts_more() -> None:
    run = made("mappo", algo__network__recurrent="gru")
    cells = [network.recurrent for network in networks(run, BOTH)]
    before = [cell.remembered.weight.clone() for cell in cells if cell is not None]
    plant(run, "large_recurrent_weights", 5.0)
    for cell, weight in zip(cells, before, strict=True):
        assert cell is not None
        torch.testing.assert_close(cell.remembered.weight, 5 * weight)
    with pytest.raises(UsageError, match=r"set algo\.network\.recurrent to gru or lstm"):
        plant(made("mappo"), "large_recurrent_weights")


# ---- in a run


def trained(folder: Path, **more: Any) -> list[dict[str, str]]:
    """The rows of `metrics.csv` of a run of eight iterations of 24 steps."""
    flags: dict[str, Any] = {**PPO, "env__num_envs": 4, "env__kwargs": {"max_cycles": 5}, "algo__network__hidden": (8,)}
    ms.train(
        env=ENV.id, run_dir=str(folder), total_steps=192, eval_every=0, eval_episodes=4, quiet=True, **flags, **more
    )
    with (folder / "metrics.csv").open() as lines:
        return list(csv.DictReader(lines))


def test_a_fault_is_planted_once_and_from_its_onset_on(tmp_path: Path, quick_measurements: None) -> None:
    healthy = trained(tmp_path / "healthy")
    calls: list[int] = []
    advance = Training.advance
    with sabotaged("large_final_layer", dose=100.0, onset=96), at_boundaries(lambda run: calls.append(run.steps)):
        ill = trained(tmp_path / "ill")
    assert Training.advance is advance  # nothing is left behind
    assert calls == list(range(0, 193, 24))
    told = [[row["losses/actor"] for row in rows] for rows in (healthy, ill)]
    assert told[1][:4] == told[0][:4]
    assert all(one != other for one, other in zip(told[1][4:], told[0][4:], strict=True))


def test_a_fault_must_be_one_of_the_algorithm() -> None:
    with pytest.raises(UsageError, match="stale_replay is one of ddpg, not of ppo"), sabotaged("stale_replay"):
        made("mappo")
    with pytest.raises(UsageError, match="unknown sabotage 'stale_repla'"), sabotaged("stale_repla"):
        pass


def test_evaluations_have_the_faults_that_training_has_by_then() -> None:
    run = made("mappo")
    late = [{"kind": "reward_zero", "from": 12}]
    run.eval_env = distorted(COPIES, CPU, ENV.id, ENV.kwargs, late)
    for expected in (False, True):
        keep_clocks_together(run)
        obs = run.eval_env.reset(0)
        step = run.eval_env.step({"agent": torch.zeros(obs["agent"].shape[:2], dtype=torch.int64)})
        assert bool((step.reward["agent"] == 0).all()) is expected
        iterate(run, 2)
