from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import diagnosis
from benchmarks.diagnosis_plan import (
    CLEAN,
    CONSTANT,
    CONVERGED,
    COPIES,
    FAST,
    INJECTIONS,
    LATE,
    SEEDS,
    TASKS,
    Trial,
    balanced,
    cells,
    draw,
    is_healthy,
    needs_twin,
    with_twins,
)
from benchmarks.faults.conditions import FAULTS, NONE
from benchmarks.judging import (
    HALVES,
    Judged,
    Rate,
    alarms,
    confusion,
    half,
    judge,
    median_delay,
    page,
    pages,
    rates,
)
from benchmarks.sabotage import SABOTAGE
from marl_stable import configs
from marl_stable.envs import catalog
from marl_stable.monitor.case import Case
from marl_stable.monitor.recording import Recording
from marl_stable.monitor.table import Column

CPU = torch.device("cpu")


# ---- the plan


def test_names_are_not_used_twice() -> None:
    assert not FAULTS.keys() & SABOTAGE.keys()
    assert CONVERGED not in INJECTIONS


def test_every_round_has_every_fault_once() -> None:
    names = [*INJECTIONS, CONVERGED]
    plan = draw(3 * len(names))
    assert sorted(trial.name for trial in plan[: len(names)]) == sorted(names)
    assert len(set(plan)) == len(plan)
    assert draw(len(names)) == plan[: len(names)]  # a larger plan goes on with a smaller one


def test_a_sample_is_balanced() -> None:
    plan = [trial for trial in draw(300) if trial.name in FAULTS and not trial.healthy]
    for of, least in (("task", 0.22), ("algo", 0.4)):
        counts = Counter(getattr(trial, of) for trial in plan)
        assert min(counts.values()) / len(plan) > least
    late = [trial.onset / trial.steps for trial in plan if trial.onset]
    assert 0.3 < len(late) / len(plan) < 0.6
    assert LATE[0] - 0.01 <= min(late) <= max(late) <= LATE[1]
    assert all(trial.onset % COPIES == 0 for trial in plan)
    assert {trial.seed for trial in plan} == set(range(1, SEEDS + 1))


def test_a_plan_of_healthy_runs_alone() -> None:
    plan = draw(150, healthy=True)
    assert len(set(plan)) == 150
    assert all(trial.healthy and trial.onset == 0 and trial.agent is None for trial in plan)
    assert {trial.name for trial in plan} == {name for name in (*INJECTIONS, CONVERGED) if is_healthy(name)}
    assert {(trial.task, trial.algo) for trial in plan} == {
        (task, algo) for task in TASKS for algo in TASKS[task].steps
    }
    assert len({trial.seed for trial in plan if trial.name == CLEAN}) > SEEDS
    assert {trial.seed for trial in plan if trial.name == CONVERGED} <= set(range(1, SEEDS + 1))  # begins with a twin


def test_choices_are_ordered_so_that_every_beginning_is_balanced() -> None:
    choices = [{"a": a, "b": b} for a in range(4) for b in range(3)]
    order = balanced(choices, random.Random(0))
    assert sorted(map(str, order)) == sorted(map(str, choices))
    assert {cell["b"] for cell in order[:3]} == {0, 1, 2}
    assert {cell["a"] for cell in order[:4]} == {0, 1, 2, 3}


def test_cells_are_where_a_fault_makes_sense() -> None:
    assert {cell["task"] for cell in cells("action_range")} == {"spread_box"}
    assert {cell["algo"] for cell in cells("stale_replay")} == {"maddpg"}
    assert {cell["late"] for cell in cells("stale_replay")} == {True}
    assert {cell["late"] for cell in cells("reward_flip")} == {True}
    assert {cell["late"] for cell in cells("reward_offset")} == {False}
    assert {cell["dose"] for cell in cells("reward_tiny")} == {1e-2, 1e-4, 1e-6}
    assert {cell["task"] for cell in cells("twin_agents")} == {"spread", "spread_box"}
    assert max(cell["dose"] for cell in cells("obs_frozen") if cell["task"] == "speaker") == 3
    for name in INJECTIONS:
        if Trial(name, "spread", "mappo").healthy:
            assert {(cell["late"], cell["alone"]) for cell in cells(name)} == {(False, False)}


def test_every_trial_has_a_configuration_and_an_environment_to_be_scored_on() -> None:
    made: set[str] = set()
    for trial in with_twins(draw(120)):
        config = configs.resolve(configs.nested(trial.flags()))
        assert config.total_steps == trial.steps
        scored = trial.scored_on()
        if (key := f"{trial.name} {trial.task} {trial.agent}") not in made:
            made.add(key)
            one, other = (catalog.make(env, CPU, 2).spec for env in (config.env, scored))
            assert one.groups == other.groups
            assert set(one.agents) == set(TASKS[trial.task].agents)
        assert trial.name not in SABOTAGE or not config.env.kwargs["faults"]


def test_tasks_are_as_they_are_described() -> None:
    for name, task in TASKS.items():
        env = catalog.make(Trial(CLEAN, name, "mappo").scored_on(), CPU, 2)
        assert min(group.obs_size for group in env.spec.groups) == task.features
        sizes = {len(low) for group in env.spec.groups if (low := getattr(group.action, "low", ()))}
        assert sizes == ({task.dimensions} if task.dimensions else set())


def test_twins_come_first_and_have_the_same_network() -> None:
    order = list(with_twins(draw(200)))
    assert len(set(order)) == len(order)
    for trial in order:
        if needs_twin(trial.name):
            twin = trial.twin()
            assert order.index(twin) < order.index(trial)
            assert twin.healthy
    batch = Trial("batchnorm_mode", "spread", "mappo", 1, variant="batchnorm_mode")
    assert batch.twin().flags()["algo__network__norm"] == "batch"
    deep = next(trial for trial in order if trial.name == "deep_network")
    assert "algo__network__hidden" in deep.flags()
    assert "algo__network__hidden" not in deep.twin().flags()


def test_what_is_healthy() -> None:
    assert Trial(CONVERGED, "spread", "mappo").cause == NONE
    assert all(Trial(name, "spread", "mappo").healthy for name in (CLEAN, CONVERGED, CONSTANT, "bang_bang_optimal"))
    assert not Trial("reward_tiny", "spread", "mappo").healthy
    assert [name for name in INJECTIONS if Trial(name, "spread", "mappo").rare] == [
        "reward_spike",
        "obs_nan",
        "reward_inf",
        "reward_nan",
    ]


@pytest.mark.parametrize(
    ("trial", "place"),
    [
        (Trial("obs_scale", "spread", "mappo", 1e5, agent="agent_1"), {"agent": ["agent_1"], "feature": [0]}),
        (Trial("obs_frozen", "spread", "mappo", 4), {"feature": [0, 1, 2, 3]}),
        (Trial("obs_nan", "spread", "mappo", 1e-4), {}),
        (Trial("action_dead", "spread_box", "mappo", 2), {"dimension": [3, 4]}),
        (Trial("action_dead", "spread", "mappo", 2), {}),
        (Trial("lazy_agent", "speaker", "mappo", 1), {"agent": ["speaker_0"]}),
        (Trial("critic_learning_rate_high", "spread", "mappo", 30), {"network": ["critic"]}),
        (Trial("frozen_parameters", "spread", "mappo", 1), {"network": ["actor"]}),
        (Trial("learning_rate_high", "spread", "mappo", 30), {}),
        (Trial("reward_tiny", "spread", "mappo", 1e-4, agent="agent_2"), {"agent": ["agent_2"]}),
    ],
)
def test_where_a_fault_is(trial: Trial, place: dict[str, list[Any]]) -> None:
    assert trial.place() == place
    if trial.agent:
        assert trial.env_kwargs()["faults"][0]["agents"] == [trial.agent]


# ---- the judge


def entry(
    name: str = "reward_tiny", value: float | None = 0.0, named: tuple[str, ...] = (), onset: int = 0, **more: Any
) -> dict[str, Any]:
    """A line of the results; twins gain 10 over 0."""
    trial = Trial(name, "spread", "mappo", 1.0, onset, variant=more.pop("variant", ""))
    where = more.pop("where", {})
    found = [{"cause": cause, "confidence": 0.9, "onset_steps": 0, "where": where} for cause in named]
    verdict = more.pop("verdict", "warning" if named else "healthy")
    judged = {
        "verdict": verdict,
        "findings": found,
        "first": more.pop("first", None),
        "before": more.pop("before", []),
        "commit": "abc",
    }
    told = {"cause": trial.cause, "healthy": trial.healthy, "rare": trial.rare, "place": trial.place()}
    worth = {} if value is None else {"value": value, "low": 0.0, "error": 0.1}
    rest = {"total_steps": trial.steps, "agent_of": {}, "status": "finished", "judged": judged}
    return {**trial._asdict(), **told, **worth, **rest, **more}


TWIN = entry(CLEAN, 10.0)
CAUSE = "reward_scale_too_small"


def kinds(*entries: dict[str, Any], twin: dict[str, Any] = TWIN) -> list[str]:
    return [each.kind for each in judge([twin, *entries])[1:]]


def test_harm_is_what_the_twin_would_not_have_lost() -> None:
    assert kinds(entry(value=7.9), entry(value=8.1), entry(value=12.0)) == ["harmful", "harmless", "harmless"]
    assert kinds(entry(value=None, status="failed"), entry(value=10.0, status="stopped")) == ["harmful", "harmful"]
    assert kinds(entry("obs_noise", 0.0), entry(CONSTANT, 0.0), entry(CONVERGED, 0.0)) == ["healthy"] * 3


def test_harm_cannot_be_told_without_a_twin_that_learned() -> None:
    assert kinds(entry(value=0.0), twin=entry(CLEAN, 10.0, variant="batchnorm_mode")) == ["undecided"]
    assert kinds(entry(value=0.0), twin=entry(CLEAN, 1.0)) == ["undecided"]  # a fifth of 1 drowns in the error
    assert kinds(entry(value=0.0), twin=entry(CLEAN, None, status="failed")) == ["undecided"]


def test_rates_count_what_was_harmed() -> None:
    entries = [
        TWIN,
        entry(named=(CAUSE, "critic_divergence")),
        entry(named=("a", "b", CAUSE)),
        entry(named=("a", "b", "c", CAUSE)),
        entry(named=("unknown",)),
        entry(),
        entry(value=10.0, named=("a",)),  # harmless
    ]
    found = rates(judge(entries))
    assert found["anything found"] == Rate(4, 5)
    assert found["recall: its cause is named"] == Rate(3, 5)
    assert found["top-1: named first"] == Rate(1, 5)
    assert found["top-3"] == Rate(2, 5)
    assert found["another cause is named first"] == Rate(2, 5)
    assert found["place right, of those named"].n == 0
    named = {CAUSE: Counter({CAUSE: 1, "a": 2, "unknown": 1, "nothing": 1})}
    assert confusion(judge(entries)) == named


@pytest.mark.parametrize(
    ("where", "right"),
    [
        ({"agent": "agent_1", "feature": 0}, True),
        ({"agent": "agent_1", "feature": 3}, False),
        ({"agent": "agent_0", "feature": 0}, False),
        ({"feature": 0}, False),
        ({"group": "solo", "feature": 0}, True),
        ({"group": "others", "feature": 0}, False),
    ],
)
def test_a_place_is_right_where_every_part_of_it_is(where: dict[str, Any], right: bool) -> None:
    place = {"agent": ["agent_1"], "feature": [0]}
    line = entry("obs_scale", named=("observation_scale",), where=where, place=place, agent_of={"solo": "agent_1"})
    assert Judged(line, "harmful").place_right is right
    assert Judged(line | {"place": {}}, "harmful").place_right is None
    assert Judged(line | {"cause": "reward_outliers"}, "harmful").place_right is None


def test_false_alarms_are_those_of_healthy_steps() -> None:
    entries = [
        entry(CLEAN, 10.0, named=("a",), before=["a", "b"]),
        entry(CONSTANT, named=("constant_action_is_optimal",)),
        entry("obs_noise", named=("unknown",)),
        entry(onset=64_000, before=["c"], named=(CAUSE,)),
        entry(value=10.0, named=("a",)),  # harmless: counted apart
    ]
    found = alarms(judge(entries))
    assert found["alarms"] == 4
    assert found["steps"] == 3 * 150_000 + 64_000
    assert found["per_million"] == pytest.approx(4 / 0.514)
    assert found["upper"] == pytest.approx(10.2416 / 0.514, rel=1e-3)  # Garwood's for 4
    none = alarms(judge([TWIN]))
    assert none["upper"] == pytest.approx(3.6889 / 0.15, rel=1e-3)  # and for 0


def test_delays_are_shares_of_the_run() -> None:
    found = median_delay(judge([TWIN, *(entry(onset=60_000, first=60_000 + 1_500 * n) for n in (1, 2, 6)), entry()]))
    assert found is not None
    assert found == pytest.approx((0.02, 0.01, 0.06, 3))
    assert median_delay(judge([TWIN, entry("reward_spike", first=100)])) is None  # nobody knows when it struck


def test_an_interval_of_a_share() -> None:
    assert Rate(8, 10).interval == pytest.approx((0.4902, 0.9433), abs=1e-4)  # as published tables have it
    assert Rate(0, 20).interval == pytest.approx((0, 0.1611), abs=1e-4)
    assert Rate(0, 0).interval == (0.0, 1.0)
    assert str(Rate(1, 2)).startswith("0.50 (")


def test_causes_are_halved_for_good() -> None:
    causes = {Trial(name, "spread", "mappo").cause for name in INJECTIONS} - {NONE}
    halves = Counter(map(half, causes))
    assert set(halves) == set(HALVES)
    assert min(halves.values()) >= 0.3 * len(causes)
    assert half("reward_outliers") == half("reward_outliers")


def test_the_page_shows_what_there_is() -> None:
    written = page([TWIN, entry(named=(CAUSE,), first=3_000), entry("obs_noise", named=("unknown",))])
    assert "| top-1: named first | 1.00 (" in written
    assert f"| {CAUSE} | {half(CAUSE)} | {CAUSE} 1 | 0 of 0 |" in written
    assert "| obs_noise | 1 | unknown 1 |" in written
    assert "1 false alarms in 0.30 million steps, 3.33 a million" in written
    assert "| median delay, share of the run | 0.020 (" in written
    assert "0 runs" in page([])


def test_what_has_measures_and_what_has_none_stand_apart() -> None:
    plain = entry(CLEAN, 10.0, measures="none")
    written = pages([TWIN, entry(value=10.0), plain])
    assert written.count("\n1 runs:") == written.count("2 runs:") == 1
    assert written.index("As the framework is") < written.index("Plain algorithms")
    assert "Plain" not in pages([TWIN])


# ---- recordings


def recorded(values: list[float], spacing: int = 1_000) -> Case:
    steps = spacing * np.arange(1, len(values) + 1)
    column = Column("reward_std", (("agent", "agent_0"),))
    incidents = [{"steps": step, "kind": "collapse"} for step in (1_000, 9_000)]
    return Case(Recording(steps, {column: np.array(values)}), {}, {"status": "finished", "incidents": incidents})


def test_looks_are_spread_over_what_is_looked_at() -> None:
    steps = np.arange(1_000, 101_000, 1_000)
    assert diagnosis.looks(steps, 0, 100_000, 4) == [25_000, 50_000, 75_000, 100_000]
    assert diagnosis.looks(steps, 90_000, 100_000, 50) == [91_000 + 1_000 * i for i in range(10)]
    assert diagnosis.looks(steps, 0, 0, 10) == []


def test_nothing_is_known_of_what_comes_later() -> None:
    case = diagnosis.known_at(recorded([1.0] * 10), 5_000)
    assert case.recording.steps.max() == 5_000
    assert [entry["steps"] for entry in case.facts["incidents"]] == [1_000]
    assert case.facts["status"] == "running"


def test_the_first_time_that_a_cause_is_named_and_what_was_named_before(monkeypatch: pytest.MonkeyPatch) -> None:
    def diagnose(case: Case) -> dict[str, Any]:
        """Sees a cause where the last value is 0, and cries wolf at step 2,000."""
        last = case.recording.mean("reward_std")
        assert last is not None
        causes = ([CAUSE] if last.values[-1] == 0 else []) + (["wolf"] if last.steps[-1] == 2_000 else [])
        return {"findings": [{"cause": cause} for cause in causes]}

    monkeypatch.setattr(diagnosis, "diagnose", diagnose)
    case = recorded([1.0] * 6 + [0.0] * 4)
    assert diagnosis.first_named(case, Trial("reward_tiny", "spread", "mappo", 1.0, onset=5_000)) == 7_000
    assert diagnosis.named_before(case, Trial("reward_tiny", "spread", "mappo", 1.0, onset=5_000)) == ["wolf"]
    assert diagnosis.named_before(case, Trial("reward_tiny", "spread", "mappo", 1.0)) == []
    assert diagnosis.named_before(case, Trial(CLEAN, "spread", "mappo")) == [CAUSE, "wolf"]


@pytest.fixture
def small(quick_measurements: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of a second: of five iterations each."""
    tiny = {"algo__batch_size": 200, "algo__num_minibatches": 2, "algo__update_epochs": 1}
    monkeypatch.setattr("benchmarks.diagnosis_plan.COPIES", 8)
    monkeypatch.setitem(FAST, "mappo", tiny)
    monkeypatch.setitem(TASKS, "speaker", TASKS["speaker"]._replace(steps={"mappo": 1_000}))
    monkeypatch.setattr("benchmarks.scoring.EPISODES", 20)


def test_what_crashed_is_recorded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial, file, ends = Trial(CLEAN, "spread", "mappo"), tmp_path / "x.jsonl", iter(("failed", "finished"))

    def record(trial: Trial, cache: Path) -> dict[str, Any]:
        assert not (cache / trial.slug()).exists()
        (cache / trial.slug()).mkdir()
        return {"status": next(ends)}

    monkeypatch.setattr(diagnosis, "record", record)
    monkeypatch.setattr(diagnosis, "entry_of", lambda trial, found, cache: trial._asdict() | found)
    monkeypatch.setattr(diagnosis, "judged", lambda trial, cache: {"findings": []})
    ended = [found["status"] for _ in range(3) for found in diagnosis.run_missing([trial], file, tmp_path / "cache")]
    assert ended == ["failed", "finished"]


@pytest.mark.usefixtures("small")
def test_a_run_is_recorded_once_and_judged_again_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, cache = tmp_path / "x.jsonl", tmp_path / "cache"
    trial = Trial("large_final_layer", "speaker", "mappo", 1e5, onset=400)
    trials = [trial.twin(), trial, Trial(CONVERGED, "speaker", "mappo")]
    entries = list(diagnosis.run_missing(trials, file, cache))
    assert [(entry["status"], entry["reason"]) for entry in entries] == [("finished", "")] * 3
    assert entries[1]["agent_of"] == {"speaker": "speaker_0", "listener": "listener_0"}
    assert entries[1]["place"] == {"network": ["actor"]}
    assert (cache / ".gitignore").read_text() == "*\n"
    assert (cache / trials[0].slug() / "checkpoints" / "best.pt").exists()
    assert not (cache / trial.slug() / "checkpoints").exists()
    assert list(diagnosis.run_missing(trials, file, cache)) == []

    file.unlink()  # the recordings are still there
    monkeypatch.setattr("marl_stable.train", None)
    again = list(diagnosis.run_missing(trials, file, cache))
    assert [entry["value"] for entry in again] == [entry["value"] for entry in entries]

    found = {"verdict": "failing", "findings": [], "symptoms": ["no_learning"]}
    monkeypatch.setattr(diagnosis, "diagnose", lambda case: found)
    assert diagnosis.rejudge(file, cache) == 3
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert all(line["judged"]["symptoms"] == ["no_learning"] for line in lines)
    assert [line["value"] for line in lines] == [entry["value"] for entry in entries]
    assert page(lines)


def test_contributions_are_measured_at_the_end_and_not_known_before() -> None:
    of = recorded([1.0] * 10)
    late = replace(of, facts={**of.facts, "contributions": {"a": {"loss": 1.0, "error": 0.1}}})
    assert "contributions" not in diagnosis.known_at(late, 5_000).facts


def test_a_warning_of_a_harmless_fault_is_told_from_an_alarm_and_unknown_from_a_wrong_one() -> None:
    right = entry(value=10.0, named=(CAUSE,), verdict="warning")
    alarm = entry(value=10.0, named=(CAUSE,), verdict="failing", seed=2)
    wrong = entry(value=10.0, named=("lazy_agent",), verdict="warning", seed=3)
    twins = [entry(CLEAN, 10.0, seed=seed) for seed in (2, 3)]
    written = page([TWIN, *twins, right, alarm, wrong])
    assert "as a warning: 0.33 (" in written
    assert "which is wrong: 0.33 (" in written
    nothing = entry("obs_noise", 0.1, named=("unknown",))
    assert "1 of them are `unknown` at the end" in page([nothing])
    assert "0 of them are `unknown` at the end" in page([entry("obs_noise", 5.0, named=("unknown",))])
