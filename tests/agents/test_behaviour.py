"""How policies of every kind answer at a probe, against finite differences, sampling and hand-made policies."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from marl_stable.agents.behaviour import action_counts, action_signals, feature_importance, sameness
from marl_stable.config import NetworkConfig
from marl_stable.networks.actors import Actor, DeterministicActor
from marl_stable.networks.heads import Categorical, Deterministic, Gaussian, MultiCategorical, SquashedGaussian
from marl_stable.types import ActionSpec, Box, Discrete, Group, MultiDiscrete
from tests.agents.test_waiting import waits_in

P, A, FEATURES, D, T, E = 300, 2, 4, 2, 6, 3
BOX = Box((-2.0, 0.0), (2.0, 1.0))
DISCRETE = {"responsiveness", "entropy", "logit_gap", "sameness"}
CONTINUOUS = {"saturation", "responsiveness", "preactivation", "sameness"}
OLD = {"actions/saturation", "actions/repeat_ratio", "actions/responsiveness", "sameness"}
ONCE = torch.zeros(T, E, A, dtype=torch.bool)  # no episode ends


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def actor(spec: ActionSpec, *, stochastic: bool = True, squash: bool = True, masked: bool = False, share: bool = True):
    generator = torch.Generator().manual_seed(1)
    group = Group("g", ("a", "b"), FEATURES, spec, "g", masked)
    config = NetworkConfig(hidden=(16,), final_init=None)
    if stochastic:
        return Actor(group, config, share, squash, generator)
    return DeterministicActor(group, config, share, generator)


def names(found: dict[str, Tensor]) -> set[str]:
    assert found.keys() >= OLD
    return {tag.removeprefix("stability/") for tag in found.keys() - OLD}


# ---- which signals each kind of policy has


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize(
    ("spec", "settings", "expected"),
    [
        (Discrete(FEATURES), {}, DISCRETE),
        (Discrete(FEATURES), {"masked": True}, DISCRETE | {"legal_choices"}),
        (MultiDiscrete((3, 2), (0, 0)), {}, DISCRETE),
        (BOX, {"stochastic": False}, CONTINUOUS | {"attenuation"}),
        (BOX, {}, CONTINUOUS | {"attenuation", "log_std"}),
        (
            BOX,
            {"squash": False},
            CONTINUOUS | {"log_std", "bound_clipped"},
        ),
    ],
)
def test_every_kind_of_policy_has_its_signals(spec: ActionSpec, settings: dict[str, Any], expected: set[str], share):
    policy = actor(spec, share=share, **settings)
    obs = draw(P, A, FEATURES)
    raw = policy(draw(T * E, A, FEATURES)).sample(torch.Generator().manual_seed(2)).unflatten(0, (T, E))
    answer = policy(obs)
    found = action_signals(policy, answer, raw, ONCE, probe=True)
    assert names(found) == expected
    assert names(action_signals(policy, answer, raw, ONCE)) == set()
    parted = {"saturation", "responsiveness", "preactivation", "attenuation", "log_std", "bound_clipped"}
    for tag, value in found.items():
        whole = isinstance(spec, Box) and tag.removeprefix("stability/") in parted and tag not in OLD
        assert value.shape == ((A, D) if whole else (A,)), tag
        assert value.isfinite().all(), tag
    importance = feature_importance(policy, obs)
    assert importance.shape == (A, FEATURES)
    torch.testing.assert_close(importance.sum(-1), torch.ones(A))


# ---- hand-made answers


def answered(answer: Any, spec: ActionSpec, **settings: Any) -> dict[str, Tensor]:
    """Signals of an `answer` at P observations by name; what was executed is its first answers."""
    policy = actor(spec, **settings)
    raw = answer.mode()[: T * E].unflatten(0, (T, E))
    found = action_signals(policy, answer, raw, ONCE, probe=True)
    return {tag.removeprefix("stability/"): value for tag, value in found.items()}


def test_bang_bang_policies_are_saturated_and_yet_respond():
    sides = torch.where(draw(P, A, D) > 0, 6.0, -6.0)
    for answer, stochastic in ((Deterministic(sides, 0.0), False), (SquashedGaussian(sides, torch.zeros(D)), True)):
        found = answered(answer, BOX, stochastic=stochastic)
        assert (found["saturation"] == 1).all()
        assert found["attenuation"].lt(1e-4).all()
        assert found["responsiveness"].gt(0.9).all()
        assert found["actions/responsiveness"].gt(0.9).all()


def test_constant_policies_do_not_respond_saturated_or_not():
    for u in (0.3, 6.0):
        still = torch.full((P, A, D), u)
        for answer, stochastic in ((Deterministic(still, 0.0), False), (SquashedGaussian(still, torch.zeros(D)), True)):
            found = answered(answer, BOX, stochastic=stochastic)
            assert found["responsiveness"].abs().max() < 1e-3
            assert (found["sameness"] == 1).all()
            assert (found["saturation"] == (1 if u > 3 else 0)).all()


def test_means_that_move_beyond_the_bounds_are_no_response():
    """Before the tanh, or before the clip, they look lively."""
    u = 8 + 2 * draw(P, A, D).abs()
    assert answered(SquashedGaussian(u, torch.zeros(D)), BOX)["responsiveness"].max() < 1e-3
    plain = answered(Gaussian(u, torch.full((D,), -1.0)), BOX, squash=False)
    assert plain["responsiveness"].max() < 1e-3
    assert (plain["bound_clipped"] == 1).all()


@pytest.mark.parametrize("squash", [True, False])
def test_responsiveness_of_gaussians_against_sampling(squash: bool):
    policy = actor(BOX, squash=squash)
    mean, log_std = draw(P, A, D) * 0.8, torch.tensor([-0.7, 0.2])
    kind = SquashedGaussian if squash else Gaussian
    found = answered(kind(mean, log_std), BOX, squash=squash)["responsiveness"]
    drawn = policy.canonical(mean + log_std.exp() * draw(4000, P, A, D, seed=5))
    between = drawn.mean(0).var(0, correction=0)
    slow = between / (between + drawn.var(0, correction=0).mean(0) + 0.02**2)
    torch.testing.assert_close(found, slow, atol=0.03 if not squash else 0.01, rtol=0)


def test_preactivation_of_a_plain_gaussian_is_in_half_ranges():
    mean = torch.tensor([4.0, 0.5]).expand(P, A, D)  # twice the bound of the first dimension, the second's middle
    found = answered(Gaussian(mean, torch.zeros(D)), BOX, squash=False)
    assert found["preactivation"].tolist() == [[2.0, 0.0]] * A
    assert found["log_std"].tolist() == [[0.0, 0.0]] * A


def test_one_legal_action_is_neither_an_answer_nor_a_fault():
    only = torch.eye(FEATURES, dtype=torch.bool)[torch.arange(P) % FEATURES].unsqueeze(1).expand(P, A, FEATURES)
    found = answered(Categorical(draw(P, A, FEATURES), only), Discrete(FEATURES), masked=True)
    for name in ("responsiveness", "entropy", "logit_gap"):
        assert found[name].isnan().all()
    assert found["legal_choices"].tolist() == [1, 1]
    assert found["actions/responsiveness"].tolist() == [0, 0]  # curves in metrics.csv stay whole


def test_a_choice_of_one_among_several_choices_is_left_out():
    both = MultiCategorical(draw(P, A, 4), (3, 1))
    alone = answered(Categorical(both.choices[0].logits), Discrete(3))
    found = answered(both, MultiDiscrete((3, 1), (0, 0)))
    for name in ("responsiveness", "entropy", "logit_gap"):
        torch.testing.assert_close(found[name], alone[name])


def test_the_widest_gap_of_several_choices_is_told():
    logits = torch.zeros(P, A, 5)
    logits[..., 4] = 30.0  # of the second choice
    assert answered(MultiCategorical(logits, (3, 2)), MultiDiscrete((3, 2), (0, 0)))["logit_gap"].tolist() == [30, 30]


def test_agents_that_are_not_there_have_no_part():
    """In what is answered, what was done and what is counted."""
    policy, asked = actor(Discrete(FEATURES)), torch.arange(P).unsqueeze(1) % torch.tensor([2, 3]) == 0
    acted = torch.arange(T).reshape(T, 1, 1) % 2 == torch.arange(A)
    logits, raw = draw(P, A, FEATURES), torch.randint(FEATURES, (T, E, A), generator=torch.Generator().manual_seed(1))
    answers = [Categorical(torch.where(asked.unsqueeze(-1), logits, junk * logits)) for junk in (1.0, -9.0)]
    actions = [torch.where(acted, raw, junk) for junk in (0, 3)]
    one, two = (
        action_signals(policy, answer, action, ONCE.expand(T, E, A), alive=acted, asked=asked, probe=True)
        for answer, action in zip(answers, actions, strict=True)
    )
    for tag, value in one.items():
        torch.testing.assert_close(value, two[tag], rtol=0, atol=0)
    group = Group("g", ("a", "b"), FEATURES, Discrete(FEATURES), "g")
    counts = [action_counts(group, action, acted) for action in actions]
    assert [x.tolist() for x in counts[0].values()] == [x.tolist() for x in counts[1].values()]
    assert counts[0]["a/0"].sum() == acted[..., 0].sum() * E
    assert (
        sameness(Discrete(FEATURES), actions[0], acted).tolist()
        == sameness(Discrete(FEATURES), actions[1], acted).tolist()
    )


# ---- what policies look at


def slow_importance(policy: Any, obs: Tensor, output: Any) -> Tensor:
    """`(A, O)` by central differences, every output asked at every observation."""
    reach = torch.zeros(A, FEATURES)
    for o in range(FEATURES):
        step = torch.zeros(FEATURES)
        step[o] = 1e-2
        slope = (output(policy(obs + step)) - output(policy(obs - step))) / 2e-2
        reach[:, o] = slope.abs().mean((0, 2)) * obs[..., o].std(0, correction=0)
    return reach / reach.sum(-1, keepdim=True)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize(
    ("spec", "settings", "output"),
    [
        (BOX, {}, lambda x: x.mean),
        (BOX, {"stochastic": False}, lambda x: x.pre),
        (Discrete(3), {}, lambda x: x.log_probs.exp()),
        (MultiDiscrete((3, 2), (0, 0)), {}, lambda x: torch.cat([c.log_probs.exp() for c in x.choices], -1)),
    ],
)
def test_importance_of_features_against_differences(spec: ActionSpec, settings: dict[str, Any], output, share: bool):
    policy = actor(spec, share=share, **settings)
    obs = draw(2000, A, FEATURES) * torch.tensor([1.0, 3.0, 0.2, 0.0])
    found = feature_importance(policy, obs)
    with torch.no_grad():
        torch.testing.assert_close(found, slow_importance(policy, obs, output), atol=0.03, rtol=0)
    assert found[:, 3].tolist() == [0, 0]  # constant


@pytest.mark.parametrize("spec", [BOX, Discrete(3)])
def test_one_feature_that_decides_alone_is_seen_in_policies_without_any_slope(spec: ActionSpec):
    """Saturated by a feature of 1e4: neither a tanh nor a probability has a slope left in float32."""
    policy = actor(spec)
    obs = draw(P, A, FEATURES) * torch.tensor([1.0, 1e4, 1.0, 1.0])
    with torch.no_grad():
        policy.body.network.final.weight.mul_(1e3)
    found = feature_importance(policy, obs)
    assert found.isfinite().all()
    assert found[:, 1].gt(0.9).all()


def test_illegal_actions_and_dead_agents_have_no_part_in_importance():
    policy = actor(Discrete(2), masked=True)  # the last two of four features are the mask
    obs = torch.cat([draw(P, A, 2), torch.ones(P, A, 2)], -1)
    forced = obs.clone()
    forced[..., 3] = 0.0  # one legal action
    assert feature_importance(policy, forced).isnan().all()
    alive = torch.arange(P).unsqueeze(1) % 3 < torch.tensor([1, 2])
    other = torch.where(alive.unsqueeze(-1), obs, forced * 3)
    torch.testing.assert_close(feature_importance(policy, obs, alive), feature_importance(policy, other, alive))


def test_many_features_are_told_by_their_largest():
    for features, shape in ((700, (A, 700)), (1500, (1500,)), (2100, ())):
        group = Group("g", ("a", "b"), features, BOX, "g")
        policy = Actor(group, NetworkConfig(hidden=(4,), final_init=None), True, True, torch.Generator().manual_seed(0))
        found = feature_importance(policy, draw(8, A, features))
        assert found.shape == shape
        assert 0 < found.max() < 0.1


@pytest.mark.parametrize(
    ("spec", "settings"),
    [(BOX, {}), (BOX, {"squash": False}), (BOX, {"stochastic": False}), (Discrete(FEATURES), {"masked": True})],
)
def test_nothing_makes_the_host_wait(spec: ActionSpec, settings: dict[str, Any]):
    alive, asked = torch.ones(T, E, A) > 0, torch.ones(P, A) > 0
    policy, obs = actor(spec, **settings), draw(P, A, FEATURES)
    raw = policy(draw(T * E, A, FEATURES)).mode().detach().unflatten(0, (T, E))
    with torch.no_grad():
        answer = policy(obs)
        assert waits_in(lambda: action_signals(policy, answer, raw, ONCE, alive=alive, asked=asked, probe=True)) == {}
        assert waits_in(lambda: feature_importance(policy, obs, asked)) == {}
