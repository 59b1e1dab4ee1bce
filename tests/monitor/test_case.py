"""Cases, causes and findings; every registered cause keeps its word."""

from __future__ import annotations

import string

import numpy as np
import pytest

from marl_stable.monitor.case import CAUSES, Cause, Hit, Stage, can_look, findings, who
from tests.monitor.causes.recordings import AGENT, EVERY, WHOLE, N, case


def test_returns_are_of_evaluations_where_these_are_enough() -> None:
    training = ("charts/return", WHOLE, np.arange(N))
    often = ("eval/return", WHOLE, np.where(np.arange(N) % 8 == 0, 7.0, np.nan))
    rarely = ("eval/return", WHOLE, np.where(np.arange(N) % 15 == 0, 7.0, np.nan))
    assert case(training, often).returns[1].tolist() == [7.0] * 5
    assert case(training, rarely).returns[1].tolist() == list(range(N))
    assert len(case().returns[0]) == 0


def test_the_figure_beside_baselines_is_the_last_evaluations_however_few_there_are() -> None:
    training = ("charts/return", WHOLE, np.arange(N))
    once = ("eval/return", WHOLE, np.where(np.arange(N) == 3, 7.0, np.nan))
    ending = ("eval/return", WHOLE, np.where(np.arange(N) == 3, 7.0, np.inf))
    never = ("eval/return", WHOLE, np.inf)
    assert case(training, once).latest_return == 7.0
    assert case(once).latest_return == 7.0
    assert case(training, ending).latest_return == 7.0
    assert case(training, never).latest_return == N - 1
    assert case(training).latest_return == N - 1
    assert case().latest_return is None


def test_baselines_may_be_missing() -> None:
    assert case().baseline("random") is None
    assert case(baselines={"random": None, "best_constant": {"return": None}}).baseline("best_constant") is None
    assert case(baselines={"random": {"return": 2}}).baseline("random") == 2.0


def test_cause_needs_signals_or_facts() -> None:
    of = case(("reward_mean", AGENT, 0.0), preflight={})
    assert can_look(of, ("reward_mean", "preflight"))
    assert not can_look(of, ("reward_std",))


def test_finding_is_a_sentence_about_the_place() -> None:
    kind = Cause(
        "c",
        Stage.DATA,
        lambda _: [Hit(0.5, EVERY, AGENT, {"x": 2.0})],
        (),
        "{who} {since}: {x:.1f}",
        "r",
        {},
        False,
        lambda _: None,
    )
    assert findings(case(), kind)[0].explanation == "agent_0 since 1,000 steps: 2.0"
    start = kind._replace(look=lambda _: [Hit(0.5, 0, {}, {"x": 2.0}, "{who} {since}", {"a": 1})])
    found = findings(case(), start)[0]
    assert (found.explanation, found.config) == ("the agents from the start", {"a": 1})
    assert who({"group": "all"}) == "all"


@pytest.mark.parametrize("kind", CAUSES.values(), ids=list(CAUSES))
def test_every_cause_survives_a_case_without_its_needs_and_says_what_can_be_filled_in(kind: Cause) -> None:
    assert kind.says.endswith(".")
    assert kind.remedy.endswith(".")
    assert kind.needs
    fields = {field for _, field, _, _ in string.Formatter().parse(kind.says) if field}
    assert all(field.isidentifier() for field in fields)
    assert all(key.startswith(("algo.", "env.")) or key == "stability" for key in kind.config)
    nothing: dict[str, dict[str, float]] = {
        name: {} for name in kind.needs if name in ("preflight", "baselines", "contributions")
    }
    series = [(name, AGENT, 0.0) for name in kind.needs if name not in nothing]
    assert isinstance(findings(case(*series, **nothing), kind), list)
    assert not can_look(case(), kind.needs)
