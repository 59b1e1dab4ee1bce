"""`marl-stable reward`: what it prints of environments and of runs, and how it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from marl_stable.cli import main
from marl_stable.investigate.reward import arena
from marl_stable.report.reward_page import page
from tests.runs import measure_little, train

LAMPS = '''
import numpy as np
from gymnasium import spaces


class Lamps:
    """Two agents, three lamps each: a point for the lit one, unless `bribe` pays more for the first."""

    metadata = {"name": "lamps"}

    def __init__(self, bribe=0.0, terms=True):
        self.possible_agents, self.agents = ["a", "b"], []
        self.bribe, self.terms = bribe, terms

    def observation_space(self, agent):
        return spaces.Box(0.0, 1.0, (3,), np.float32)

    def action_space(self, agent):
        return spaces.Discrete(3)

    def reset(self, seed=None, options=None):
        self.random = np.random.default_rng(seed)
        self.agents, self.steps, self.right = list(self.possible_agents), 0, dict.fromkeys(self.possible_agents, 0)
        return self.look(), {agent: {} for agent in self.agents}

    def step(self, actions):
        acting = list(self.agents)
        infos, rewards = {}, {}
        for agent in acting:
            hit = int(actions[agent] == self.lamps[agent])
            self.right[agent] += hit
            terms = {"lit": float(hit), "bribe": self.bribe * float(actions[agent] == 0)}
            rewards[agent] = sum(terms.values())
            infos[agent] = {"right": self.right[agent]} | ({"reward_terms": terms} if self.terms else {})
        self.steps += 1
        over = self.steps >= 8
        self.agents = [] if over else acting
        return self.look(), rewards, dict.fromkeys(acting, False), dict.fromkeys(acting, over), infos

    def look(self):
        self.lamps = {agent: int(self.random.integers(3)) for agent in self.possible_agents}
        return {agent: np.eye(3, dtype=np.float32)[lamp] for agent, lamp in self.lamps.items()}

    def close(self):
        pass
'''
EXPERTS = """
def right(observations):
    return {agent: int(obs.argmax()) for agent, obs in observations.items()}


def first(observations):
    return {agent: 0 for agent in observations}


def half(observations):
    return {"a": 0}


def wild(observations):
    return {agent: 9 for agent in observations}


def broken(observations):
    return 1 / 0


class Counting:
    def __init__(self):
        self.steps = 0

    def __call__(self, observations):
        self.steps += 1
        return right(observations) if self.steps < 9 else first(observations)
"""


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few copies, and all the time there is."""
    monkeypatch.setattr(arena, "COPIES", 16)
    monkeypatch.setattr(arena, "BATCHED", 16)
    monkeypatch.setattr(arena, "SECONDS", 1e6)


@pytest.fixture
def lamps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment's id, its file in the working directory beside experts.py."""
    (tmp_path / "lamps.py").write_text(LAMPS, encoding="utf-8")
    (tmp_path / "experts.py").write_text(EXPERTS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return "lamps.py:Lamps"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has hardly learned."""
    path = tmp_path_factory.mktemp("reward") / "run"
    with pytest.MonkeyPatch.context() as patched:
        measure_little(patched)
        assert train(path, "--quiet") == 0
    return path


def asked(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """What `reward --json` prints."""
    assert main(["reward", *words, "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    found: dict[str, Any] = json.loads(printed.out)
    return found


def test_an_environment_by_its_terms(lamps: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(capsys, lamps)
    assert list(found)[:4] == ["env", "terms", "baselines", "findings"]
    assert found["env"] == lamps
    assert found["training"] == []
    assert "pictures" not in found
    assert [(entry["name"], entry["agent"]) for entry in found["terms"]] == [
        ("lit", "a"), ("bribe", "a"), ("lit", "b"), ("bribe", "b"),
    ]  # fmt: skip
    assert found["findings"] == []
    assert found["terms"][0]["mean"] == pytest.approx(1 / 3, abs=0.08)
    assert found["terms"][0]["share"] == pytest.approx(1)
    assert found["baselines"]["random"]["return"] == pytest.approx(8 / 3, abs=0.5)
    assert found["baselines"]["policy"] is None
    assert found["others"]["greedy"]["return"] > 7


def test_an_environment_without_terms_has_one(lamps: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(capsys, lamps, "--env.kwargs", '{"terms": false}')
    assert {entry["name"] for entry in found["terms"]} == {"reward"}
    assert all(entry["share"] == pytest.approx(1) for entry in found["terms"])


def test_a_bribe_is_won_without_looking_and_hacks_the_metric(lamps: str, capsys: pytest.CaptureFixture[str]) -> None:
    bribed = ("--env.kwargs", '{"bribe": 2}')
    found = asked(capsys, lamps, *bribed)
    assert found["findings"][0]["cause"] == "constant_action_is_optimal"
    assert found["baselines"]["best_constant"]["action"] == {"a": 0, "b": 0}
    told = asked(capsys, lamps, *bribed, "--expert", "experts.py:right", "--metric", "right")
    assert told["others"]["expert"]["return"] > told["baselines"]["random"]["return"]
    assert told["metric"]["expert"] == {"metric": 8.0, "return": pytest.approx(8 + 8 * 2 / 3, abs=1.5)}


def test_an_expert_may_remember_and_begins_each_episode_anew(lamps: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(capsys, lamps, "--expert", "experts.py:Counting")
    assert found["others"]["expert"]["return"] == pytest.approx(8)


def test_the_page_says_what_the_json_does(lamps: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reward", lamps, "--env.kwargs", '{"bribe": 2}']) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{lamps}: ")
    for words in ("1. constant action is optimal", "why", "evidence", "try", "random", "best constant", "bribe"):
        assert words in text
    assert max(len(line) for line in text.splitlines()) <= 110


def test_a_run_brings_its_policy_and_its_environment(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*"))
    found = asked(capsys, str(run))
    assert found["env"] == "particle/simple_spread_v3"
    assert found["played"]["longest"] == 5  # its max_cycles
    assert found["baselines"]["policy"]["return"] < 0
    assert sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*")) == before


def test_a_run_with_terms_tells_what_became_of_them_and_draws_it(
    lamps: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_little(monkeypatch)
    assert train(tmp_path / "lit", "--quiet", "--env", lamps, "--env.kwargs", '{"bribe": 1}') == 0
    capsys.readouterr()
    found = asked(capsys, str(tmp_path / "lit"), "--html", "lit.html")
    entries = found["training"]
    assert [(entry["group"], entry["term"]) for entry in entries] == [("a", "lit"), ("a", "bribe")]
    for part in ("first", "last"):
        assert sum(entry["share"][part] for entry in entries) == pytest.approx(1, abs=1e-5)
    assert entries[0]["steps"] == [48, 96, 144, 192, 240]
    assert {entry["player"] for entry in found["pictures"]["curves"]} == {"random", "best_constant", "policy"}
    page = (tmp_path / "lit.html").read_text(encoding="utf-8")
    assert "Over training" in page
    assert page.count("<svg") == 1 + 2 + 2 + 2 + 3


def test_what_each_action_changes_is_drawn_for_those_who_ask(lamps: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(capsys, lamps, "--env.kwargs", '{"bribe": 2}', "--html", "page.html")
    lit, bribe = found["pictures"]["responses"]
    assert (bribe["term"], bribe["at"], bribe["steps"]) == ("bribe", [0.0, 1.0, 2.0], 1)
    assert bribe["mean"] == pytest.approx([4 / 3, -2 / 3, -2 / 3], abs=0.35)
    assert bribe["mean"][0] - bribe["mean"][1] > 1.5
    assert lit["mean"] == pytest.approx([0, 0, 0], abs=0.3)
    assert "constant action is optimal" in Path("page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("env", ["particle/simple_spread_v3", "lamps.py:Lamps"])
def test_what_was_asked_twice_is_the_same(
    env: str, lamps: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if env != lamps:
        monkeypatch.undo()  # as large as it is for everybody
    one, other = (asked(capsys, env) for _ in range(2))
    assert all(found["played"].pop("seconds") > 0 for found in (one, other))
    assert one == other
    assert one["played"]["left_out"] == []


@pytest.mark.parametrize(
    ("longest", "together", "found"),
    [(25, True, (128, 2)), (60, True, (64, 1)), (8, False, (48, 2)), (50, False, (16, 1)), (60, False, (13, 1))],
)
def test_how_much_is_played_follows_from_the_environment(
    longest: int, together: bool, found: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    assert arena.sizes(longest, together) == found


def test_what_there_was_no_time_for_is_said(
    lamps: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arena, "SECONDS", -1.0)
    bribed = ("--env.kwargs", '{"bribe": 2}')
    found = asked(capsys, lamps, *bribed)
    assert found["findings"][0]["cause"] == "constant_action_is_optimal"
    assert found["played"]["left_out"] == [
        "what each agent changes",
        "most deviations from the best constant",
        "most of the greedy search",
        "greedy play for single terms",
    ]
    assert main(["reward", lamps, *bribed]) == 0
    assert "time was short on this machine" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "ENV_OR_RUN is missing"),
        (["particle/simple_sprad_v3"], "unknown environment 'particle/simple_sprad_v3'"),
        (["particle/simple_spread_v3", "more"], "'more' is one word too many"),
        (["{lamps}", "--env.kwargs", '{{"brib": 1}}'], "bribe"),
        (["{lamps}", "--expert", "nowhere.py:right"], "there is no file nowhere.py"),
        (["{lamps}", "--expert", "experts.py:rihgt"], "Did you mean right"),
        (["{lamps}", "--expert", "experts.py:half"], "returned no action for b"),
        (["{lamps}", "--expert", "experts.py:wild"], "returned 9 for a"),
        (["{lamps}", "--expert", "experts.py:broken"], "failed: ZeroDivisionError"),
        (["{lamps}", "--metric", "rigth"], "unknown metric 'rigth'"),
        (["particle/simple_spread_v3", "--metric", "covered"], "the environment's infos hold no numbers"),
        (["."], "."),
        (["{lamps}", "--html", "."], "'.' is a folder"),
        (["{lamps}", "--html", "nowhere/page.html"], "lies in 'nowhere', which is no folder"),
        (["{lamps}", "--html", "lamps.py"], "'lamps.py' does not end in .html"),
    ],
)
def test_mistakes_are_one_sentence(words: list[str], told: str, lamps: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reward", *(word.format(lamps=lamps) for word in words)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert told.lower() in printed.err.lower()


def test_arguments_given_with_a_run_replace_its_own(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(capsys, str(run), "--env.kwargs", '{"max_cycles": 3}')["played"]["longest"] == 3


def test_who_learns_from_the_mean_of_the_team_is_told_so(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = shutil.copytree(run, tmp_path / "shared")
    config = shared / "config.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace("reward: own", "reward: mean"), encoding="utf-8")
    assert main(["reward", str(shared), "--env.kwargs", '{"max_cycles": 3}']) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "paid its own; in training each learns from the mean over its team (env.reward mean)" in words


def test_a_policy_that_does_not_fit_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reward", str(run), "--env.kwargs", '{"N": 4}']) == 2
    assert "does not fit" in capsys.readouterr().err


def test_figures_that_are_no_numbers_are_told_as_such() -> None:
    empty = dict.fromkeys(("mean", "std", "zero", "share", "explained_by_actions", "lag"))
    found = {
        "terms": [{"name": "t", "agent": "a", **empty}],
        "baselines": {"random": {"return": None, "ci95": [None, None]}, "policy": None},
        "others": {}, "findings": [], "checked": ["reward_offset"], "rewards": "own", "metric": None, "critic": None,
        "training": [],
        "played": {"steps": 1, "seconds": 1.0, "copies": 1, "longest": 1, "left_out": []}, "learns_from": "own",
    }  # fmt: skip
    text = page(found, "here")
    assert "not finite" in text
    assert "nothing was found against this reward" in text
