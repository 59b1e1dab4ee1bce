"""One small update of a copy: what it leaves as it was, how far it goes, and what it can reach."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from marl_stable.agents.config import default_config
from marl_stable.agents.ddpg_learner import DDPGLearner
from marl_stable.envs.probe import Match
from marl_stable.investigate import preflight
from marl_stable.investigate.dry_run import ALARM, ALIKE, NOT_FINITE, STAYED, UNTOUCHED, WARN, ranges, small_copy
from marl_stable.networks.actors import PolicyBody
from marl_stable.optim import GuardedAdam
from marl_stable.types import Box
from tests.investigate.games import (
    CPU,
    Healthy,
    agent_for,
    inspected,
    prepared,
)


def skip(monkeypatch: pytest.MonkeyPatch, index: int) -> None:
    """Optimisers that leave one parameter of each network as it was."""
    step = GuardedAdam.move

    def forgetful(self: GuardedAdam, *arguments: Any, **more: Any) -> Any:
        before = self.parameters[index].detach().clone()
        stats = step(self, *arguments, **more)
        self.parameters[index].data.copy_(before)
        return stats

    monkeypatch.setattr(GuardedAdam, "move", forgetful)


@pytest.mark.parametrize("algo", ["mappo", "maddpg"])
def test_a_tensor_that_the_optimiser_skips_is_named(algo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, _ = prepared(Healthy(20, CPU), algo)
    learner = agent.learners["agent"]
    names = {part: list(dict(getattr(learner, part).named_parameters())) for part in ("actor", "critic")}
    skip(monkeypatch, 1)
    found = inspected(Healthy(20, CPU), algo)["untrained"]
    expected = [(part, names[part][1]) for part in ("actor", "critic")]
    assert [(x["network"], x["tensor"]) for x in found] == expected
    assert {(x["group"], x["why"]) for x in found} == {("agent", STAYED)}


def test_where_agents_are_apart_the_agent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    step = GuardedAdam.move

    def second_stays(self: GuardedAdam, *arguments: Any, **more: Any) -> Any:
        before = self.flat[1:].clone()
        stats = step(self, *arguments, **more)
        self.flat[1:].copy_(before)
        return stats

    monkeypatch.setattr(GuardedAdam, "move", second_stays)
    found = inspected(Healthy(20, CPU), "ippo", share=False)["untrained"]
    assert {x["agent"] for x in found} == {"agent_1"}
    assert {x["network"] for x in found} == {"actor", "critic"}


def test_targets_that_do_not_follow_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DDPGLearner, "follow", lambda self: None)
    found = inspected(Healthy(20, CPU), "maddpg")["untrained"]
    assert [(x["network"], x["tensor"]) for x in found] == [("target_actor", "all"), ("target_critic", "all")]


class Nothing(Match):
    """Nothing is seen or paid, in one step."""

    def _begin(self) -> Tensor:
        return self._constant(1.0)

    def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(self.obs.squeeze(-1)), self._constant(1.0)


class Blind(Match):
    """Nothing is seen: the first layer's weights have nothing to multiply."""

    def _begin(self) -> Tensor:
        return self._constant(1.0)

    def _play(self, action: Tensor) -> tuple[Tensor, Tensor]:
        return (action == 1).float(), self._constant(1.0)


def test_where_there_was_no_gradient_it_is_said_why() -> None:
    found = inspected(Nothing(20, CPU), entropy_coef=0.0)["untrained"]
    assert {x["why"] for x in found} == {ALIKE}
    assert {x["network"] for x in found} >= {"actor"}
    found = inspected(Blind(20, CPU), "ippo")["untrained"]
    assert {(x["tensor"], x["why"]) for x in found} == {
        ("body.network.hidden.0.weight", UNTOUCHED),
    }


def test_a_gradient_that_is_not_finite_is_named() -> None:
    class Broken(Healthy):
        def paid(self, reward: Tensor) -> Tensor:
            return torch.full_like(reward, torch.nan)

    found = inspected(Broken(20, CPU), normalize_value=False, normalize_reward=False)
    assert {"group": "agent", "network": "critic"} in found["non_finite"]
    assert {x["why"] for x in found["untrained"] if x["network"] == "critic"} == {NOT_FINITE}


@pytest.mark.parametrize("squash", [True, False])
def test_the_networks_range_is_the_environments(squash: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wide(Healthy):
        action = Box((-3e6, 0.0), (5e6, 0.01))

    nothing: dict[str, list[int]] = {"zero_width": [], "infinite": [], "mismatch": []}
    assert inspected(Wide(20, CPU), squash=squash)["range"] == {"agent": nothing}
    assert inspected(Wide(20, CPU), "maddpg")["range"] == {"agent": nothing}
    monkeypatch.setattr(PolicyBody, "_scaled", lambda self, canonical: canonical * torch.tensor([1.0, 2.0]))
    assert inspected(Healthy(20, CPU), "maddpg")["range"] == {"agent": nothing}
    monkeypatch.setattr(PolicyBody, "_scaled", lambda self, canonical: canonical)
    assert inspected(Healthy(20, CPU), "maddpg")["range"] == {"agent": nothing | {"mismatch": [1]}}


def test_no_bounds_are_infinite() -> None:
    class Unbounded(Healthy):
        action = Box((-1.0, -np.inf), (1.0, np.inf))

    found = ranges(small_copy(agent_for(Unbounded(4, CPU), "mappo", squash=False), 4))
    assert found["agent"]["infinite"] == [1]
    assert found["agent"]["zero_width"] == []


def test_the_first_step_is_the_rate_times_the_size_of_the_last_hidden_layer() -> None:
    env = Healthy(20, CPU)
    agent, played = prepared(env, "maddpg", lr=1e-3, actor_lr=5e-4)
    learner = agent.learners["agent"]
    obs = played.obs["agent"]
    with torch.no_grad():
        hidden = learner.actor.body.network.hidden(
            learner.actor.body._introduced(learner.normalized(obs)).flatten(0, 1)
        )
    reach = preflight.inspect(agent, env, played, 1)["first_step"]["agent"]
    assert reach == {
        "value": pytest.approx(5e-4 * float(hidden.abs().sum(-1).mean()), rel=0.05),
        "warn": WARN,
        "alarm": ALARM,
    }


@pytest.mark.parametrize("algo", ["mappo", "maddpg"])
def test_the_budget_leaves_defaults_in_peace_and_warns_of_thirty_times_the_rate(algo: str) -> None:
    default = default_config(algo)
    values = []
    for factor in (1, 30):
        found = inspected(Healthy(20, CPU), algo, network=default.network, lr=factor * default.lr)
        values.append(found["first_step"]["agent"]["value"])
    assert values[0] < WARN / 2 < WARN < values[1]
