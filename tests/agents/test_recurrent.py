"""Recurrent MAPPO and IPPO: they remember what must be remembered, and learn from what they really remembered."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from marl_stable.acting import by_agent
from marl_stable.agents.config import MAPPOConfig
from marl_stable.agents.mappo import MAPPO
from marl_stable.agents.recurrent_learner import RecurrentPPOLearner
from marl_stable.cli.train import train_config
from marl_stable.config import NetworkConfig, NetworkOverride
from marl_stable.envs.base import BatchedEnv
from marl_stable.envs.particle import make
from marl_stable.envs.probe import Remember
from marl_stable.evaluation import Remembering, play
from marl_stable.types import PerGroup, UsageError
from tests.agents.loops import CPU, assert_same, collect, copied, make_agent, through_a_file, train, update
from tests.agents.test_mappo import ONE_GROUP, TWO_GROUPS, Patchwork

Kind = Literal["none", "gru", "lstm"]
EVERY = [(algo, kind, share) for algo in ("mappo", "ippo") for kind, share in (("gru", True), ("lstm", False))]


def remembering(kind: Kind = "gru", width: int = 16) -> NetworkConfig:
    """A network whose answers differ from the start."""
    return NetworkConfig(hidden=(width,), recurrent=kind, final_init=None)


def begun(
    name: str = TWO_GROUPS, algo: str = "mappo", continuous: bool = False, **settings: Any
) -> tuple[MAPPO, BatchedEnv, PerGroup]:
    """An agent, its environment with episodes of 6 steps, and first observations; batches are 20 steps of 8 copies."""
    env = make(name, 8, CPU, continuous_actions=continuous, max_cycles=6)
    small: dict[str, Any] = {"batch_size": 160, "update_epochs": 2, "network": remembering(), "chunk_length": 7}
    agent = make_agent(env, algo, **(small | settings))
    obs = env.reset(1)
    agent.initialize_statistics(obs)
    return agent, env, obs


def learner_of(agent: MAPPO, name: str) -> RecurrentPPOLearner:
    learner = agent.learners[name]
    assert isinstance(learner, RecurrentPPOLearner)
    return learner


# ---- what cannot be done without a memory


def played(algo: str, kind: Kind, share: bool, iterations: int) -> float:
    """The return of greedy play in the game of remembering, after so many iterations of 5 steps in 64 copies."""
    env = Remember(64, CPU)
    network = NetworkConfig(hidden=(32,), recurrent=kind)
    agent = make_agent(env, algo, share=share, lr=5e-3, network=network)
    obs = env.reset(1)
    agent.initialize_statistics(obs)
    train(agent, env, obs, iterations)
    return float(play(Remember(512, CPU), by_agent(agent), 512, seed=99).mean_returns().mean())


@pytest.mark.parametrize(("algo", "kind", "share"), [*EVERY, ("mappo", "lstm", True), ("ippo", "gru", True)])
def test_what_was_seen_at_first_is_done_at_last(algo: str, kind: Kind, share: bool):
    assert played(algo, kind, share, 15) == Remember.best_return


@pytest.mark.parametrize("algo", ["mappo", "ippo"])
def test_a_policy_without_memory_cannot(algo: str):
    assert played(algo, "none", True, 20) == pytest.approx(Remember.best_forgetful_return, abs=0.06)


# ---- learning from what was remembered


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize(("algo", "kind", "share"), EVERY)
def test_before_the_first_step_ratios_are_1_and_values_those_of_the_batch(
    algo: str, kind: Kind, share: bool, continuous: bool
):
    """Chunks of 7 steps, the last one short of one; episodes of 6, so that they are cut, and memory is, at both."""
    settings: dict[str, Any] = {"network": remembering(kind), "share": share, "normalize_value": False}
    agent, env, obs = begun(algo=algo, continuous=continuous, **settings)
    obs = train(agent, env, obs, 2)
    collect(agent, env, obs)
    batches, _ = agent._batches()
    draw = torch.Generator().manual_seed(0)
    for name in agent.learners:
        learner = learner_of(agent, name)
        assert (learner.rollout.chunks, learner.rollout.length, learner.samples) == (3, 7, 24)
        seen = 0
        for index in torch.randperm(24, generator=draw).split(5):
            part = learner.part(batches[name], index)
            counts = part.alive > 0
            ratio = (learner._policy(part).log_prob(part.action) - part.log_prob).exp()[counts]
            torch.testing.assert_close(ratio, torch.ones_like(ratio), atol=1e-5, rtol=0)
            torch.testing.assert_close(learner._value(part)[counts], part.value[counts], atol=1e-4, rtol=1e-5)
            seen += int(part.alive.sum())
        assert seen == 160 * len(learner.group.agents)  # every step once, and the padding never
        assert learner.rollout.starts.abs().sum() > 0
        assert part.past is not None
        shuffled = part._replace(past=part.past._replace(actor=torch.rand_like(part.past.actor)))
        off = learner._policy(shuffled).log_prob(part.action) - part.log_prob
        assert off.abs().max() > 1e-3  # what was remembered does matter


@pytest.mark.parametrize(("algo", "kind", "share"), EVERY)
def test_values_follow_each_episode_to_what_it_really_led_to(algo: str, kind: Kind, share: bool):
    """With agents that die early, copies that end at random, and memories from the rollout before."""
    env = Patchwork()
    settings: dict[str, Any] = {"normalize_obs": False, "normalize_value": False, "chunk_length": 6, "share": share}
    still: dict[str, Any] = {"lr": 1e-30, "batch_size": 100}  # so that what was remembered stays that of these weights
    agent = make_agent(env, algo, network=remembering(kind), **settings, **still)
    learner = learner_of(agent, "g")
    obs, memory = env.reset(3), learner.critic.no_memory(5)
    never = torch.zeros(1, 5, dtype=torch.bool)

    @torch.no_grad()
    def value(obs: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        found, after = learner.critic.sequence((obs.flatten(1) if algo == "mappo" else obs).unsqueeze(0), memory, never)
        return found[0], after[0]

    for _ in range(2):
        first = obs["g"]
        obs, steps = collect(agent, env, obs)
        expected, ends = [], []
        for seen, step in zip([first, *(step.obs["g"] for step in steps)], steps, strict=False):
            now, memory = value(seen, memory)
            expected.append(now)
            if step.next_obs is not step.obs:
                ends.append(value(step.next_obs["g"], memory)[0])
            memory = torch.where(step.done.reshape(-1, *[1] * (memory.dim() - 1)), 0.0, memory)
        expected.append(value(obs["g"], memory)[0])
        assert len(ends) > 5
        every = torch.cat([learner.rollout.obs, *(x.unsqueeze(0) for x in learner.rollout.final_obs.values())])
        with torch.no_grad():
            found = learner._values(every.flatten(2) if algo == "mappo" else every)
        torch.testing.assert_close(found, torch.stack([*expected, *ends]), atol=1e-5, rtol=1e-5)
        update(agent)


def test_gradients_and_statistics_leave_padding_and_the_dead_out():
    env = Patchwork()
    agent = make_agent(env, batch_size=100, network=remembering(), chunk_length=6, normalize_advantage=False)
    collect(agent, env, env.reset(3))
    learner = learner_of(agent, "g")
    batch = agent._batches()[0]["g"]
    part = learner.part(batch, torch.arange(learner.samples))
    assert part.alive.sum() == batch.alive.sum()
    assert (part.alive == 0).sum() > 0
    before = copied(agent.state_dict())
    noise = torch.where(part.alive > 0, 0.0, 1e3)
    outcomes = []
    for extra in (0.0, noise):
        agent.load_state_dict(copied(before))
        changed = part._replace(advantage=part.advantage + extra, target=part.target - extra)
        learner.learn(changed, 1.0, 1.0)
        outcomes.append(copied(learner.state_dict()))
    assert_same(outcomes[0], outcomes[1])


def test_one_agents_bad_memory_costs_its_own_step_alone():
    agent, env, obs = begun(ONE_GROUP, "ippo", share=False)
    collect(agent, env, obs)
    learner = learner_of(agent, "agent")
    learner.rollout.starts[:, :, 1] = torch.nan
    before = copied(learner.state_dict())
    stats = update(agent)
    assert (stats["non_finite/actor"]["agent"] > 0).tolist() == [False, True, False]
    moved = [
        [not torch.equal(value[a], before["actor"][key][a]) for key, value in learner.actor.state_dict().items()]
        for a in range(3)
    ]
    assert all(moved[0])
    assert all(moved[2])
    assert not any(moved[1])


@pytest.mark.parametrize("part", ["actor_network", "critic_network"])
@pytest.mark.parametrize("algo", ["mappo", "ippo"])
def test_one_network_may_remember_without_the_other(algo: str, part: str):
    settings: dict[str, Any] = {part: NetworkOverride(recurrent="lstm"), "network": remembering("none")}
    agent, env, obs = begun(algo=algo, **settings)
    train(agent, env, obs, 2)
    sizes = {}
    for name, network in (("actor_network", "actor"), ("critic_network", "critic")):
        sizes[name] = getattr(agent.learners["listener"], network).no_memory(1).shape[-1]
    assert sizes == {"actor_network": 0, "critic_network": 0} | {part: 32}


def test_recurrent_weights_decay_and_biases_do_not():
    agent, _, _ = begun(weight_decay=0.1)
    optimizer = agent.learners["listener"].actor_optimizer
    decays = optimizer.decays.split([p.numel() for p in optimizer.parameters])
    named = dict(zip(dict(agent.learners["listener"].actor.named_parameters()), decays, strict=True))
    recurrent = {name: bool(x.all()) for name, x in named.items() if "recurrent" in name}
    assert {name: name.endswith("weight") for name in recurrent} == recurrent
    assert len(recurrent) == 6


@pytest.mark.parametrize(
    ("steps", "wanted", "found"), [(25, 10, (3, 9)), (20, 7, (3, 7)), (5, 10, (1, 5)), (1, 1, (1, 1))]
)
def test_chunks_are_of_even_length(steps: int, wanted: int, found: tuple[int, int]):
    agent, _, _ = begun(batch_size=8 * steps, chunk_length=wanted, num_minibatches=1)
    rollout = learner_of(agent, "speaker").rollout
    assert (rollout.chunks, rollout.length) == found
    rows, counts = rollout.rows(torch.arange(rollout.chunks * 8))
    assert rows.shape == (found[1], found[0] * 8)
    assert sorted(rows[counts].tolist()) == list(range(steps * 8))
    assert torch.equal(rows % 8, torch.arange(8).repeat(found[0]).expand_as(rows))  # a chunk stays in its copy
    follow = (rows[1:] - rows[:-1])[counts[1:]]
    assert follow.eq(8).all()


# ---- settings


@pytest.mark.parametrize("network", ["network", "actor_network", "critic_network"])
@pytest.mark.parametrize("algo", ["maddpg", "matd3", "iddpg"])
def test_replays_of_single_steps_teach_no_memory(algo: str, network: str):
    flag = f"--algo.{network.replace('_', '-')}.recurrent"
    said = rf"^algo.{network}.recurrent is 'gru', which {algo} does not have; use mappo or ippo, or none\.$"
    with pytest.raises(UsageError, match=said):
        train_config(["--algo", algo, flag, "gru"])
    assert train_config(["--algo", algo, flag, "none"])


def test_memory_is_a_flag_that_the_plain_algorithm_keeps():
    for line in ("--algo.network.recurrent lstm", "--algo.critic-network.recurrent gru --measures none"):
        algo: Any = train_config(["--algo", "ippo", *line.split()]).algo
        assert algo.recurrent
    assert not MAPPOConfig().recurrent
    everywhere = ["--algo.network.recurrent", "gru"]
    for flags, recurrent in ((("actor",), True), (("actor", "critic"), False)):
        off = [word for name in flags for word in (f"--algo.{name}-network.recurrent", "none")]
        algo = train_config([*everywhere, *off]).algo
        assert algo.recurrent is recurrent
    with pytest.raises(UsageError, match=r"algo.chunk_length is 0; it must be at least 1"):
        train_config(["--algo.chunk-length", "0"])


# ---- acting, and going on


@pytest.mark.parametrize(("algo", "kind", "share"), EVERY)
def test_a_player_remembers_what_the_learner_did(algo: str, kind: Kind, share: bool):
    agent, env, obs = begun(algo=algo, network=remembering(kind), share=share)
    player = agent.player()
    for t in range(20):
        answers = player(obs)
        step = env.step(agent.act(obs))
        agent.observe(step)
        for name, learner in agent.learners.items():
            kept = learner.rollout
            answer: Any = answers[name]
            torch.testing.assert_close(answer.log_prob(kept.action[t]), kept.log_prob[t])
            if t % 6 == 0:  # an episode's first step
                torch.testing.assert_close(agent.policy(obs)[name].mode(), answers[name].mode())
        if step.next_obs is not step.obs:
            player.ended(step.done)
        obs = step.obs


class Checked:
    """Acts in all copies at once, and checks each against a player of its own that is new in each episode."""

    def __init__(self, agent: MAPPO, copies: int) -> None:
        self.agent, self.episodes = agent, 0
        self.act, self.alone = by_agent(agent), [agent.player() for _ in range(copies)]

    def __call__(self, obs: PerGroup) -> PerGroup:
        action = self.act(obs)
        for copy, player in enumerate(self.alone):
            mode = player({"g": obs["g"][copy : copy + 1]})["g"].mode()
            assert torch.equal(mode, action["g"][copy : copy + 1])
        return action

    def ended(self, done: Tensor) -> None:
        assert isinstance(self.act, Remembering)
        self.act.ended(done)
        for copy in done.nonzero().flatten().tolist():
            self.alone[copy], self.episodes = self.agent.player(), self.episodes + 1


def test_an_evaluation_forgets_the_episodes_that_are_over_and_no_others():
    env = Patchwork(copies=3)
    act = Checked(make_agent(env, batch_size=30, network=remembering()), 3)
    play(env, act, 30, seed=1)
    assert act.episodes >= 29


@pytest.mark.parametrize(("algo", "kind", "share"), EVERY)
def test_state_in_the_middle_of_a_chunk_goes_on_bit_for_bit(algo: str, kind: Kind, share: bool):
    settings: dict[str, Any] = {"algo": algo, "network": remembering(kind), "share": share, "lr_schedule": "kl"}
    agent, env, obs = begun(**settings)
    obs = train(agent, env, obs, 2)
    for _ in range(9):
        step = env.step(agent.act(obs))
        agent.observe(step)
        obs = step.obs
    state = through_a_file({"agent": agent.state_dict(), "env": env.state_dict()})
    fresh, fresh_env, _ = begun(seed=9, **settings)
    fresh.load_state_dict(state["agent"])
    fresh_obs = fresh_env.load_state_dict(state["env"])
    assert_same(fresh.state_dict(), agent.state_dict())
    train(agent, env, obs, 2)
    train(fresh, fresh_env, fresh_obs, 2)
    assert_same(fresh.state_dict(), agent.state_dict())


@pytest.mark.parametrize("when", [0, 3])
def test_an_interrupted_update_changes_nothing(when: int):
    agent, env, obs = begun()
    obs = train(agent, env, obs, 1)
    collect(agent, env, obs)
    twin, _, _ = begun()
    twin.load_state_dict(copied(agent.state_dict()))
    polls = iter(range(100))
    before = copied(agent.state_dict())
    assert agent.update(0.0, lambda: next(polls) == when) is None
    assert_same(agent.state_dict(), before)
    update(agent)
    update(twin)
    assert_same(agent.state_dict(), twin.state_dict())


@pytest.mark.parametrize(("kind", "continuous"), [("gru", False), ("lstm", True)])
def test_signals_of_actions_are_asked_where_the_memory_is_known(kind: Kind, continuous: bool):
    agent, env, obs = begun(continuous=continuous, network=remembering(kind))
    train(agent, env, obs, 2)
    signals = agent.signals(True)
    names = ("actions/saturation", "actions/repeat_ratio", "actions/responsiveness", "sameness")
    assert all(value.isfinite().all() for name in names for value in signals[name].values())
    for name in agent.learners:
        learner = learner_of(agent, name)
        (seen, alive), rollout = learner.probe(), learner.rollout
        probe = learner._ask(seen, learner._memory())
        assert alive.all()
        assert probe.mode().shape[:2] == (24, len(learner.group.agents))
        policy, _ = learner.recall(rollout.obs[7], rollout.starts[1])
        torch.testing.assert_close(probe.mode()[8:16], policy.mode())


def test_batch_normalisation_and_memory_get_along():
    agent, env, obs = begun(network=NetworkConfig(hidden=(16,), norm="batch", recurrent="gru"))
    train(agent, env, obs, 3)
    state = agent.learners["listener"].actor.state_dict()
    assert all(value.isfinite().all() for value in state.values())
