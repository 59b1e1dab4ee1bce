"""An update taken apart names what does not learn."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from marl_stable.agents import ppo, ppo_learner
from marl_stable.agents.ddpg_learner import DDPGLearner
from marl_stable.agents.group_learner import GroupLearner
from marl_stable.buffers import ChunkedRollout
from marl_stable.investigate import dissection
from tests.investigate.failing import by_name, failed

Patch = pytest.MonkeyPatch


def apart(network: str, monkeypatch: Patch, only: str = "") -> None:
    """The optimiser moves copies of the network's parameters (those whose names end so), and not the network's."""
    real = GroupLearner._add_optimizers

    def add(self: Any, *arguments: Any) -> None:
        real(self, *arguments)
        for name, parameter in getattr(self, network).named_parameters():
            if name.endswith(only):
                parameter.data = parameter.data.clone()

    monkeypatch.setattr(GroupLearner, "_add_optimizers", add)


@pytest.mark.parametrize(("network", "algorithm"), [("critic", "mappo"), ("actor", "ippo"), ("actor", "maddpg")])
def test_an_optimiser_that_holds_other_parameters(network: str, algorithm: str, monkeypatch: Patch) -> None:
    apart(network, monkeypatch)
    check = dissection.update("Aim", algorithm)[0]
    assert failed(check, f"an update does not change {network}.", "untrained_parameters")
    other = "actor" if network == "critic" else "critic"
    assert f"{other}." not in check.meaning.replace(f"target_{other}.", "")
    checks = by_name(dissection.overfit("Aim", algorithm))
    meaning = {"critic": "the critic does not fit a fixed batch", "actor": "the actor does not climb"}[network]
    assert failed(checks[f"aim/{network}_overfit"], meaning, "untrained_parameters")
    assert checks[f"aim/{other}_overfit"].ok


def test_a_memory_that_is_not_the_one_acted_on(monkeypatch: Patch) -> None:
    real = ChunkedRollout.write_memory
    monkeypatch.setattr(ChunkedRollout, "write_memory", lambda self, t, x: real(self, t, torch.zeros_like(x)))
    moved, first = dissection.update("Remember", "mappo")
    assert moved.ok
    assert failed(first, "the policy that learns is not the one that acted", "ratio_explosion")


def test_a_single_tensor_left_out_is_named(monkeypatch: Patch) -> None:
    apart("actor", monkeypatch, only="free_log_std")
    check = dissection.update("Aim", "mappo")[0]
    assert failed(check, "an update does not change actor.free_log_std", "untrained_parameters")
    assert check.found == 1


def test_targets_that_never_follow(monkeypatch: Patch) -> None:
    monkeypatch.setattr(DDPGLearner, "follow", lambda self: None)
    (check,) = dissection.update("Aim", "matd3")
    assert failed(check, "target_actor.", "untrained_parameters")
    names = check.meaning.removeprefix("an update does not change ").split(", ")
    assert {name.partition(".")[0] for name in names} == {"target_actor", "target_critic"}


def test_an_actor_that_goes_down(monkeypatch: Patch) -> None:
    real = ppo.policy_loss

    def down(*arguments: Any, **settings: Any) -> tuple[Tensor, ppo.Terms]:
        loss, terms = real(*arguments, **settings)
        return -loss, terms

    monkeypatch.setattr(ppo_learner, "policy_loss", down)
    checks = by_name(dissection.overfit("Aim", "ippo"))
    assert failed(checks["aim/actor_overfit"], "the actor does not climb its own objective", "untrained_parameters")
    assert checks["aim/actor_overfit"].found < 0
    assert checks["aim/critic_overfit"].ok
