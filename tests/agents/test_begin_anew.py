"""Episodes that are lost between two steps: from there on everything is as if they had been cut off."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from marl_stable.agents import algorithm
from marl_stable.agents.config import default_config
from marl_stable.conversion import override
from marl_stable.envs.probe import Relay
from marl_stable.types import Box, Discrete, EnvSpec, Group, PerGroup, Step
from tests.runs import assert_equal

CPU = torch.device("cpu")
COPIES, STEPS = 3, 6
LOST = torch.tensor([False, True, False])
SPEC = EnvSpec(
    "two kinds",
    ("a_0", "a_1", "b_0"),
    (Group("a", ("a_0", "a_1"), 3, Discrete(3), "team"), Group("b", ("b_0",), 2, Box((-1.0,), (1.0,)), "team")),
)
SIZES = {"a": (COPIES, 2, 3), "b": (COPIES, 1, 2)}
PPO: dict[str, Any] = {"batch_size": COPIES * STEPS, "num_minibatches": 1}
DDPG: dict[str, Any] = {"train_every": COPIES * STEPS, "steps_per_update": 9, "batch_size": 8, "warm_up": 0}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "mappo": ("mappo", PPO),
    "memory": ("mappo", PPO | {"chunk_length": 4, "network": {"recurrent": "lstm"}}),
    "local memory": ("ippo", PPO | {"chunk_length": 3, "network": {"recurrent": "gru"}}),
    "maddpg": ("maddpg", DDPG | {"buffer_size": COPIES * 8}),
}


def make(variant: str, spec: EnvSpec = SPEC) -> Any:
    name, settings = VARIANTS[variant]
    network = {"hidden": [8]} | settings.get("network", {})
    config = override(default_config(name), settings | {"gamma": 0.9, "network": network})
    return algorithm(name)(spec, config, COPIES, CPU, seed=0)


def drawn(seed: int) -> PerGroup:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(size, generator=generator) for name, size in SIZES.items()}


def nobody() -> dict[str, Tensor]:
    return {name: torch.zeros(size[:2], dtype=torch.bool) for name, size in SIZES.items()}


def outcome(t: int, *, cut: bool) -> Step:
    """Step `t`; with `cut` an environment's own time limit for the copies `LOST`."""
    after, reward = drawn(2 * t), {name: x[..., 0] for name, x in drawn(2 * t + 1).items()}
    alive, terminated = {name: ~x for name, x in nobody().items()}, nobody()
    if not cut:
        return Step(after, after, reward, terminated, nobody(), alive, torch.zeros(COPIES, dtype=torch.bool))
    truncated = {name: LOST.unsqueeze(1).expand_as(x).clone() for name, x in nobody().items()}
    return Step(begun(after), after, reward, terminated, truncated, alive, LOST)


def begun(obs: PerGroup) -> PerGroup:
    """`obs` with the first observations of new episodes in the copies `LOST`."""
    return {name: torch.where(LOST.reshape(-1, 1, 1), new, obs[name]) for name, new in drawn(999).items()}


def learned(variant: str, at: int, *, lost: bool, batches: int = 2) -> Any:
    """An agent after some batches, with new episodes from step `at` on: old ones were cut off, or lost."""
    agent, obs = make(variant), drawn(1000)
    for t in range(1, batches * STEPS + 1):
        agent.act(obs)
        step = outcome(t, cut=t == at and not lost)
        agent.observe(step)
        obs = step.obs
        if t == at and lost:
            obs = begun(obs)
            agent.begin_anew(LOST, obs)
        if agent.ready():
            assert agent.update(t / 100, lambda: False) is not None
    return agent


@pytest.mark.parametrize("at", [1, 3, 4, STEPS, STEPS + 2])  # within chunks, where they meet, and with the batch full
@pytest.mark.parametrize("variant", VARIANTS)
def test_an_episode_lost_in_a_batch_is_one_that_was_cut_off(variant: str, at: int) -> None:
    lost, cut, neither = (
        learned(variant, at, lost=True),
        learned(variant, at, lost=False),
        learned(variant, 0, lost=True),
    )
    assert_equal(lost.state_dict(), cut.state_dict())
    assert_equal(lost.rings().groups, cut.rings().groups)
    with pytest.raises(AssertionError):
        assert_equal(lost.state_dict(), neither.state_dict())


@pytest.mark.parametrize("variant", ["memory", "local memory"])
def test_nothing_is_remembered_of_an_episode_lost_between_batches(variant: str) -> None:
    agent, obs = learned(variant, 0, lost=True, batches=1), begun(drawn(2 * STEPS))
    agent.begin_anew(LOST, obs)
    for name, learner in agent.learners.items():
        first, later = agent.policy(obs)[name], learner.recall(obs[name], learner.rollout.memory)[0]
        numbers = [x.logits if name == "a" else x.mean for x in (first, later)]
        same = [torch.equal(*pair) for pair in zip(*numbers, strict=True)]
        assert same == LOST.tolist()
        assert learner.rollout.begins[0].tolist() == LOST.tolist()  # so that the critic forgets as well


@pytest.mark.parametrize("variant", VARIANTS)
def test_agents_of_a_new_episode_have_lived_for_no_step(variant: str) -> None:
    agent = learned(variant, 0, lost=True, batches=1)
    agent.begin_anew(LOST, begun(drawn(2 * STEPS)))
    for learner in agent.learners.values():
        assert [set(ages) for ages in learner.history.age.tolist()] == [{STEPS}, {0}, {STEPS}]


@pytest.mark.parametrize("before", range(1, 8))
def test_no_turn_leads_from_a_lost_episode_into_the_next(before: int) -> None:
    env = Relay(COPIES, CPU)
    agent, obs = make("maddpg", env.spec), env.reset(0)
    for _ in range(before):
        step = env.step(agent.act(obs))
        agent.observe(step)
        obs = step.obs
    everyone = torch.ones(COPIES, dtype=torch.bool)
    old = {name: replay["alive"][:before].clone() for name, replay in agent.rings().groups.items()}
    obs = env.reset(1)
    agent.begin_anew(everyone, obs)
    assert agent.rings().settled == before
    for _ in range(8 - before):
        step = env.step(agent.act(obs))
        agent.observe(step)
        obs = step.obs
    for name, replay in agent.rings().groups.items():
        assert torch.equal(replay["alive"][:before], old[name])
    assert before > 5 or any(replay["alive"][before:].any() for replay in agent.rings().groups.values())
