"""A diagnosis as plain text, and its settings as flags that can be pasted."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_stable import configs
from marl_stable.agents.config import ALGORITHMS
from marl_stable.cli.train import train_config
from marl_stable.conversion import keys, leaves
from marl_stable.monitor import advice, diagnosis  # noqa: F401  (the second registers every cause)
from marl_stable.monitor.case import CAUSES
from marl_stable.report.console import open_console
from marl_stable.report.files import to_json
from marl_stable.report.page import WIDTH, flags, page
from marl_stable.report.terminal import show

FINDING: dict[str, Any] = {
    "cause": "reward_outliers",
    "confidence": 0.934,
    "onset_steps": 41_200,
    "where": {"agent": "agent_0", "term": "collision"},
    "evidence": {"reward_p999_over_scale": 5120.0, "share": 0.0123456, "peak": 2.5e9, "gap": None, "count": 3},
    "explanation": "Rare rewards of agent_0 are thousands of times larger than usual ones.",
    "remedy": "Normalise rewards.",
    "config": {"algo.normalize_reward": True, "algo.max_grad_norm": "adaptive"},
}
FOUND: dict[str, Any] = {
    "verdict": "failing",
    "findings": [
        FINDING,
        FINDING | {"cause": "ratio_explosion", "onset_steps": 0, "where": {}, "evidence": {}, "config": {}},
    ],
    "symptoms": ["repeated_action", "no_learning"],
    "actions_taken": [{"steps": 41_216, "action": "skipped_update", "count": 3}],
    "checked": ["reward_outliers", "ratio_explosion", "reward_offset", "lazy_agent"],
    "return": -9.1,
    "baselines": {"random": {"return": -27.4, "ci95": [-28.0, -26.8]}, "best_constant": None},
}
EMPTY: dict[str, Any] = {
    "verdict": "healthy",
    "findings": [],
    "symptoms": [],
    "actions_taken": [],
    "checked": [],
    "return": None,
    "baselines": {"random": None, "best_constant": None},
}

PAGE = """\
runs/x: failing
symptoms: repeated action, no learning
return -9.1 (random -27.4)

root cause: reward outliers in agent agent_0, term collision, since 41,200 steps (confidence 93%)
  why       Rare rewards of agent_0 are thousands of times larger than usual ones.
  evidence  reward p999 over scale 5.12e+03, share 0.0123, peak 2.50e+09, gap not finite, count 3
  remedy    Normalise rewards.
  flags     --algo.normalize-reward on --algo.max-grad-norm adaptive

also: ratio explosion, from the start (confidence 93%)
  why       Rare rewards of agent_0 are thousands of times larger than usual ones.
  remedy    Normalise rewards.

the guard acted: 3 x skipped update (first at 41,216 steps)

checked and found well (2): reward offset, lazy agent"""


def test_a_page_says_what_since_when_why_and_what_to_change() -> None:
    assert page(FOUND, "runs/x") == PAGE
    assert page(json.loads(to_json(FOUND)), "runs/x") == PAGE


@pytest.mark.parametrize(
    ("verdict", "symptoms", "line"),
    [
        ("healthy", [], "r: healthy: nothing was found that explains bad behaviour"),
        ("warning", [], "r: warning: no symptom yet, but something that brings one"),
        ("warning", ["repeated_action"], "r: warning: what it shows does no harm that was measured, and has a cause"),
        ("failing", ["repeated_action"], "r: failing"),
    ],
)
def test_the_verdict_comes_first(verdict: str, symptoms: list[str], line: str) -> None:
    assert page(FOUND | {"verdict": verdict, "symptoms": symptoms}, "r").splitlines()[0] == line


def test_where_little_is_known_little_is_said() -> None:
    assert page(EMPTY, "r").splitlines() == [
        "r: healthy: nothing was found that explains bad behaviour",
        "",
        "checked and found well (0): nothing; too little was recorded",
    ]


def test_what_could_not_be_judged_stands_apart() -> None:
    needs = [{"cause": "reward_hacking", "needs": "a measure"}, {"cause": "lazy_agent", "needs": "a team"}]
    lines = page(EMPTY | {"checked": ["reward_offset"], "not_judged": needs}, "r").splitlines()
    assert lines[2:] == [
        "checked and found well (1): reward offset",
        "could not be judged (2): reward hacking needs a measure; lazy agent needs a team",
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), None])
def test_numbers_that_are_none_do_not_break_the_page(value: float | None) -> None:
    random = {"random": {"return": value, "ci95": [value, value]}, "best_constant": None}
    found = FOUND | {"return": value, "baselines": random, "findings": [FINDING | {"evidence": {"gap": value}}]}
    for told in (found, json.loads(to_json(found))):
        assert "failing" in page(told, "r")


def test_no_line_is_wider_than_the_page_but_flags_which_stay_whole() -> None:
    name = "long_" * 12
    wide = FINDING | {
        "where": {"agent": name, "layer": "hidden.0", "network": "critic"},
        "evidence": {f"{name}{i}": i for i in range(9)},
        "explanation": "word-and-more " * 40,
        "remedy": "remedy " * 40,
        "config": {"env.kwargs": {"a b": "x" * 150}},
    }
    acts = [{"steps": i, "action": "skipped_update", "count": i} for i in range(9)]
    found = FOUND | {"findings": [wide, wide], "symptoms": [name] * 9, "checked": [name] * 99, "actions_taken": acts}
    lines = page(found, "r").splitlines()
    assert max(len(line) for line in lines if not line.startswith("  flags")) <= WIDTH
    assert [line for line in lines if len(line) > WIDTH] == [f"  flags     {flags(wide['config'])}"] * 2


def test_a_page_is_printed_as_it_stands(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    text = f"[bold]r[/bold]: {'word ' * 40}[agent_0]\n  flags     --env.kwargs '{{\"x\": [1, 2]}}'"
    show(text)
    assert capsys.readouterr().out == text + "\n"
    import sys

    show(text, open_console(sys.stderr))
    assert capsys.readouterr().err == text + "\n"


# ---- flags


def parsed(algorithm: str, config: dict[str, Any]) -> Any:
    """What the shell and the command line make of the flags."""
    return train_config(["--algo", algorithm, *shlex.split(flags(config))])


def meant(algorithm: str, config: dict[str, Any]) -> Any:
    nested = configs.nested({key.replace(".", "__"): value for key, value in config.items()})
    return configs.resolve({"algo": {"name": algorithm}}, nested)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"algo.lr": 1e-3}, "--algo.lr 0.001"),
        ({"algo.lr": 1e-5}, "--algo.lr 1e-05"),
        ({"algo.normalize_obs": False, "algo.share": True}, "--algo.normalize-obs off --algo.share on"),
        ({"algo.network.hidden": (64, 32)}, "--algo.network.hidden 64,32"),
        ({"algo.adam_betas": [0.9, 0.99]}, "--algo.adam-betas 0.9,0.99"),
        ({"algo.max_grad_norm": None}, "--algo.max-grad-norm none"),
        ({"env.kwargs": {"N": 3, "who's": "a b"}}, """--env.kwargs '{"N": 3, "who'"'"'s": "a b"}'"""),
        ({"stability": "off", "total_steps": 10_000}, "--stability off --total-steps 10000"),
        ({}, ""),
    ],
)
def test_settings_are_flags_to_paste(config: dict[str, Any], text: str) -> None:
    assert flags(config) == text
    assert parsed("mappo", config) == meant("mappo", config)


def known(algorithm: str) -> set[str]:
    return set(keys(configs.resolve({"algo": {"name": algorithm}})))


@pytest.mark.parametrize("name", CAUSES)
def test_what_a_cause_proposes_is_a_setting_of_some_algorithm(name: str) -> None:
    assert any(CAUSES[name].config.keys() <= known(algorithm) for algorithm in ALGORITHMS)


@pytest.mark.parametrize("algorithm", ["mappo", "matd3"])
def test_what_causes_propose_and_every_default_can_be_pasted(algorithm: str) -> None:
    config = {key: value for key, value in leaves(configs.resolve({"algo": {"name": algorithm}})) if value is not None}
    config |= {"run_dir": "a b", "init_from": "it's"}
    assert parsed(algorithm, config) == meant(algorithm, config)
    here = dict(leaves(configs.resolve({"algo": {"name": algorithm}})))
    proposed: dict[str, list[Any]] = {}
    for cause in CAUSES.values():
        for key, value in advice.settings(here, cause.config).items():
            if key in known(algorithm) and value not in proposed.setdefault(key, []):
                proposed[key].append(value)
    for i in range(max(len(values) for values in proposed.values())):
        config = {key: values[i] for key, values in proposed.items() if len(values) > i}
        assert parsed(algorithm, config) == meant(algorithm, config)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(), x, max_size=3),
    max_leaves=6,
)


@given(
    config=st.fixed_dictionaries(
        {},
        optional={
            "algo.lr": st.floats(1e-30, 1e3),
            "algo.network.hidden": st.lists(st.integers(1, 9999), min_size=1, max_size=4),
            "algo.share": st.booleans(),
            "algo.max_grad_norm": st.one_of(st.none(), st.just("adaptive"), st.floats(1e-9, 1e9)),
            "env.kwargs": st.dictionaries(st.text(), JSON, max_size=3),
            "seed": st.integers(0, 2**31 - 1),
        },
    )
)
@settings(max_examples=10, deadline=None)
def test_any_setting_comes_back_from_its_flag(config: dict[str, Any]) -> None:
    assert parsed("mappo", config) == meant("mappo", config)
