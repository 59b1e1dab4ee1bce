"""Real trainings with one fault of optimiser, networks or PPO each: named first, and not without its function.

Healthy runs of each kind of network show none of these causes. Games, networks and batches are tiny; the monitor probes
at every iteration, since there are few.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import marl_stable as ms
from benchmarks.sabotage import SABOTAGE, sabotaged
from marl_stable.diagnosing import read_case
from marl_stable.monitor.case import CAUSES, Case
from marl_stable.monitor.diagnosis import diagnose
from tests.monitor.causes.trainings import OFF, ON, PROBE, SPREAD

pytestmark = pytest.mark.usefixtures("always_probing", "few_contributions")
MATCH, AIM, REMEMBER = PROBE + "Match", PROBE + "Aim", PROBE + "Remember"
SHORT = {**ON, "total_steps": 2_400}
OURS = {
    kind.name
    for kind in CAUSES.values()
    if kind.look.__module__.endswith((".rates", ".gradients", ".networks", ".ppo"))
}


class Run(NamedTuple):
    """A training, and what is sabotaged of it from `onset` steps on."""

    cause: str
    flags: Mapping[str, Any]
    env: str = MATCH
    sabotage: str | None = None
    dose: float | None = None
    onset: int = 0
    where: Mapping[str, Any] = {}
    slack: float = 0.25  # of the run, within which it has to be noticed


UNCLIPPED = {"algo__max_grad_norm": "none"}
GRU = {"algo__network__recurrent": "gru"}
BATCH = {"algo__network__norm": "batch"}
RUNS = {
    "fast, on": Run("learning_rate_too_high", SHORT | {"algo__lr": 1.0}),
    "fast, off": Run("learning_rate_too_high", OFF, sabotage="learning_rate_high", dose=1_000),
    "slow, on": Run("learning_rate_too_low", SHORT | {"algo__lr": 1e-7}),
    "slow, off": Run("learning_rate_too_low", OFF | {"algo__lr": 1e-7}),
    "spike, on": Run("exploding_gradients", SHORT | UNCLIPPED, sabotage="gradient_spike", onset=1_600),
    "spike, off": Run("exploding_gradients", OFF | UNCLIPPED, sabotage="gradient_spike", onset=2_000),
    "final layer": Run(
        "activation_growth", SHORT, AIM, "large_final_layer", 1e4, where={"network": "actor", "layer": "final"}
    ),
    "all weights": Run("activation_growth", SHORT, AIM, "large_weights", 30),
    "all weights, off": Run("activation_growth", OFF | {"seed": 3}, AIM, "large_weights", 30),
    "wrong log-probabilities": Run("ratio_explosion", SHORT, sabotage="log_prob_mismatch"),
    "wrong observations": Run("ratio_explosion", SHORT, AIM, "moved_observations"),
    "wrong units": Run("value_normalisation", SHORT | {"seed": 2}, PROBE + "Recall", "value_normaliser", 3),
    "two functions": Run("batchnorm_mismatch", SHORT | BATCH, AIM, "batchnorm_mode"),
    "decided": Run(
        "entropy_collapse", SHORT | {"total_steps": 3_200}, AIM, "entropy_coefficient_negative", -1, slack=0.5
    ),
    "floor": Run("vanishing_gradients", SHORT | {"algo__adam_eps": 3.0}, SPREAD),
    "sleeping": Run("dormant_units", SHORT, SPREAD, "killed_units", 0.9),
    "memory": Run(
        "recurrent_gradients", SHORT | {"algo__network__recurrent": "gru"}, SPREAD, "large_recurrent_weights", 30
    ),
    "undecided": Run("entropy_explosion", SHORT | {"algo__entropy_coef": 10.0, "algo__lr_schedule": "constant"}, AIM),
}
HEALTHY = {
    "mappo, continuous": (SHORT, AIM),
    "mappo, memory": (SHORT | GRU, REMEMBER),
    "mappo, batchnorm": (SHORT | BATCH, MATCH),
    "maddpg": (OFF, MATCH),
    "matd3": (OFF | {"algo": "matd3"}, MATCH),
    "a spike that was clipped": (SHORT, MATCH),
}


def trained(path: Path, env: str, flags: Mapping[str, Any]) -> Case:
    """What is known of the run when it has ended."""
    common: dict[str, Any] = {
        "env": env,
        "env__num_envs": 8,
        "algo__network__hidden": (32, 32),
        "algo__gamma": 0.8,
        "eval_episodes": 8,
        "eval_every": 100_000,
        "stability": "monitor",
        "quiet": True,
        "device": "cpu",
        "run_dir": str(path / "run"),
    }
    ms.train(**(common | dict(flags)))
    return read_case(path / "run")


@pytest.mark.parametrize("name", RUNS)
def test_injected_fault_is_named_first_at_its_place_and_not_without_its_function(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RUNS[name]
    more = dict(SABOTAGE[run.sabotage].flags) if run.sabotage else {}
    with sabotaged(run.sabotage, run.dose, run.onset) if run.sabotage else nullcontext():
        case = trained(tmp_path, run.env, more | dict(run.flags))
    found = diagnose(case)["findings"]
    assert [entry["cause"] for entry in found[:1]] == [run.cause], [(f["cause"], f["onset_steps"]) for f in found]
    assert run.where.items() <= found[0]["where"].items()
    assert abs(found[0]["onset_steps"] - run.onset) <= run.slack * int(case.recording.steps[-1])
    monkeypatch.delitem(CAUSES, run.cause)
    assert all(entry["cause"] != run.cause for entry in diagnose(case)["findings"])


@pytest.mark.parametrize("name", HEALTHY)
def test_nothing_is_found_in_a_healthy_run(name: str, tmp_path: Path) -> None:
    flags, env = HEALTHY[name]
    with sabotaged("gradient_spike", 1e6, 1_600) if "spike" in name else nullcontext():
        case = trained(tmp_path, env, flags)
    assert set(diagnose(case)["checked"]) & OURS
    assert not {entry["cause"] for entry in diagnose(case)["findings"]} & OURS
