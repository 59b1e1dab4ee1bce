"""On a CUDA device everything is as on the CPU, but faster. What these tests ask is in `benchmarks/gpu_smoke.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import marl_stable as ms
from benchmarks.gpu_smoke import (
    ALGORITHMS,
    CLOSE,
    GPU,
    Player,
    differences,
    same_with_and_without_graphs,
    waits_by_part,
)
from marl_stable.cli import main
from marl_stable.config import NetworkConfig
from marl_stable.interruption import Signals
from tests.runs import Asked, assert_same_run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here")
BATCH, GRU = NetworkConfig(hidden=(32,), norm="batch"), NetworkConfig(hidden=(32,), recurrent="gru")

POOL = {"critic_input": "pool"}


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_losses_are_those_of_the_cpu(algo: str):
    assert max(differences(algo).values()) < CLOSE


@pytest.mark.parametrize("algo", ["mappo", "maddpg", "matd3"])
def test_so_are_those_of_critics_that_pool(algo: str):
    assert max(differences(algo, **POOL).values()) < CLOSE
    found = waits_by_part(algo, **POOL)
    assert (found["collecting"], found["learning"], found["figures"]) == (0, 0, 0)


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_nothing_waits_for_the_device(algo: str):
    found = waits_by_part(algo)
    assert {part: found[part] for part in ("collecting", "learning", "figures")} == dict.fromkeys(
        ("collecting", "learning", "figures"), 0
    )


@pytest.mark.parametrize("algo", ALGORITHMS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"share": False},
        {"network": BATCH},
        {"network": GRU},
        {"lr_schedule": "linear"},
        POOL,
        POOL | {"network": BATCH},
    ],
    ids=str,
)
def test_recorded_updates_are_the_same_bit_for_bit(algo: str, settings: dict[str, Any]):
    if settings.get("network") is GRU and algo not in ("mappo", "ippo"):
        pytest.skip(f"{algo} has no memory")
    if "critic_input" in settings and algo in ("ippo", "iddpg"):
        pytest.skip(f"{algo} has nothing to pool")
    assert same_with_and_without_graphs(algo, **settings)


def test_updates_are_recorded():
    player = Player("mappo", GPU)
    player.collect()
    player.learn()
    (learner,) = player.agent.learners.values()
    assert len(learner.step._graphs) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("algo", ["mappo", "maddpg"])
def test_an_interrupted_run_goes_on_exactly(algo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    more = ["train", "--device", "cuda", "--algo", algo, "--quiet", "--env.num-envs", "16", "--total-steps", "1600"]
    more += ["--algo.batch-size", "80", *(["--algo.train-every", "80"] if algo == "maddpg" else [])]
    assert main([*more, "--run-dir", "whole"]) == 0
    asked = Asked()
    asked.left = 60
    with monkeypatch.context() as patch:
        patch.setattr(Signals, "__call__", asked)
        assert main([*more, "--run-dir", "run"]) == 130
    assert main(["train", "--resume", "run", "--quiet"]) == 0
    assert_same_run(Path("run"), Path("whole"))


def test_a_policy_trained_on_the_gpu_acts_on_the_cpu(tmp_path: Path):
    run = ms.train(
        env="mpe2/simple_spread_v3", device="cuda", total_steps=1_600, env__num_envs=16, run_dir=str(tmp_path / "run"),
        quiet=True,
    )  # fmt: skip
    policy = ms.load_policy(run.path)
    actions = policy({f"agent_{i}": np.zeros(18, np.float32) for i in range(3)})
    assert set(actions) == {"agent_0", "agent_1", "agent_2"}
