"""The guard in whole runs: nothing changes where all is well, and where it is not nothing is lost."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.sabotage import at_boundaries
from marl_stable.cli import main
from marl_stable.monitor import guard, pace
from marl_stable.report.metrics import read_metrics
from marl_stable.training import Training
from tests.runs import (
    TINY,
    Asked,
    assert_equal,
    assert_same_run,
    checkpoint,
    incidents,
    metadata,
    networks,
    rows,
    train,
)

REPLAY = [
    *("--algo", "maddpg", "--algo.train-every", "48", "--algo.steps-per-update", "24", "--algo.batch-size", "16"),
    *("--algo.warm-up", "48", "--algo.buffer-size", "480"),
]
PPO = ["--env", "particle/simple_spread_v3"]
ALGORITHMS = [pytest.param(PPO, id="mappo"), pytest.param(REPLAY, id="maddpg")]
LONG = ["--total-steps", "576", "--eval-every", "0", "--quiet"]


@pytest.fixture(autouse=True)
def small(quick_measurements: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(guard, "SNAPSHOT_EVERY", 2)


def tiny(run: str, family: list[str], *more: str) -> int:
    """A tiny training of one family."""
    drop = {"--algo.num-minibatches", "--algo.update-epochs"}
    if "maddpg" not in family:
        return train(Path(run), *family, *more)
    shared = [word for pair in TINY.items() if pair[0] not in drop for word in pair]
    return main(["train", *shared, "--run-dir", run, *family, *more])


def breaking(harm: Callable[[Any], None], *at: int) -> AbstractContextManager[None]:
    """Within, the update after each of the steps `at` ends with `harm(learner)`."""
    left = list(at)

    def plant(training: Training) -> None:
        if left and training.steps >= left[0]:
            left.pop(0)
            for learner in training.agent.learners.values():
                _spoil(learner, harm)

    return at_boundaries(plant)


def _spoil(learner: Any, harm: Callable[[Any], None]) -> None:
    step = learner.critic_optimizer.move

    def spoiled(*given: Any) -> Any:
        learner.critic_optimizer.move = step
        stats = step(*given)
        harm(learner)
        return stats

    learner.critic_optimizer.move = spoiled


def lose_the_actor(learner: Any) -> None:
    learner.actor_optimizer.flat.fill_(math.nan)


def lose_the_critic(learner: Any) -> None:
    """Weights whose values are too large for numbers, though they are numbers."""
    learner.critic_optimizer.flat.fill_(1e30)
    if hasattr(learner, "_target_critic"):
        learner._target_critic.fill_(1e30)


def replace_the_actor(learner: Any) -> None:
    learner.actor_optimizer.flat.normal_(0, 30, generator=torch.Generator().manual_seed(0))


def done(run: str, *actions: str) -> list[dict[str, Any]]:
    return [entry for entry in incidents(Path(run)) if entry["action"] in actions]


def is_finite(run: str) -> bool:
    parts = [tensor for nets in networks(Path(run)).values() for part in nets.values() for tensor in part.values()]
    return all(bool(tensor.isfinite().all()) for tensor in parts)


@pytest.mark.parametrize("family", ALGORITHMS)
def test_a_healthy_run_is_the_one_without_a_guard_bit_for_bit(family: list[str]) -> None:
    for level in ("off", "guard"):
        assert tiny(level, family, *LONG, "--stability", level) == 0
    assert done("guard", "lowered_rate", "reset_moments", "restored", "stopped", "skipped_update") == []
    assert_equal(networks(Path("guard")), networks(Path("off")))
    assert len(checkpoint(Path("guard"))["training"]["guard"]["snapshots"]) == guard.SNAPSHOTS


@pytest.mark.parametrize(
    ("family", "harm"), [(PPO, lose_the_critic), (REPLAY, lose_the_actor)], ids=["mappo", "maddpg"]
)
def test_where_only_an_earlier_state_would_help_guard_stops_and_loses_nothing(
    family: list[str], harm: Callable[[Any], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with breaking(harm, 240):
        assert tiny("run", family, "--eval-every", "192", "--total-steps", "576") == 3
    (stop,) = done("run", "stopped")
    assert metadata(Path("run"))["status"] == "stopped"
    assert stop["to_steps"] <= 240 < stop["steps"]
    assert f"as they were at {stop['to_steps']:,} steps" in capsys.readouterr().err.replace("\n", " ")
    assert read_metrics(Path("run/metrics.csv"))["steps"][-1] == stop["steps"]
    assert all((Path("run/checkpoints") / name).exists() for name in ("last.pt", "previous.pt", "best.pt"))
    assert list(Path("run/recording").iterdir())
    assert is_finite("run")
    assert checkpoint(Path("run"))["steps"] == stop["steps"]


@pytest.mark.parametrize("family", ALGORITHMS)
def test_a_stopped_run_can_be_gone_on_with_and_begun_from(family: list[str]) -> None:
    with breaking(lose_the_actor, 240):
        assert tiny("run", family, *LONG) == 3
    assert tiny("next", family, *LONG, "--init-from", "run") == 0
    assert main(["train", "--resume", "run", "--quiet"]) == 0
    assert metadata(Path("run"))["status"] == "finished"
    assert checkpoint(Path("run"))["steps"] == 576
    assert is_finite("run")
    rates = checkpoint(Path("run"))["training"]["agent"]["learning"]["groups"]["agent"]["actor_optimizer"]["rates"]
    assert rates["factor"].tolist() == [0.5]


@pytest.mark.parametrize(
    ("family", "harm"),
    [(PPO, lose_the_actor), (PPO, replace_the_actor), (REPLAY, lose_the_critic), (REPLAY, replace_the_actor)],
)
def test_repair_goes_back_and_on(family: list[str], harm: Callable[[Any], None]) -> None:
    with breaking(harm, 240):
        assert tiny("run", family, *LONG, "--stability", "repair") == 0
    (back,) = done("run", "restored")
    assert (back["rate_before"], back["rate_after"], back["restores"]) == (1.0, 0.5, 1)
    assert back["to_steps"] <= 240 < back["steps"]
    assert is_finite("run")


def test_repair_that_does_not_help_ends_after_the_third_time() -> None:
    with breaking(lose_the_actor, 96, 192, 288, 384):
        assert tiny("run", PPO, *LONG, "--stability", "repair") == 3
    assert [entry["action"] for entry in done("run", "restored", "stopped")] == ["restored"] * 3 + ["stopped"]
    assert is_finite("run")


@pytest.mark.parametrize("level", ["off", "monitor"])
def test_without_a_guard_nothing_is_done_about_it(level: str) -> None:
    with breaking(lose_the_critic, 240):
        assert tiny("run", PPO, *LONG, "--stability", level) == 0
    assert not is_finite("run")


@pytest.mark.parametrize("family", ALGORITHMS)
def test_rates_that_fall_and_rise_and_snapshots_survive_stops_bit_for_bit(
    family: list[str], asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "LONGEST_STEP", 0.004)  # some readings are beyond, others calm
    monkeypatch.setattr(guard, "CALM", 2)
    monkeypatch.setattr(guard, "CALM_BELOW", 0.9)
    assert tiny("whole", family, *LONG) == 0
    for polls in (41, 29, 23):
        asked.left = polls
        code = main(["train", "--resume", "run", "--quiet"]) if Path("run").exists() else tiny("run", family, *LONG)
        assert code == 130
    asked.left = 10**9
    assert main(["train", "--resume", "run", "--quiet"]) == 0
    assert_same_run(Path("run"), Path("whole"))
    assert done("run", "lowered_rate")
    state = checkpoint(Path("run"))["training"]["guard"]
    assert any(row["factor"] > 0.5 for row in state["rows"].values())  # all were lowered


@pytest.mark.parametrize("family", ALGORITHMS)
@pytest.mark.parametrize("network", ["actor", "critic"])
def test_a_rate_whose_first_step_is_long_for_the_weights_is_lowered_before_it(family: list[str], network: str) -> None:
    assert tiny("run", family, f"--algo.{network}-lr", "1", "--algo.lr-schedule", "constant") == 0
    (lowered,) = [entry for entry in done("run", "lowered_rate") if entry["steps"] == 0]
    assert lowered["where"]["network"] == network
    assert lowered["value"] > lowered["limit"] == pace.LONGEST_FIRST
    assert lowered["rate_after"] == pytest.approx(max(guard.LOWEST, pace.USUAL_FIRST / lowered["value"]))
    assert tiny("watched", family, f"--algo.{network}-lr", "1", "--stability", "monitor") == 0
    assert done("watched", "lowered_rate") == []


@pytest.mark.parametrize("family", ALGORITHMS)
def test_a_rate_that_would_throw_the_first_outputs_to_their_ends_is_lowered_before_it_does(
    family: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "LONGEST_FIRST", 1e9)
    assert tiny("run", family, "--algo.lr", "1", "--algo.lr-schedule", "constant") == 0
    first = metadata(Path("run"))["preflight"]["first_step"]["agent"]
    (lowered,) = [entry for entry in done("run", "lowered_rate") if entry["steps"] == 0]
    assert lowered["value"] == first["value"] > lowered["limit"] == first["alarm"]
    assert lowered["rate_after"] == pytest.approx(max(guard.LOWEST, first["warn"] / first["value"]))


def test_two_runs_of_one_seed_act_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "LONGEST_STEP", 0.004)
    for name in ("one", "two"):
        assert tiny(name, PPO, *LONG) == 0
    assert incidents(Path("one")) == incidents(Path("two")) != []
    assert rows(Path("one")) == rows(Path("two"))


def test_the_kl_schedule_and_the_guard_leave_each_other_alone() -> None:
    for level in ("monitor", "guard"):
        assert (
            tiny(level, PPO, *LONG, "--algo.lr-schedule", "kl", "--algo.target-kl", "0.01", "--stability", level) == 0
        )
    assert_equal(networks(Path("guard")), networks(Path("monitor")))
