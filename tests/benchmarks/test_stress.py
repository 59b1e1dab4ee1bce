from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import stress
from benchmarks.faults import distorted
from benchmarks.faults.conditions import FAULTS
from benchmarks.scoring import iqm, latest, same_figures, score, stratified_interval, without_learning, worth
from benchmarks.stress import Job, jobs, key_of
from benchmarks.stress_conditions import BY_NAME, CONDITIONS, TASKS
from benchmarks.stress_table import explained, marks_of, points, survived, table
from benchmarks.trials import part_of, read
from benchmarks.trouble import LENGTH, Lamps
from marl_stable import configs, train
from marl_stable.config import EnvConfig
from marl_stable.envs import catalog
from marl_stable.envs.base import BatchedEnv

CPU = torch.device("cpu")
CLEAN = ("spread", "mappo", "default")


def entry(condition: str, value: float | None = 8.0, seed: int = 1, **more: Any) -> dict[str, Any]:
    """A line of the results, of a task where 0 is low."""
    names = dict(zip(("task", "algo", "arm"), CLEAN, strict=True))
    worth = {} if value is None else {"value": value, "low": 0.0}
    told = {"status": "finished", "named": [], "seed": seed, "commit": "abc", "total_steps": 300_000}
    return {"condition": condition, **names, **told, **worth, **more}


# ---- scores


def test_a_score_lies_between_play_without_learning_and_the_mark() -> None:
    assert [score(value, -4.0, 6.0) for value in (-9.0, -4.0, 1.0, 6.0, 7.0)] == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert math.isnan(score(1.0, 2.0, 2.0))
    assert score(math.inf, 0.0, 1.0) == 1.0
    assert math.isnan(score(1.0, 0.0, math.nan))


def test_an_interval_draws_seeds_within_their_stratum() -> None:
    apart = [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
    assert stratified_interval(apart) == (0.5, 0.5)  # across strata it would be wide
    low, high = stratified_interval([[0.0, 0.5, 1.0], [0.0, 0.5, 1.0]])
    assert 0 <= low < 0.5 < high <= 1
    assert iqm([0.0, 1.0, 2.0, 100.0]) == 1.5


def test_the_mark_is_the_mean_of_what_was_trained_by_default() -> None:
    entries = [entry("clean", 8.0), entry("clean", 12.0, seed=2), entry("clean", 99.0, arm="plain")]
    marks = marks_of(entries)
    assert marks == {("clean", "spread", "mappo"): 10.0}
    assert points(entry("reward tiny", 4.0), marks) == 0.4
    assert math.isnan(points(entry("dying agents", 4.0), marks))  # its own mark is missing
    assert points(entry("dying agents", 4.0), marks | {("deaths", "spread", "mappo"): 5.0}) == 0.8


def test_a_stop_is_worth_half_only_where_it_is_right() -> None:
    marks = {("clean", "spread", "mappo"): 10.0}
    why = "observation_non_finite"
    assert points(entry("NaN sensor", status="stopped", named=[why]), marks) == 0.5
    assert points(entry("NaN sensor", status="stopped", named=["reward_outliers", why]), marks) == 0.0
    assert points(entry("NaN sensor", None, status="stopped", named=[why]), marks) == 0.0  # no checkpoint
    assert points(entry("NaN observation", status="stopped", named=[why]), marks) == 0.0
    assert points(entry("NaN sensor", status="failed", named=[why]), marks) == 0.0


def test_who_survives() -> None:
    assert survived(entry("reward tiny"))
    assert not survived(entry("reward tiny", status="stopped"))
    assert not survived(entry("kill -9 and resume", exact=False))
    assert survived(entry("rate x30", status="stopped", named=["learning_rate_too_high"]))
    assert not explained(entry("rate x30"))


def test_figures_are_compared_without_time_and_speed(tmp_path: Path) -> None:
    one = [{"steps": "1", "seconds": "2.0", "charts/steps_per_second": "9", "losses/critic": "0.5"}]
    assert same_figures(one, [{**one[0], "seconds": "3.0", "charts/steps_per_second": "8"}])
    assert not same_figures(one, [{**one[0], "losses/critic": "0.6"}])
    assert not same_figures(one, one + one)


# ---- the plan


def test_every_job_has_a_configuration_and_an_environment_to_be_scored_on() -> None:
    every = jobs(1, wide=True)
    assert len({job.key() for job in every}) == len(every)
    made: set[str] = set()
    for job in every:
        flags = {name: value for name, value in job.flags().items() if name != "quiet"}
        config = configs.resolve(configs.nested(flags))
        assert config.total_steps == TASKS[job.task].steps[job.algo]
        scored = job.about.scored_on(job.place)
        if (key := json.dumps([config.env.kwargs, scored.kwargs])) not in made:
            made.add(key)
            spaces = [catalog.make(env, CPU, 2).spec.groups for env in (config.env, scored) if not env.workers]
            assert spaces[0] == spaces[-1]


def test_the_numbers_of_the_suite_are_all_there() -> None:
    assert sorted({condition.number for condition in CONDITIONS}) == list(range(26))
    assert len(BY_NAME) == len(CONDITIONS)
    assert {condition.fault for condition in CONDITIONS} <= FAULTS.keys()
    for condition in CONDITIONS:
        mark = BY_NAME[condition.reference]
        assert condition.mark_alone or set(condition.places) | set(condition.wide) <= {*mark.places, *mark.wide}
        assert condition.may_stop == (condition.number in (14, 17, 18, 19, 20))
        families = {"mappo" if algo == "mappo" else "replay" for _, algo in condition.places}
        assert families == {"mappo", "replay"} or condition.number == 23  # only MAPPO remembers


def test_marks_are_trained_by_default_alone() -> None:
    arms = {job.arm for job in jobs(2) if job.about.mark_alone}
    assert arms == {"default"}
    assert [job.seed for job in jobs(2)] == sorted(job.seed for job in jobs(2))


def test_late_conditions_begin_in_mid_run_and_hold_when_scored() -> None:
    (job,) = (job for job in jobs(1) if job[:4] == ("NaN sensor", "spread", "mappo", "default"))
    copies = TASKS["spread"].copies
    (fault,) = job.flags()["env__kwargs"]["faults"]
    assert fault["from"] == int(0.3 * (300_000 // copies))
    env = catalog.make(job.about.scored_on(job.place), CPU, 2)
    assert env.reset(0)["agent"][..., 0].isnan().all()


def test_a_shift_is_scored_by_the_reward_in_force() -> None:
    def paid(env: BatchedEnv) -> torch.Tensor:
        env.reset(0)
        together = torch.arange(1, 5).repeat_interleave(3).reshape(4, 1, 3)  # agents, moving as one, do not come apart
        return torch.stack([env.step({"agent": action.expand(200, 3)}).reward["agent"] for action in together])

    near, far = (catalog.make(EnvConfig(id=TASKS["spread"].env, kwargs={"local_ratio": x}), CPU, 200) for x in (1, 0))
    collisions, distances = paid(near), paid(far)
    assert (collisions < 0).any()
    shift = BY_NAME["reward shift"].scored_on(("spread_apart", "mappo"))
    torch.testing.assert_close(paid(catalog.make(shift, CPU, 200)), 0.1 * distances - 0.9 * collisions)
    huge = BY_NAME["reward huge"].scored_on(("spread", "mappo"))
    torch.testing.assert_close(paid(catalog.make(huge, CPU, 200)), 0.5 * distances + 0.5 * collisions)


def test_drift_moves_ten_times_in_a_run_and_deaths_set_their_own_mark() -> None:
    (drift,) = BY_NAME["drifting observation"].env_kwargs(("spread", "mappo"))["faults"]
    assert drift["period"] == 300_000 // 256 // 10
    pair = [BY_NAME[name].env_kwargs(("spread", "mappo"))["faults"][0] for name in ("dying agents", "deaths")]
    assert pair[1] == pair[0] | {"garbage": 0.0}


def test_slow_conditions_and_their_marks_are_trained_longer() -> None:
    longer = jobs(1, times=4)
    assert {job.condition for job in longer} >= {"clean", "flipped", "horizon", "noisy reward", "delayed reward"}
    assert {job.arm for job in longer} == {"default"}
    (drift,) = (job for job in longer if job.condition == "drifting observation" and job.algo == "mappo")
    flags = drift.flags()
    assert flags["total_steps"] == 1_200_000
    assert flags["env__kwargs"]["faults"][0]["period"] == 1_200_000 // 256 // 10
    assert drift.key() != drift._replace(times=1).key()


def test_rates_are_multiples_of_the_algorithms_own() -> None:
    flags = BY_NAME["actor's rate x30"].flags_for(("speaker", "maddpg"))
    assert flags["algo__actor_lr"] == pytest.approx(0.09)
    assert "algo__lr" not in flags
    assert BY_NAME["rate / 100"].flags_for(("spread", "mappo"))["algo__lr"] == pytest.approx(4e-5)


def test_parts_are_all_of_it() -> None:
    every = list(range(7))
    assert sorted(part_of(every, "1/2") + part_of(every, "2/2")) == every
    for text in ("0/2", "3/2", "1", "a/b"):
        with pytest.raises(SystemExit, match="must be like 1/2"):
            part_of(every, text)


# ---- running


def test_what_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Job] = []

    def perform(job: Job) -> dict[str, Any]:
        done.append(job)
        return {"status": "finished", "value": 1.0, "low": 0.0, "named": [], "killed_at": np.float64(0.5).item()}

    monkeypatch.setattr(stress, "perform", perform)
    wanted, file = jobs(1)[:3], tmp_path / "new" / "stress.jsonl"
    assert len(list(stress.run_missing(wanted[:2], file))) == 2
    assert [key_of(entry) for entry in stress.run_missing(wanted, file)] == [wanted[2].key()]
    assert done == wanted
    assert "commit" in json.loads(file.read_text().splitlines()[0])


def test_what_crashed_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = iter(("failed", "finished"))
    monkeypatch.setattr(stress, "perform", lambda job: {"status": next(ends)})
    wanted, file = jobs(1)[:1], tmp_path / "stress.jsonl"
    for _ in range(3):
        list(stress.run_missing(wanted, file))
    assert [found["status"] for found in read(file)] == ["failed", "finished"]
    assert [found["status"] for found in latest(read(file), key_of)] == ["finished"]


def test_an_interrupted_job_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stress, "perform", lambda job: {"status": "interrupted"})
    with pytest.raises(SystemExit, match="interrupted"):
        list(stress.run_missing(jobs(1)[:1], tmp_path / "x.jsonl"))
    assert not (tmp_path / "x.jsonl").exists()


def test_a_training_that_crashes_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(**flags: Any) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("marl_stable.train", crash)
    found = stress.perform(jobs(1)[0])
    assert found == {"reason": "ZeroDivisionError: oh", "status": "failed", "named": []}
    assert "| 0 of 1 |" in table([entry("clean", None, **found)])


def test_the_table_shows_what_there_is() -> None:
    entries = [
        *(entry("clean", 10.0 + seed, seed=seed) for seed in (-1, 0, 1)),
        *(entry("reward tiny", value, seed=seed) for seed, value in ((1, 2.0), (2, 4.0))),
        entry("reward tiny", 1.0, arm="plain"),
        entry("NaN sensor", status="stopped", named=["observation_non_finite"]),
        entry("flipped"),
        entry("reward huge", total_steps=1),  # of a former plan
    ]
    written = table(entries)
    assert "| 1 | reward tiny | 0.30 | 0.20 to 0.40 | 2 of 2 | 0.10 | 0.10 to 0.10 | 1 of 1 |  |  | 3 |" in written
    assert "| 14 | NaN sensor | 0.50 | 0.50 to 0.50 | 1 of 1 |  |  | 0 of 0 | 1 of 1 |  | 1 |" in written
    assert "flipped" not in written
    assert "reward huge" not in written
    assert "worst decile 0.20 on average" in written
    assert "- plain: IQM 0.10" in written


def test_larger_budgets_stand_apart_with_marks_of_their_own() -> None:
    entries = [
        entry("clean", 10.0),
        entry("noisy reward", 4.0),
        entry("clean", 20.0, total_steps=1_200_000),
        *(entry("noisy reward", 18.0, seed=seed, total_steps=1_200_000) for seed in (1, 2)),
    ]
    written = table(entries)
    assert "| 5 | noisy reward | 0.40 | 0.40 to 0.40 | 1 of 1 |" in written
    assert "| 5 | noisy reward | 0.40 | 0.90 | 0.90 to 0.90 | 2 |" in written
    assert "budget" not in table(entries[:2]).replace("at the same budget", "")


def test_only_what_did_not_learn_asks_for_an_explanation() -> None:
    why, lowered = "learning_rate_too_high", {"collapse: lowered_rate": 2}
    entries = [
        entry("clean", 10.0),
        entry("rate x30", 9.0, incidents=lowered),  # learned, and rightly says nothing
        entry("rate x30", 8.9, seed=2, incidents=lowered, named=[why]),
        entry("rate x30", 2.0, seed=3, incidents={"gradient_spike: skipped_update": 1}),
        entry("rate x30", None, seed=4, status="stopped", named=["unknown"]),
        entry("rate x30", 9.0, arm="plain"),
        entry("actor's rate x30", 9.5),
    ]
    written = table(entries)
    assert "| 1 of 1 | 1 of 3 | 2 of 4 | 5 |" in written
    assert "0 of 0 |  | 0 of 1 | 1 |" in written


def test_a_table_of_nothing() -> None:
    assert "| # | condition |" in table([])


def test_a_run_is_worth_what_its_policy_does_on_the_true_task(tmp_path: Path) -> None:
    """A game in which the same choice is always best, its reward falsified and observations lost now and then."""
    faults = [
        {"kind": "constant_action_optimal", "choice": 2},
        {"kind": "reward_scale", "dose": -1.0},
        {"kind": "obs_nan", "dose": 0.05},
    ]
    kwargs = {"env": "particle/simple_spread_v3", "env_kwargs": {"max_cycles": 5}, "faults": faults}
    flags: dict[str, Any] = {
        "algo__batch_size": 200,
        "algo__num_minibatches": 2,
        "algo__network__hidden": (8,),
        "eval_episodes": 4,
    }
    run = train(
        algo="mappo",
        env="benchmarks.faults:distorted",
        env__kwargs=kwargs,
        env__num_envs=20,
        total_steps=4_000,
        eval_every=0,
        run_dir=str(tmp_path / "run"),
        quiet=True,
        **flags,
    )
    found = worth(run.path, EnvConfig(id="benchmarks.faults:distorted", kwargs=kwargs | {"score": True}), mends=True)
    assert found.low == pytest.approx(5.0)  # the best constant action is as good as can be
    assert found.value < 1.0  # it learned to avoid it
    assert found.broken == 0
    assert 0 <= found.error < 0.1


def test_play_without_learning_is_measured_once() -> None:
    kwargs = json.dumps({"env": "particle/simple_spread_v3", "env_kwargs": {"max_cycles": 3}})
    first = without_learning("benchmarks.faults:distorted", kwargs)
    hits = without_learning.cache_info().hits
    assert without_learning("benchmarks.faults:distorted", kwargs) == first < 0
    assert without_learning.cache_info().hits == hits + 1


# ---- an environment that goes wrong


def test_lamps_pay_for_the_one_that_is_lit() -> None:
    env = Lamps()
    obs, _ = env.reset(seed=3)
    for step in range(LENGTH):
        lit = {agent: int(seen.argmax()) for agent, seen in obs.items()}
        obs, rewards, _, truncated, _ = env.step({"agent_0": lit["agent_0"], "agent_1": (lit["agent_1"] + 1) % 3})
        assert rewards == {"agent_0": 1.0, "agent_1": 0.0}
        assert all(truncated.values()) is (step == LENGTH - 1)
    assert env.agents == []


def test_lamps_fail_once_when_they_are_told_to(tmp_path: Path) -> None:
    token = tmp_path / "raise"
    first, second = Lamps(str(token)), Lamps(str(token))
    for env in (first, second):
        env.reset(seed=0)
        env.step({"agent_0": 0, "agent_1": 0})
    token.touch()
    with pytest.raises(RuntimeError, match="a fuse has blown"):
        second.step({"agent_0": 0, "agent_1": 0})
    first.step({"agent_0": 0, "agent_1": 0})
    assert not token.exists()


def test_distorted_environments_are_what_the_suite_calls() -> None:
    assert f"{distorted.__module__}:{distorted.__name__}" == "benchmarks.faults:distorted"
