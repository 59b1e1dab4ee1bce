"""The reward that a team shares, against a loop that says what it means."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from marl_stable.agents.mappo import MAPPO
from marl_stable.config import EnvConfig
from marl_stable.envs import catalog
from marl_stable.report.metrics import read_metrics
from marl_stable.rewards import shared_terms, team_mean
from marl_stable.types import Discrete, EnvSpec, Group, Step
from tests.runs import assert_equal, rows, train

GROUPS = (
    Group("lead", ("lead",), 2, Discrete(2), "red"),
    Group("blue", ("blue_0", "blue_1", "blue_2"), 3, Discrete(2), "blue"),
    Group("red", ("red_0", "red_1"), 2, Discrete(3), "red"),
)
AGENTS = tuple(agent for group in GROUPS for agent in group.agents)
SPEC = EnvSpec("three groups", AGENTS, GROUPS)
COPIES = 64


def random_step(seed: int = 0) -> Step:
    """Rewards of whole numbers for everybody, the dead included; in some copies a whole team is dead."""
    draw = torch.Generator().manual_seed(seed)
    shapes = {group.name: (COPIES, len(group.agents)) for group in GROUPS}
    reward = {name: torch.randint(-9, 9, shape, generator=draw).float() for name, shape in shapes.items()}
    alive = {name: torch.rand(shape, generator=draw) < 0.5 for name, shape in shapes.items()}
    obs = {group.name: torch.rand(COPIES, len(group.agents), group.obs_size, generator=draw) for group in GROUPS}
    never = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in shapes.items()}
    return Step(obs, obs, reward, never, never, alive, torch.zeros(COPIES, dtype=torch.bool))


def by_hand(step: Step, copy: int, group: Group, agent: int, turn_based: bool) -> float:
    counted = [
        float(step.reward[other.name][copy, i])
        for other in GROUPS
        for i in range(len(other.agents))
        if other.team == group.team and (turn_based or step.alive[other.name][copy, i])
    ]
    acted = turn_based or bool(step.alive[group.name][copy, agent])
    return sum(counted) / len(counted) if acted else 0.0


TERMS = {"lead": ("goal", "cost"), "blue": ("goal",), "red": ("cost", "bonus")}
ITEMISED = SPEC._replace(groups=tuple(group._replace(terms=TERMS[group.name]) for group in GROUPS))


@pytest.mark.parametrize("turn_based", [False, True], ids=["together", "in turns"])
def test_terms_become_means_by_name_as_rewards_do(turn_based: bool) -> None:
    spec, step = ITEMISED._replace(turn_based=turn_based), random_step()
    draw = torch.Generator().manual_seed(1)
    terms = {n: torch.randint(-9, 9, (*x.shape, len(TERMS[n])), generator=draw).float() for n, x in step.reward.items()}
    whole = step._replace(reward={name: x.sum(-1) for name, x in terms.items()}, terms=terms)
    unpaid = {name: torch.rand(x.shape, generator=draw) < 0.1 for name, x in step.reward.items()}
    found = team_mean(whole, spec, unpaid)
    assert shared_terms(spec) == {
        "lead": ("goal", "cost", "bonus"),
        "blue": ("goal",),
        "red": ("goal", "cost", "bonus"),
    }
    for name, names in shared_terms(spec).items():
        assert torch.allclose(found.terms[name].sum(-1), found.reward[name], atol=1e-5)
        for column, term in enumerate(names):
            alone = {
                other: terms[other][..., TERMS[other].index(term)] if term in TERMS[other] else torch.zeros_like(x)
                for other, x in step.reward.items()
            }
            wanted = team_mean(step._replace(reward=alone, terms={}), spec, unpaid)
            assert torch.allclose(found.terms[name][..., column], wanted.reward[name], atol=1e-6)


@pytest.mark.parametrize("turn_based", [False, True], ids=["together", "in turns"])
def test_everybody_gets_the_mean_over_the_groups_of_the_team(turn_based: bool) -> None:
    step = random_step()
    found = team_mean(step, SPEC._replace(turn_based=turn_based))
    assert list(found.reward) == ["lead", "blue", "red"]
    for group in GROUPS:
        wanted = [
            [by_hand(step, copy, group, agent, turn_based) for agent in range(len(group.agents))]
            for copy in range(COPIES)
        ]
        assert torch.allclose(found.reward[group.name], torch.tensor(wanted))
        assert found.reward[group.name].dtype == torch.float32


def test_nothing_else_changes_and_nothing_in_place() -> None:
    step, same = random_step(), random_step()
    found = team_mean(step, SPEC)
    assert found._replace(reward=step.reward) == step  # the very same tensors
    assert_equal(step._asdict(), same._asdict())


def test_what_the_dead_are_said_to_get_is_nobodys() -> None:
    step = random_step()
    for name, reward in step.reward.items():
        reward[~step.alive[name]] = torch.nan
    assert all(reward.isfinite().all() for reward in team_mean(step, SPEC).reward.values())


@pytest.mark.parametrize("turn_based", [False, True], ids=["together", "in turns"])
def test_a_reward_that_is_not_known_does_not_count_in_the_mean(turn_based: bool) -> None:
    step, spec = random_step(), SPEC._replace(turn_based=turn_based)
    unpaid = {name: torch.zeros_like(alive) for name, alive in step.alive.items()}
    assert_equal(team_mean(step, spec, unpaid).reward, team_mean(step, spec).reward)
    unpaid["blue"][5, 1] = True
    found = team_mean(step, spec, unpaid).reward["blue"][5].tolist()
    own = step.reward["blue"][5].tolist()
    acted = [True] * 3 if turn_based else step.alive["blue"][5].tolist()
    others = [own[i] for i in (0, 2) if acted[i]]
    mean = sum(others) / max(len(others), 1)
    assert others
    assert found == pytest.approx([mean if there else 0.0 for there in acted])


def test_one_team_of_one_group_gets_its_mean_exactly() -> None:
    spec = catalog.make(EnvConfig(id="particle/simple_spread_v3"), torch.device("cpu"), 2).spec
    reward = {"agent": torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, -3.0]])}
    alive = {"agent": torch.ones(2, 3, dtype=torch.bool)}
    step = Step({}, {}, reward, {}, {}, alive, torch.zeros(2, dtype=torch.bool))
    assert team_mean(step, spec).reward["agent"].tolist() == [[3.0] * 3, [-1.0] * 3]


def test_agents_learn_from_the_mean_and_figures_stay_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, list[Step]] = {"own": [], "mean": []}
    observe = MAPPO.observe
    for kind, steps in told.items():

        def spied(agent: MAPPO, step: Step, steps: list[Step] = steps) -> None:
            steps.append(step)
            observe(agent, step)

        monkeypatch.setattr(MAPPO, "observe", spied)
        assert train(tmp_path / kind, "--env.reward", kind, "--total-steps", "48", "--stability", "off", "--quiet") == 0
    assert len(told["own"]) == len(told["mean"]) == 6
    for own, mean in zip(told["own"], told["mean"], strict=True):  # the first batch: the same actions
        wanted = own.reward["agent"].mean(dim=1, keepdim=True).expand(-1, 3)
        assert torch.allclose(mean.reward["agent"], wanted)
        assert not torch.equal(mean.reward["agent"], own.reward["agent"])
    figures = [read_metrics(tmp_path / kind / "metrics.csv") for kind in told]
    for tag in ("charts/return", "rewards/mean", "rewards/std"):
        assert figures[0][tag] == figures[1][tag]
    assert rows(tmp_path / "own") != rows(tmp_path / "mean")  # they did learn something else
