"""Preflight: each planted flaw is named and nothing else is, healthy games pass, and nothing of a run changes."""

from __future__ import annotations

import copy
import json
import math
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from marl_stable.acting import at_random
from marl_stable.agents.maddpg import MADDPG
from marl_stable.agents.mappo import MAPPO
from marl_stable.cli import main
from marl_stable.config import EnvConfig, NetworkConfig
from marl_stable.diagnosing import diagnose_run
from marl_stable.envs import catalog
from marl_stable.envs.base import BatchedEnv
from marl_stable.envs.particle import make
from marl_stable.envs.probe import GAMES, Aim, Match
from marl_stable.evaluation import play
from marl_stable.investigate import baselines, preflight
from marl_stable.investigate.baselines import Outcomes, RandomPlay
from marl_stable.investigate.dry_run import STAYED
from marl_stable.types import Discrete, EnvSpec, Group, PerGroup
from tests.agents.loops import assert_same, copied, train
from tests.investigate.games import (
    ALGORITHMS,
    CPU,
    Clipped,
    ConstantFeature,
    DeadDimension,
    Healthy,
    HeavyTail,
    HugeFeature,
    NotANumber,
    OffsetReward,
    TimeLimitAsEnd,
    TinyFeature,
    TinyReward,
    TwiceTheSame,
    Unrepeatable,
    ZeroWidth,
    inspected,
    prepared,
    remarks,
)
from tests.runs import assert_equal, metadata, networks
from tests.runs import train as run


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_a_healthy_game_gets_no_remark(algo: str) -> None:
    assert remarks(inspected(Healthy(20, CPU), algo)) == set()


@pytest.mark.parametrize(
    ("flaw", "named"),
    [
        (DeadDimension, {"without_effect"}),
        (ZeroWidth, {"zero_width", "untried"}),
        (ConstantFeature, {"constant"}),
        (HugeFeature, {"huge"}),
        (TinyFeature, {"tiny"}),
        (TwiceTheSame, {"duplicated"}),
        (Clipped, {"at_bounds"}),
        (TinyReward, {"return_std"}),
        (OffsetReward, {"offset", "return_std", "reward_share"}),  # what is left of the episode moves returns by 1000s
        (HeavyTail, {"tail", "return_std"}),
        (TimeLimitAsEnd, {"same_length"}),
        (Unrepeatable, {"not repeatable"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_planted_flaw_is_named_and_nothing_else_is(flaw: type[Healthy], named: set[str]) -> None:
    assert remarks(inspected(flaw(20, CPU), "maddpg" if flaw is ZeroWidth else "mappo")) == named


def test_flaws_are_named_by_agent_dimension_and_feature() -> None:
    everywhere = [{"agent": agent, "dimension": 1} for agent in ("agent_0", "agent_1")]
    assert inspected(DeadDimension(20, CPU))["effects"]["without_effect"] == everywhere
    found = inspected(ZeroWidth(20, CPU))
    assert found["range"] == {"agent": {"zero_width": [1], "infinite": [], "mismatch": []}}
    assert found["effects"]["untried"] == everywhere
    assert inspected(ConstantFeature(20, CPU))["observations"]["agent_1"]["constant"] == [2]
    assert inspected(HugeFeature(20, CPU))["observations"]["agent_1"]["huge"] == {"2": pytest.approx(1e4, rel=0.05)}
    assert inspected(TinyFeature(20, CPU))["observations"]["agent_0"]["tiny"] == {"2": pytest.approx(1e-4, rel=0.05)}
    assert inspected(TwiceTheSame(20, CPU))["observations"]["agent_0"]["duplicated"] == [[0, 2]]
    assert inspected(Clipped(20, CPU))["observations"]["agent_0"]["at_bounds"] == {"2": pytest.approx(0.75, abs=0.05)}


def test_what_is_not_finite_is_counted_and_left_out_of_the_rest() -> None:
    env = NotANumber(20, CPU)
    found = preflight.observations(env.spec, baselines.random_play(env, 1))
    assert (found["agent_0"]["non_finite"], found["agent_1"]["non_finite"]) == ({}, {"2": 5})  # 5 episodes of a copy
    assert found["agent_1"]["constant"] == found["agent_0"]["constant"] == []
    assert found["agent_1"]["huge"] == {}

    class Infinite(Healthy):
        def paid(self, reward: Tensor) -> Tensor:
            reward[0, 0] = torch.inf
            return reward

    other = Infinite(20, CPU)
    paid = preflight.rewards(other.spec, baselines.random_play(other, 1).outcomes, 0.9)
    assert paid["agent_0"]["non_finite"] == 25
    assert paid["agent_1"]["non_finite"] == 0
    assert all(np.isfinite(value) for value in paid["agent_0"].values() if value is not None)
    assert paid["agent_0"]["peak"] < 20


def test_a_reward_that_never_was_a_number_has_no_figures() -> None:
    outcomes = one_agent([float("nan")] * 4, ends=[3])
    paid = preflight.rewards(spec_of(1), outcomes, 0.9)["agent_0"]
    assert paid["non_finite"] == 4
    assert {paid[key] for key in ("mean", "std", "median", "mad", "scale", "peak", "tail_ratio", "zero")} == {None}


# ---- figures by hand


def spec_of(agents: int, turn_based: bool = False) -> EnvSpec:
    names = tuple(f"agent_{i}" for i in range(agents))
    return EnvSpec("hand", names, (Group("agent", names, 1, Discrete(2), "team"),), turn_based)


def one_agent(reward: list[float], ends: list[int], terminated: list[int] = (), alive: Any = None) -> Outcomes:  # type: ignore[assignment]
    """One copy of one agent, whose episodes end after the steps `ends`."""

    def column(flags: Any) -> Tensor:
        return torch.tensor([t in flags for t in range(len(reward))]).reshape(-1, 1, 1)

    over, true = column(ends), column(terminated)
    acted = column(range(len(reward)) if alive is None else alive)
    paid = torch.tensor(reward).reshape(-1, 1, 1)
    rewards, *flags = ({"agent": x} for x in (paid, true, over & ~true, acted))
    return Outcomes(rewards, flags[0], flags[1], flags[2], over.reshape(-1, 1))


def test_figures_of_rewards_and_returns_by_hand() -> None:
    found = preflight.rewards(spec_of(1), one_agent([1, 0, 0, 2, 8], ends=[1, 3], terminated=[1]), gamma=0.5)["agent_0"]
    assert (found["mean"], found["median"], found["mad"], found["peak"]) == (pytest.approx(2.2), 1, 1, 7)
    assert found["std"] == pytest.approx(np.std([1, 0, 0, 2, 8]))
    assert (found["zero"], found["non_finite"]) == (0.4, 0)
    assert found["scale"] == pytest.approx(1.4826)
    assert found["offset_ratio"] == pytest.approx(1 / 1.4826)
    assert found["tail_ratio"] == pytest.approx(found["p999"] / 1.4826)
    assert 6.9 < found["p999"] < 7
    # The last step's episode has not ended, so that its return is not known: G is 1, 0, 1, 2, later part 0, 0, 1, 0
    assert found["return_std"] == pytest.approx(np.std([1, 0, 1, 2]))
    now, later = np.var([1, 0, 0, 2]), np.var([0, 0, 1, 0])
    assert found["reward_share"] == pytest.approx(now / (now + later))


def test_a_reward_that_never_varies_has_no_ratios() -> None:
    found = inspected(GAMES["Endless"](20, CPU))["rewards"]["agent_0"]
    assert (found["mean"], found["scale"], found["zero"]) == (1, 0, 0)
    assert found["tail_ratio"] is found["offset_ratio"] is None
    assert found["reward_share"] == 0


def test_a_rare_goal_is_no_outlier() -> None:
    reward = [0.0] * 1000
    for t in range(0, 1000, 100):
        reward[t] = 1.0
    found = preflight.rewards(spec_of(1), one_agent(reward, ends=[999]), gamma=0.9)["agent_0"]
    assert found["mad"] == 0
    assert found["scale"] == pytest.approx(1.4826 * 0.1, rel=0.01)
    assert found["tail_ratio"] < 50
    assert found["offset_ratio"] == 0


def test_terms_of_random_play_by_hand() -> None:
    outcomes = one_agent([3, 1, 0, 0, 2, 9], ends=[1, 4], alive=[0, 1, 2, 3, 4])
    paid = outcomes.reward["agent"].unsqueeze(-1)
    group = spec_of(1).groups[0]._replace(terms=("goal", "cost"))
    episodes: Any = SimpleNamespace(lengths=np.array([2, 3]))
    played = RandomPlay(episodes, {}, outcomes._replace(terms={"agent": torch.cat([paid, -2 * paid], -1)}))
    spec = spec_of(1)._replace(groups=(group,))
    shares = 5 / 6 * 2.5  # the steps of a usual episode in which the agent acts
    assert preflight.terms(spec, played) == {
        "agent_0": {
            "goal": {"mean": 1.2, "zero": pytest.approx(0.4), "per_episode": pytest.approx(1.2 * shares)},
            "cost": {"mean": -2.4, "zero": pytest.approx(0.4), "per_episode": pytest.approx(-2.4 * shares)},
        }
    }
    assert preflight.terms(spec_of(1), played) == {}


def test_steps_count_in_which_the_agent_acted_or_with_turns_anybody() -> None:
    two = one_agent([1, 2, 3, 4], ends=[3], alive=[0, 1])
    other = one_agent([5, 6, 7, 8], ends=[3], alive=[2, 3])
    pairs: Any = zip(two[:4], other[:4], strict=True)
    joined: Any = [{"agent": torch.cat([one["agent"], second["agent"]], -1)} for one, second in pairs]
    both = Outcomes(joined[0], joined[1], joined[2], joined[3], two.done)
    means = {name: found["mean"] for name, found in preflight.rewards(spec_of(2), both, 0.9).items()}
    assert means == {"agent_0": 1.5, "agent_1": 7.5}
    means = {name: found["mean"] for name, found in preflight.rewards(spec_of(2, True), both, 0.9).items()}
    assert means == {"agent_0": 2.5, "agent_1": 6.5}
    seen = {"agent": torch.tensor([[[1.0], [0]], [[2], [0]], [[0], [4]], [[0], [5]]])}
    played = RandomPlay(None, seen, both)  # type: ignore[arg-type]
    found = preflight.observations(spec_of(2), played)
    assert [x["constant"] for x in found.values()] == [[], []]
    two.alive["agent"][:] = False
    found = preflight.observations(spec_of(1), RandomPlay(None, {"agent": seen["agent"][:, :1]}, two))  # type: ignore[arg-type]
    assert found["agent_0"]["constant"] == [0]  # nothing was seen


def test_ends_by_hand() -> None:
    mixed = preflight.ends(one_agent([0.0] * 10, ends=[1, 4, 8], terminated=[1, 8]))
    assert mixed == {
        "episodes": 3,
        "terminated": pytest.approx(2 / 3),
        "truncated": pytest.approx(1 / 3),
        "shortest": 2,
        "longest": 4,
        "same_length": None,
    }
    often = preflight.ends(one_agent([0.0] * 10, ends=[1, 3, 5, 7, 9], terminated=[1, 3, 5, 7, 9]))
    assert (often["same_length"], often["terminated"], often["longest"]) == (True, 1, 2)
    varied = preflight.ends(one_agent([0.0] * 11, ends=[1, 3, 5, 7, 10], terminated=[1, 3, 5, 7, 10]))
    assert varied["same_length"] is False
    never = preflight.ends(one_agent([0.0] * 4, ends=[]))
    assert (never["episodes"], never["terminated"], never["longest"]) == (0, None, None)
    given_up = preflight.ends(one_agent([0.0] * 4, ends=[3], alive=[0, 1, 2]))
    assert given_up["episodes"] == 0


def test_games_of_one_step_are_not_taken_for_time_limits() -> None:
    assert inspected(Match(100, CPU))["ends"]["same_length"] is False
    found = inspected(GAMES["Ending"](20, CPU))
    assert found["ends"]["same_length"] is True
    assert found["observations"]["agent_0"]["clock"] == [0]  # which makes a true end of it
    assert inspected(GAMES["Endless"](20, CPU))["observations"]["agent_0"]["clock"] == []


# ---- nothing changes


@pytest.mark.parametrize("algo", ["mappo", "matd3"])
@pytest.mark.parametrize("game", sorted(GAMES))
def test_every_game_and_algorithm_can_be_inspected(game: str, algo: str) -> None:
    agent, played = prepared(GAMES[game](12, CPU), algo)
    before = copied(agent.state_dict())
    found = preflight.inspect(agent, GAMES[game](12, CPU), played, 1)
    assert_same(before, agent.state_dict())
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert [x for x in found["untrained"] if x["why"] == STAYED] == []
    assert found["non_finite"] == []


@pytest.mark.parametrize(
    "settings",
    [
        {"network": NetworkConfig(hidden=(16,), recurrent="gru")},
        {"network": NetworkConfig(hidden=(16,), norm="batch")},
        {"share": False},
        {"squash": False},
        {"network": NetworkConfig(hidden=(16, 16), block="residual", recurrent="lstm"), "share": False},
        {"lr_schedule": "kl", "target_kl": 1e-9},
    ],
    ids=str,
)
def test_every_kind_of_network_can_be_inspected(settings: dict[str, Any]) -> None:
    assert remarks(inspected(Healthy(20, CPU), "mappo", **settings)) == set()


def test_nothing_of_a_run_changes() -> None:
    def begun() -> tuple[BatchedEnv, BatchedEnv, MAPPO | MADDPG, RandomPlay, PerGroup]:
        envs, scratch = (make("simple_spread_v3", 8, CPU, max_cycles=5) for _ in range(2))
        agent, played = prepared(scratch)
        return envs, scratch, agent, played, envs.reset(3)

    envs, scratch, agent, played, obs = begun()
    seen = copied(played.obs)
    before = copy.deepcopy((agent.state_dict(), envs.state_dict()))
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    draws = (random.getstate(), str(np.random.get_state()), torch.get_rng_state())
    found = preflight.inspect(agent, scratch, played, 1)
    assert_same(before, (agent.state_dict(), envs.state_dict()))
    assert_same(draws, (random.getstate(), str(np.random.get_state()), torch.get_rng_state()))
    assert_same(seen, played.obs)
    assert all(not x.actor.body.network.final._forward_pre_hooks for x in agent.learners.values())
    assert preflight.inspect(agent, scratch, played, 1) == found
    train(agent, envs, obs, 2)
    envs, scratch, other, played, obs = begun()
    train(other, envs, obs, 2)
    assert_same(agent.state_dict(), other.state_dict())


def test_copies_of_python_environments_are_inspected_and_evaluate_as_before() -> None:
    env = catalog.make(EnvConfig(id="mpe2/simple_spread_v3", kwargs={"max_cycles": 5}), CPU, 4)
    agent, played = prepared(env)
    act = at_random(env.spec, torch.Generator().manual_seed(5))
    usual = play(env, act, 4, seed=9)
    assert remarks(preflight.inspect(agent, env, played, 1)) <= {"constant"}  # two silent channels of the others
    again = play(env, at_random(env.spec, torch.Generator().manual_seed(5)), 4, seed=9)
    np.testing.assert_array_equal(usual.returns, again.returns)


def test_the_random_play_draws_as_it_did_and_remembers_what_it_met() -> None:
    env = Aim(100, CPU)
    generator = torch.Generator().manual_seed(1 + baselines.ACTIONS)
    usual = play(env, at_random(env.spec, generator), 100, 1 + baselines.SEED, baselines.MAX_EPISODE)
    found = baselines.random_play(env, 1)
    np.testing.assert_array_equal(usual.returns, found.episodes.returns)
    np.testing.assert_array_equal(found.outcomes.reward["agent"][0].numpy(), usual.returns.astype(np.float32))
    few = baselines.random_play(Healthy(10, CPU), 1)
    assert few.outcomes.reward["agent"].shape == (50, 10, 2)  # 100 episodes; the 10 that came before are forgotten
    assert few.outcomes.done.sum() == 100
    assert few.outcomes.truncated["agent"].sum() == 200
    assert few.outcomes.alive["agent"].all()


@pytest.mark.parametrize(
    ("goal", "cost", "share"),
    [
        ([3, 1, 9, 0, 2, 9], [-1, 0, 0, 0, 1, 0], 0.0),  # the third step is not the agent's
        ([3, 1, 0, 0, 2.5, 9], [-1, 0, 0, 0, 1, 0], 0.2),
        ([3.0001, 1, 0, 0, 2, 9], [-1, 0, 0, 0, 1, 0], 0.0),  # rounding
        ([0, 1, 0, 0, 0, 9], [-1, 0, 0, 0, 1, 0], 0.4),
        ([math.nan, 1, 0, 0, 2, 9], [-1, 0, 0, 0, 1, 0], 0.0),  # not finite: another trouble
    ],
)
def test_steps_whose_terms_leave_something_out(goal: list[float], cost: list[float], share: float) -> None:
    outcomes = one_agent([2, 1, 0, 0, 3, 9], ends=[1, 4], alive=[0, 1, 3, 4, 5])
    paid = torch.tensor([goal, cost]).T.reshape(6, 1, 1, 2)
    group = spec_of(1).groups[0]._replace(terms=("goal", "cost"))
    told = preflight.unaccounted(
        spec_of(1)._replace(groups=(group,)), outcomes._replace(terms={"agent": paid.to(torch.float32)})
    )
    assert told == ({"agent_0": pytest.approx(share)} if share else {})
    assert preflight.unaccounted(spec_of(1), outcomes) == {}


@pytest.mark.parametrize("episodes", [0, 1])
def test_games_without_an_end_are_told_of(episodes: int) -> None:
    told = preflight.warnings({"unaccounted": {}, "ends": {"episodes": episodes}})
    assert ["no episode of random play came to an end" in sentence for sentence in told] == [True] * (1 - episodes)
    assert preflight.warnings({}) == []


def test_a_run_is_told_of_terms_that_leave_something_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "halved.py").write_text(
        "from tests.envs.itemised import Itemised\n\n\n"
        "class Halved(Itemised):\n"
        "    def step(self, actions):\n"
        "        obs, rewards, *rest = super().step(actions)\n"
        "        return obs, {agent: 2 * reward for agent, reward in rewards.items()}, *rest\n"
    )
    flags = ["--env", f"{tmp_path}/halved.py:Halved", "--total-steps", "64", "--algo.batch-size", "64"]
    assert main(["train", *flags, "--run-dir", str(tmp_path / "run"), "--eval-episodes", "2"]) == 0
    assert (
        "in random play the reward of agent_0 is not the sum of its reward_terms in 1 of its steps"
        in capsys.readouterr().err
    )
    apart = {entry["cause"]: entry["needs"] for entry in diagnose_run(tmp_path / "run")["not_judged"]}
    assert apart["reward_term_dominates"] == "reward terms that add up to the reward"


def test_a_run_keeps_it_in_its_metadata_and_trains_as_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "EPISODES", 16)
    monkeypatch.setattr(baselines, "BUDGET_STEPS", 0)  # no search for the best constant action
    for name in ("off", "guard"):
        assert run(tmp_path / name, "--stability", name, "--quiet") == 0
    assert "preflight" not in metadata(tmp_path / "off")
    found = metadata(tmp_path / "guard")["preflight"]
    assert found.keys() == {
        *(
            "rewards",
            "terms",
            "unaccounted",
            "observations",
            "ends",
            "effects",
            "control",
            "first_step",
            "untrained",
            "non_finite",
            "range",
        )
    }
    assert_equal(networks(tmp_path / "off"), networks(tmp_path / "guard"))


def test_settings_of_the_copy_fit_any_number_of_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "EPISODES", 5)
    for copies in (1, 90):
        env = Healthy(copies, CPU)
        for algo in ("mappo", "matd3"):
            agent, played = prepared(env, algo)
            agent.config = replace(agent.config, batch_size=4)
            assert preflight.inspect(agent, env, played, 1)["untrained"] == []
