"""The account of reward terms in training: against a loop that says what it means, and in real runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from marl_stable.checkpoint import load, save
from marl_stable.cli import main
from marl_stable.diagnosing import read_case
from marl_stable.monitor.accounts import accounts, lacks_terms
from marl_stable.policy import load_policy
from marl_stable.report.metrics import read_metrics
from marl_stable.terms import TermAccount, Window, figures
from marl_stable.types import Discrete, EnvironmentFailure, EnvSpec, Group, Step
from tests.agents.test_waiting import waits_in
from tests.runs import Asked, assert_equal, assert_same_run, checkpoint, train

pytestmark = pytest.mark.usefixtures("quick_measurements")
GAMMA, LAMBDA = 0.9, 0.8
ITEMISED = ("--env", "tests.envs.itemised:Itemised", "--env.kwargs", "{}", "--env.num-envs", "4")


def window(seed: int = 0, steps: int = 12, copies: int = 3, agents: int = 2, terms: int = 3) -> Window:
    """Episodes that end in both ways, and agents that do not always act."""
    draw = torch.Generator().manual_seed(seed)
    shape = (steps, copies, agents)
    alive = torch.rand(shape, generator=draw) < 0.8
    paid = torch.randn(*shape, terms, generator=draw) * torch.tensor([1.0, 3.0, 0.1])[:terms]
    ended = torch.rand(shape, generator=draw) < 0.2
    terminated = ended & (torch.rand(shape, generator=draw) < 0.5)
    incomplete = torch.rand(shape, generator=draw) < 0.1
    return Window((paid + 0.5) * alive.unsqueeze(-1), alive, terminated, ended, incomplete)


def test_an_episode_that_is_lost_was_cut_off_at_its_last_step() -> None:
    group = Group("agent", ("a_0", "a_1"), 1, Discrete(2), "team", terms=("x", "y"))
    account = TermAccount(EnvSpec("e", group.agents, (group,)), shared=False, gamma=GAMMA, gae_lambda=LAMBDA)
    account.begin_anew(torch.tensor([True, False]))  # before the first step there is nothing to cut off
    no, paid = {"agent": torch.zeros(2, 2, dtype=torch.bool)}, {"agent": torch.ones(2, 2, 2)}
    step = Step({}, {}, {"agent": torch.full((2, 2), 2.0)}, no, no, no, torch.zeros(2, dtype=torch.bool), paid)
    for _ in range(3):
        account.add(step)
    account.begin_anew(torch.tensor([True, False]))
    ended = account.state_dict()["agent"][Window._fields.index("ended")]
    assert ended.any(-1).tolist() == [[False, False], [False, False], [True, False]]
    assert not no["agent"].any()


def by_hand(of: Window, agent: int, turn_based: bool = False) -> dict[str, Any]:
    """One agent's figures, step by step, with a critic that knows nothing but means."""
    alive = of.alive[..., agent]
    counted = torch.ones_like(alive) if turn_based else alive
    terms = of.terms[:, :, agent].double()
    steps, copies, count = terms.shape
    rows = [(t, e) for t in range(steps) for e in range(copies) if counted[t, e]]
    means = [sum(float(terms[t, e, k]) for t, e in rows) / len(rows) for k in range(count)]
    advantage = torch.zeros(steps, copies, count)
    for k in range(count):
        value = means[k] / (1 - GAMMA)
        for e in range(copies):
            running = 0.0
            for t in reversed(range(steps)):
                following = 0.0 if of.terminated[t, e, agent] else value
                delta = float(terms[t, e, k]) + GAMMA * following - value if counted[t, e] else 0.0
                running = delta + (0.0 if of.ended[t, e, agent] else GAMMA * LAMBDA * running)
                advantage[t, e, k] = running
    a = np.array([advantage[t, e].tolist() for t in range(steps) for e in range(copies) if alive[t, e]])
    whole = a.sum(1)
    own = np.array([terms[t, e].tolist() for t, e in rows])
    return {
        "mean": own.sum(0) / int(alive.sum()),
        "std": own.std(0),
        "zero": (own == 0).mean(0),
        "peak": np.abs(own - own.mean(0)).max(0),
        "share": [np.cov(a[:, k], whole, bias=True)[0, 1] / whole.var() for k in range(count)],
        "left_out": np.mean([bool(of.incomplete[t, e, agent]) for t, e in rows]),
        "conflict": [1 - whole.var() / (a[:, k].var() + (whole - a[:, k]).var()) for k in range(count)],
    }


@pytest.mark.parametrize("turn_based", [False, True])
def test_figures_are_those_of_a_plain_loop(turn_based: bool) -> None:
    of = window()
    means, found = figures(of, GAMMA, LAMBDA, turn_based)
    for agent in range(2):
        wanted = by_hand(of, agent, turn_based)
        for name, values in {"mean": means, **found}.items():
            assert values[agent].numpy() == pytest.approx(wanted[name], rel=1e-3, abs=1e-5), name


@pytest.mark.parametrize("seed", range(5))
def test_shares_add_up_to_one(seed: int) -> None:
    shares = figures(window(seed), GAMMA, LAMBDA)[1]["share"]
    assert shares.sum(1).tolist() == pytest.approx([1.0, 1.0], abs=1e-5)


def test_a_constant_counts_for_what_an_end_makes_of_it_alone() -> None:
    of = window()
    paid = of.terms.clone()
    paid[..., 2] = 1000.0 * of.alive
    endless = of._replace(terms=paid, terminated=torch.zeros_like(of.terminated))
    assert figures(endless, GAMMA, LAMBDA)[1]["share"][:, 2].abs().max() < 1e-4
    assert figures(of._replace(terms=paid), GAMMA, LAMBDA)[1]["share"][:, 2].min() > 0.9


def test_terms_that_undo_each_other_are_in_conflict_and_have_no_shares() -> None:
    of = window(terms=2)
    there = of.terms[..., :1]
    exactly = of._replace(terms=torch.cat([there, -there], -1))
    assert figures(exactly, GAMMA, LAMBDA)[1]["share"].isnan().all()
    mostly = of._replace(terms=torch.cat([there, -0.9 * there], -1))
    found = figures(mostly, GAMMA, LAMBDA)[1]
    assert found["conflict"].min() > 0.99
    assert found["share"].sum(1).tolist() == pytest.approx([1.0, 1.0], abs=1e-3)
    alike = of._replace(terms=torch.cat([there, 0.9 * there], -1))
    assert figures(alike, GAMMA, LAMBDA)[1]["conflict"].max() < -0.99
    hardly = of._replace(terms=torch.cat([there, -0.01 * there], -1))  # a price that goes with what it buys
    assert figures(hardly, GAMMA, LAMBDA)[1]["conflict"].max() < 0.03


def test_what_nobody_gets_and_what_is_no_number_are_left_out() -> None:
    of = window()
    nobody = of._replace(alive=torch.zeros_like(of.alive), terms=torch.zeros_like(of.terms))
    means, found = figures(nobody, GAMMA, LAMBDA)
    assert all(values.isnan().all() for values in (means, *found.values()))
    paid = of.terms.clone()
    paid[3, 0, 0, 1] = torch.nan
    means, found = figures(of._replace(terms=paid), GAMMA, LAMBDA)
    assert all(values.isfinite().all() for values in (means, *found.values()))


GROUPS = (
    Group("lead", ("lead",), 1, Discrete(2), "team", terms=("goal", "cost")),
    Group("plain", ("plain_0", "plain_1"), 1, Discrete(2), "team"),
    Group("rest", ("rest_0", "rest_1"), 1, Discrete(2), "other", terms=("goal",)),
)
SPEC = EnvSpec("three groups", tuple(agent for group in GROUPS for agent in group.agents), GROUPS)


def step(seed: int, names: dict[str, int]) -> Step:
    draw = torch.Generator().manual_seed(seed)

    def flags() -> dict[str, Tensor]:
        return {g.name: torch.rand(4, len(g.agents), generator=draw) < 0.3 for g in GROUPS}

    agents = {g.name: len(g.agents) for g in GROUPS}
    terms = {name: torch.randn(4, agents[name], count, generator=draw) for name, count in names.items()}
    nothing = {g.name: torch.zeros(4, len(g.agents)) for g in GROUPS}
    return Step(nothing, nothing, nothing, flags(), flags(), flags(), torch.zeros(4, dtype=torch.bool), terms)


def test_an_account_goes_on_where_it_was_and_never_waits() -> None:
    names = {"lead": 2, "rest": 1}
    whole, first, second = (TermAccount(SPEC, False, 0.99, 0.95) for _ in range(3))
    steps = [step(seed, names) for seed in range(9)]
    assert waits_in(lambda: list(map(whole.add, steps))) == {}
    for each in steps[:4]:
        first.add(each)
    second.load_state_dict(first.state_dict())
    for each in steps[4:]:
        second.add(each)
    found = whole.take()
    assert_equal(found, second.take())
    assert set(found["rewards/terms/goal"]) == {"lead", "rest"}
    assert set(found["rewards/terms/cost"]) == {"lead"}
    assert found["stability/term_share"]["rest"].shape == (2, 1)
    for each in steps:
        whole.add(each)
    assert waits_in(whole.take) == {}
    empty = TermAccount(SPEC, False, 0.99, 0.95)
    assert empty.state_dict() == {}
    empty.load_state_dict({})


def test_terms_that_were_promised_and_are_missing_are_named() -> None:
    with pytest.raises(EnvironmentFailure, match=r"group rest has reward terms in the spec, .* give Step\.terms"):
        TermAccount(SPEC, False, 0.99, 0.95).add(step(0, {"lead": 2}))


def test_where_a_team_shares_its_reward_all_of_it_have_the_terms_of_all() -> None:
    account = TermAccount(SPEC, True, 0.99, 0.95)
    assert account.names == {"lead": ("goal", "cost"), "plain": ("goal", "cost"), "rest": ("goal",)}


SHORT = ("--total-steps", "240", "--eval-every", "96", "--eval-episodes", "4", "--algo.network.hidden", "8")


@pytest.mark.parametrize("algo", ["mappo", "maddpg"])
def test_a_training_tells_its_terms(algo: str, tmp_path: Path) -> None:
    off_policy = ("--algo", "maddpg", "--algo.warm-up", "48", "--algo.train-every", "48", "--algo.batch-size", "16")
    more = off_policy if algo == "maddpg" else ("--algo.batch-size", "48")
    assert main(["train", *SHORT, *ITEMISED, *more, "--run-dir", str(tmp_path / "run")]) == 0
    metrics = read_metrics(tmp_path / "run" / "metrics.csv")
    parts = [metrics[f"rewards/terms/{name}"] for name in ("own", "walk", "bonus")]
    assert np.sum(parts, 0) == pytest.approx(metrics["rewards/mean"], rel=1e-4)
    recording = read_case(tmp_path / "run").recording
    shares = recording.series("term_share")
    assert [(s.where["agent"], s.where["term"]) for s in shares[:3]] == [
        ("agent_0", "own"),
        ("agent_0", "walk"),
        ("agent_0", "bonus"),
    ]
    assert sum(s.values[0] for s in shares[:3]) == pytest.approx(1.0, abs=1e-3)


def test_a_term_that_random_play_never_met_is_told_of_when_it_pays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bonus that is reported only when it is paid, and first paid long after names were looked for."""
    assert train(tmp_path / "run", *ITEMISED, "--env.kwargs", '{"rare_from": 40}') == 0
    told = capsys.readouterr().err
    assert told.count("is not the sum of its reward_terms") == 1
    assert re.search(r"warning: at \d+ steps the reward of agent_\d is not the sum", told)
    case = read_case(tmp_path / "run")
    assert lacks_terms(case) == "reward terms that add up to the reward"
    assert list(accounts(case)) == []


def test_nothing_is_told_where_nothing_is_watched_or_reported(tmp_path: Path) -> None:
    assert train(tmp_path / "off", *ITEMISED, "--stability", "off") == 0
    assert train(tmp_path / "none", "--env", "particle/simple_spread_v3") == 0
    for run in ("off", "none"):
        assert not any("terms/" in tag or "term_" in tag for tag in read_metrics(tmp_path / run / "metrics.csv"))


def test_a_run_with_terms_stopped_anywhere_goes_on_exactly(tmp_path: Path, asked: Asked) -> None:
    words = (*ITEMISED, "--env.reward", "mean", "--env.workers", "1")
    assert train(tmp_path / "whole", *words) == 0
    asked.left = 25  # in the midst of a batch
    assert train(tmp_path / "parts", *words) == 130
    assert checkpoint(tmp_path / "parts")["training"]["terms"] != {}
    asked.never()
    assert main(["train", "--resume", str(tmp_path / "parts")]) == 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_checkpoint_of_before_there_were_terms_is_gone_on_with(tmp_path: Path, asked: Asked) -> None:
    asked.left = 25
    assert train(tmp_path / "run", *ITEMISED) == 130
    path = tmp_path / "run" / "checkpoints" / "last.pt"
    state = load(path, torch.device("cpu"))
    del state["training"]["terms"]
    for group in state["spec"]["groups"]:
        del group["terms"]
    save(path, state)
    asked.never()
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert load_policy(tmp_path / "run").spec.groups[0].terms == ("own", "walk", "bonus")


def test_a_policy_is_evaluated_where_other_terms_or_none_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "run", *ITEMISED) == 0
    for kwargs in ({}, {"report": False}):
        flags = ("--env", "tests.envs.itemised:Itemised", "--env.kwargs", json.dumps(kwargs), "--episodes", "2")
        assert main(["eval", str(tmp_path / "run"), *flags, "--json"]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["episodes"] == 2
    words = (*ITEMISED, "--env.kwargs", '{"report": false}', "--init-from", str(tmp_path / "run"))
    assert train(tmp_path / "next", *words) == 0
