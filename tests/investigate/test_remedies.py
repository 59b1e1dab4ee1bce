"""What an experiment tries, and what of it can begin in the midst of a run."""

from __future__ import annotations

from typing import Any

import pytest

from marl_stable import configs
from marl_stable.config import RunConfig
from marl_stable.investigate.remedies import Remedy, continuable, remedies


def resolved(text: str = "algo: {name: mappo}") -> RunConfig:
    return configs.resolve(configs.parse(text, "mine.yaml"))


def finding(cause: str, **config: Any) -> dict[str, Any]:
    return {"cause": cause, "config": config}


def tried(text: str, *findings: dict[str, Any], reward_std: float | None = None) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for remedy in remedies(findings, resolved(text), reward_std):
        found.setdefault(remedy.cause, []).append(remedy.config)
    return found


def test_a_plain_network_is_given_every_usual_measure() -> None:
    found = tried("measures: none\nalgo: {name: mappo, lr: 0.01, critic_lr: 0.02}")
    assert list(found) == [
        "learning_rate_too_high",
        "exploding_gradients",
        "observation_scale",
        "reward_scale_too_large",
        "actor_saturation",
    ]
    assert found["learning_rate_too_high"] == [{"algo.lr": pytest.approx(1e-3), "algo.critic_lr": pytest.approx(2e-3)}]
    assert found["actor_saturation"] == [{"algo.action_penalty": 1e-2, "algo.network.final_init": 3e-3}]


def test_what_a_run_has_is_not_tried() -> None:
    assert list(tried("algo: {name: mappo}")) == ["learning_rate_too_high", "actor_saturation"]
    assert tried("algo: {name: maddpg}")["actor_saturation"] == [{"algo.action_penalty": pytest.approx(0.1)}]


def test_small_rewards_are_told_from_large_ones() -> None:
    assert "reward_scale_too_small" in tried("measures: none", reward_std=1e-3)


def test_what_the_diagnosis_proposes_comes_first_and_nothing_twice() -> None:
    proposed = (
        finding("reward_outliers", **{"algo.normalize_reward": True}),
        finding("lazy_agent"),  # proposes nothing
        finding("observation_constant", **{"algo.normalize_obs": True, "nothing.known": 3}),
        finding("entropy_collapse", **{"algo.entropy_coef": 0.01}),  # as it is
    )
    found = tried("measures: none", *proposed)
    assert list(found)[:2] == ["reward_outliers", "observation_constant"]
    assert found["observation_constant"] == [{"algo.normalize_obs": True}]
    assert {"observation_scale", "reward_scale_too_large", "lazy_agent", "entropy_collapse"}.isdisjoint(found)


def test_a_remedy_that_the_algorithm_refuses_is_not_tried_and_no_more_than_four_are_taken_from_the_diagnosis() -> None:
    assert "a" not in tried("algo: {name: maddpg}", finding("a", **{"algo.network.recurrent": "gru"}))
    assert "a" in tried("algo: {name: mappo}", finding("a", **{"algo.network.recurrent": "gru"}))
    many = [finding(name, **{"algo.weight_decay": 10.0**-i}) for i, name in enumerate("abcdef", start=1)]
    assert list(tried("measures: none", *many))[:5] == ["a", "b", "c", "d", "learning_rate_too_high"]


@pytest.mark.parametrize(
    ("config", "shrinks", "can"),
    [
        ({"algo.lr": 1e-3, "algo.max_grad_norm": 0.5}, False, True),
        ({"algo.max_grad_norm": "adaptive"}, False, False),
        ({"algo.normalize_obs": True}, False, False),
        ({"algo.lr": 1e-3, "algo.network.norm": "layer"}, False, False),
        ({"env.reward": "mean"}, False, False),
        ({"algo.gamma": 0.9}, False, False),
        ({"algo.network.final_init": 3e-3, "algo.action_penalty": 0.1}, True, True),
        ({"algo.network.final_init": 3e-3}, False, False),
    ],
)
def test_what_can_begin_in_the_midst_of_a_run(config: dict[str, Any], shrinks: bool, can: bool) -> None:
    assert continuable(Remedy("", "", config, shrinks), resolved()) is can
