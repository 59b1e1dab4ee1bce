"""Runs that begin with the weights of another one: what is taken, what begins anew, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from marl_stable import configs, transfer
from marl_stable.agents.config import MAPPOConfig
from marl_stable.agents.mappo import MAPPO
from marl_stable.cli import main
from marl_stable.config import NetworkConfig
from marl_stable.policy import Loaded
from marl_stable.types import Discrete, EnvSpec, Group, UsageError
from tests.runs import assert_equal, assert_same_run, checkpoint, metadata, networks, train

NORMS = ("obs_norm", "value_norm", "reward_norm")
HUNTER = Group("hunter", ("hunter_0", "hunter_1"), 4, Discrete(3), "hunters")
PREY = Group("prey", ("prey_0",), 3, Discrete(3), "prey")
OTHER = Group("other", ("other_0",), 2, Discrete(2), "others")


@pytest.fixture(autouse=True)
def in_tmp_path(quick_measurements: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def spec_of(*groups: Group) -> EnvSpec:
    return EnvSpec("hunt", tuple(agent for group in groups for agent in group.agents), groups)


def agent_of(spec: EnvSpec, seed: int, **changed: Any) -> MAPPO:
    """Untrained; what it saw, and whatever its optimisers and its schedule remember, differs with the seed."""
    config = replace(MAPPOConfig(), gamma=0.9, batch_size=8, num_minibatches=1, normalize_reward=True)
    agent = MAPPO(spec, replace(config, **({"network": NetworkConfig((8,))} | changed)), 2, torch.device("cpu"), seed)
    draw = torch.Generator().manual_seed(seed)
    sizes = {group.name: (len(group.agents), group.obs_size) for group in spec.groups}
    agent.initialize_statistics({name: 3 + torch.randn(50, *size, generator=draw) for name, size in sizes.items()})
    for learner in agent.learners.values():
        learner.actor_optimizer.m.fill_(seed)
    agent.kl_scale = 1 / seed
    return agent


def moved(monkeypatch: pytest.MonkeyPatch, here: MAPPO, there: MAPPO) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state of `here` after taking over from `there`, and what is said of it."""
    loaded = Loaded(there, there.spec, 77, "best")
    monkeypatch.setattr(transfer, "load_agent", lambda run, device: loaded)
    said = transfer.take_over(here, "elsewhere")
    return here.policy_state(), said


def test_weights_and_normalisers_are_taken_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(HUNTER, PREY)
    here, there, untouched = agent_of(spec, 1), agent_of(spec, 2), agent_of(spec, 1)
    state, said = moved(monkeypatch, here, there)
    assert said == {
        "run": "elsewhere",
        "checkpoint": "best",
        "steps": 77,
        "groups": ["hunter", "prey"],
        "critics": True,
    }
    assert transfer.in_words(said) == (
        "begins with weights and normalisers of hunter, prey from elsewhere (best, 77 steps)"
    )
    before, source = untouched.policy_state(), there.policy_state()
    for name in ("hunter", "prey"):
        for part, value in state["groups"][name].items():
            origin = before if "optimizer" in part else source
            assert_equal(value, origin["groups"][name][part], f"{name}.{part}")
    assert state["kl_scale"] == 1.0
    assert_equal(state["generator"], before["generator"])
    obs = {"hunter": torch.randn(5, 2, 4), "prey": torch.randn(5, 1, 3)}
    mine, theirs = here.policy(obs), there.policy(obs)  # which is what the weights are for
    assert all(torch.equal(mine[name].log_prob(x.mode()), x.log_prob(x.mode())) for name, x in theirs.items())


def test_one_team_may_come_from_where_the_others_were_others(monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = agent_of(spec_of(HUNTER, PREY), 1), agent_of(spec_of(OTHER, HUNTER), 2)
    before = agent_of(spec_of(HUNTER, PREY), 1).policy_state()["groups"]
    state, said = moved(monkeypatch, here, there)
    assert (said["groups"], said["critics"]) == (["hunter"], False)
    assert transfer.in_words(said) == "begins with policies without critics of hunter from elsewhere (best, 77 steps)"
    taken = {part for part in state["groups"]["hunter"] if part in ("actor", "obs_norm")}
    for part, value in state["groups"]["hunter"].items():
        origin = there.policy_state()["groups"] if part in taken else before
        assert_equal(value, origin["hunter"][part], part)
    assert_equal(state["groups"]["prey"], before["prey"])


def test_a_critic_that_saw_the_same_agents_in_another_order_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = agent_of(spec_of(HUNTER, PREY), 1), agent_of(spec_of(PREY, HUNTER), 2)
    state, said = moved(monkeypatch, here, there)  # all shapes are the same
    assert (said["groups"], said["critics"]) == (["hunter", "prey"], False)
    before = agent_of(spec_of(HUNTER, PREY), 1).policy_state()["groups"]
    assert_equal(state["groups"]["prey"]["critic"], before["prey"]["critic"])
    assert_equal(state["groups"]["prey"]["actor"], there.policy_state()["groups"]["prey"]["actor"])


RELU = NetworkConfig((8,), activation="relu")
DEEP = NetworkConfig((8, 8))


@pytest.mark.parametrize(
    ("groups", "changed", "said"),
    [
        ((HUNTER, PREY), {"name": "ippo"}, "algo.name is ippo there and mappo here. They must be the same."),
        ((HUNTER, PREY), {"share": False}, "algo.share is off there and on here."),
        ((HUNTER, PREY), {"critic_input": "pool"}, "algo.critic_input is pool there and concatenate here."),
        ((HUNTER, PREY), {"normalize_obs": False}, "algo.normalize_obs is off there and on here."),
        ((HUNTER, PREY), {"network": RELU}, "algo.actor_network.activation is relu there and tanh here."),
        (
            (HUNTER, PREY),
            {"network": NetworkConfig((9,))},
            "in group 'hunter', actor.body.network.hidden.0.weight is of shape (6, 9) there and of shape (6, 8) here. "
            "Use the network settings of that run.",
        ),
        ((HUNTER, PREY), {"network": DEEP}, "hidden.3.weight is of shape (8, 8) there and missing here."),
        (
            (HUNTER._replace(obs_size=5), PREY),
            {},
            "group 'hunter' has 2 agents, 5 features, Discrete(n=3, start=0, dtype='int64') there and "
            "2 agents, 4 features",
        ),
        ((HUNTER._replace(agents=("hunter_0",)), PREY), {}, "group 'hunter' has 1 agents, 4 features"),
        ((HUNTER, PREY._replace(action=Discrete(4))), {}, "group 'prey' has 1 agents, 3 features, Discrete(n=4"),
        (
            (HUNTER, PREY._replace(action=Discrete(2), masked=True)),
            {},
            "Discrete(n=2, start=0, dtype='int64'), masked there and",
        ),
        ((HUNTER, OTHER._replace(team="prey")), {}, "it has the groups hunter, other, and none called 'prey'."),
        ((OTHER,), {}, "it has the groups other, and none called 'hunter'. Name another run."),
    ],
)
def test_what_does_not_fit_is_refused_with_the_first_difference(
    groups: tuple[Group, ...], changed: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, spec = agent_of(spec_of(HUNTER, PREY), 1), spec_of(*groups)
    there = agent_of(spec, 2, **changed)
    with pytest.raises(UsageError) as refused:
        moved(monkeypatch, here, there)
    assert str(refused.value).startswith("init_from 'elsewhere' does not fit this run: ")
    assert said in str(refused.value)
    assert_equal(here.policy_state(), agent_of(spec_of(HUNTER, PREY), 1).policy_state())


def test_how_a_network_once_began_is_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(HUNTER, PREY)
    there = agent_of(spec, 2, network=NetworkConfig((8,), init="he", final_init=1.0), lr=0.5)
    assert moved(monkeypatch, agent_of(spec, 1), there)[1]["groups"] == ["hunter", "prey"]


@pytest.mark.parametrize(
    ("here", "there", "said"),
    [
        ({"a": torch.zeros(2)}, {"a": torch.ones(2)}, None),
        ({"a": {"b": torch.zeros(2)}}, {"a": {"b": torch.zeros(2, 1)}}, "a.b is of shape (2, 1) there and of shape"),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, None),
        ({"a": {"b": 1}}, {"a": 1}, "a is a plain value there and a section here"),
        ({"a": 1, "b": 1}, {"a": 1}, "b is missing there and a plain value here"),
        ({"a": 1}, {"a": 1, "b": torch.zeros(1)}, "b is of shape (1,) there and missing here"),
    ],
)
def test_the_first_difference_is_named_by_its_keys(here: Any, there: Any, said: str | None) -> None:
    found = transfer.first_difference(here, there)
    assert found is None if said is None else said in str(found)


def test_a_run_begins_where_the_other_was_best_and_can_be_repeated_without_its_folder_being_near(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(Path("old"), "--quiet", "--algo.lr", "0.05") == 0
    capsys.readouterr()
    few = ["--total-steps", "48", "--eval-every", "0", "--algo.lr", "1e-30", "--seed", "9"]  # too small to move
    assert train(Path("new"), *few, "--init-from", "old") == 0
    best = checkpoint(Path("old"), "best")["steps"]
    where = str(tmp_path / "old")
    assert f"begins with weights and normalisers of agent from {where} (best, {best} steps)" in capsys.readouterr().err
    assert metadata(Path("new"))["init_from"]["steps"] == best
    assert configs.read_run(Path("new/config.yaml")).init_from == where
    assert_equal(networks(Path("new"), "best"), networks(Path("old"), "best"))
    for part in ("actor_optimizer", "critic_optimizer"):
        state = checkpoint(Path("new"))["training"]["agent"]["learning"]["groups"]["agent"][part]
        assert 0 < state["m_weight"].max() < 0.5  # four steps since the moments were zero
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["train", "../new/config.yaml", "--run-dir", "again", "--quiet"]) == 0
    assert_same_run(tmp_path / "new", Path("again"))


def test_going_on_needs_the_other_run_no_more() -> None:
    assert train(Path("old"), "--quiet", "--total-steps", "48") == 0
    begun = ["--quiet", "--init-from", "old", "--algo.lr-schedule", "constant"]
    assert train(Path("once"), *begun) == 0
    assert train(Path("parts"), *begun, "--total-steps", "96") == 0
    Path("old").rename("gone")
    assert main(["train", "--resume", "parts", "--total-steps", "240", "--quiet"]) == 0
    assert_same_run(Path("once"), Path("parts"))


def test_where_no_run_is_nothing_is_left_behind(capsys: pytest.CaptureFixture[str]) -> None:
    assert train(Path("new"), "--init-from", "nowhere", "--quiet") == 2
    said = capsys.readouterr().err
    assert "init_from cannot be used: " in said
    assert json.dumps("nowhere")[1:-1] in said
    assert not Path("new").exists()
