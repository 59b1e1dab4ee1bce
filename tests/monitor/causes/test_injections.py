"""Real trainings with one fault each: its cause is named first and at its place, and not without its function.

The games are tiny, and so are networks and batches; the monitor probes at every iteration, since there are few.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import marl_stable as ms
from benchmarks.faults.conditions import FAULTS
from benchmarks.sabotage import SABOTAGE, sabotaged
from marl_stable.diagnosing import read_case
from marl_stable.envs.base import BatchedEnv
from marl_stable.envs.probe import Aim, Match, Roles
from marl_stable.investigate import contributions
from marl_stable.monitor.case import CAUSES, Case
from marl_stable.monitor.diagnosis import diagnose
from marl_stable.policy import load_agent
from marl_stable.types import Box, PerGroup, Step
from tests.monitor.causes.trainings import OFF, ON, PROBE, SPREAD

RAW = {"algo__normalize_obs": False, "algo__normalize_value": False, "algo__normalize_reward": False}
NARROW = OFF | {"algo__network__hidden": (4,), "algo__steps_per_update": 10, "seed": 2}


class Run(NamedTuple):
    """A training and the fault in it: one of the environment (`fault`), of the learner (`sabotage`), or neither."""

    cause: str
    flags: Mapping[str, Any]
    env: str = SPREAD
    fault: str | None = None
    sabotage: str | None = None
    dose: float | None = None
    onset: int = 0  # steps of a copy
    where: Mapping[str, Any] = {}
    env_kwargs: Mapping[str, Any] = {}
    options: Mapping[str, Any] = {}  # of the fault
    slack: float = 0.25  # of the run, within which it has to be noticed


RUNS = {
    "time limit, on": Run("time_limit_as_termination", ON, fault="time_limit_as_termination"),
    "no width": Run("action_range_mismatch", ON, f"{__file__}:flat", where={"group": "agent", "dimension": 1}),
    "no effect, off": Run(
        "action_has_no_effect", OFF, PROBE + "Aim", "action_dead", dose=2, where={"agent": "agent_0"}
    ),
    "padded": Run("masking_error", ON, fault="padded_agents", where={"agent": "agent_0"}),
    "frozen, off": Run("untrained_parameters", OFF, PROBE + "Match", sabotage="frozen_parameters", dose=1),
    "frozen, on": Run("untrained_parameters", ON, PROBE + "Match", sabotage="frozen_parameters", dose=1, onset=100),
    "NaN seen": Run("observation_non_finite", ON, fault="obs_nan", dose=5e-3, onset=100),
    "wide feature": Run("observation_scale", ON | RAW, fault="obs_scale", where={"feature": 0}),
    "wider feature": Run("observation_scale", ON, fault="obs_scale", onset=250, where={"feature": 0}),
    "stuck features": Run("observation_constant", ON, fault="obs_frozen", dose=4, onset=250, where={"feature": 0}),
    "NaN paid": Run("reward_non_finite", ON, fault="reward_nan", dose=5e-3, onset=100),
    "tiny, on": Run("reward_scale_too_small", ON | RAW, fault="reward_tiny"),
    "tiny, off": Run("reward_scale_too_small", OFF | RAW, fault="reward_tiny"),
    "suddenly tiny": Run("reward_scale_too_small", ON, fault="reward_tiny", onset=250),
    "huge, on": Run("reward_scale_too_large", ON | RAW, fault="reward_huge"),
    "offset, on": Run("reward_offset", ON | RAW, fault="reward_offset"),
    "spikes": Run("reward_outliers", ON, fault="reward_spike", onset=100, options={"probability": 2e-3}),
    "flip": Run("reward_shift", ON, fault="reward_flip", onset=300),
    "shift": Run("reward_shift", OFF, fault="reward_shift", onset=300),
    "nothing paid": Run("no_reward_signal", ON, fault="reward_zero"),
    "no longer paid": Run("no_reward_signal", OFF, fault="reward_zero", onset=300),
    "constant, on": Run("constant_action_is_optimal", ON, fault="constant_action_optimal"),
    "unseen": Run(
        "observation_ignored",
        ON | {"algo__entropy_coef": 0.1},
        f"{__file__}:mixed_up",
        where={"agent": "agent_0"},
        slack=0.8,
    ),
    "no noise": Run("too_little_exploration", OFF, PROBE + "Aim", sabotage="no_exploration"),
    "current targets": Run(
        "critic_divergence",
        OFF | {"algo__gamma": 0.99, "algo__huber": None, "algo__steps_per_update": 5, "seed": 2},
        sabotage="targets_are_current",
        slack=0.6,
    ),
    "old data": Run(
        "stale_replay", OFF | {"algo__lr": 1e-3}, PROBE + "Match", sabotage="stale_replay", onset=100, slack=0.4
    ),
    "misled": Run(
        "actor_saturation", NARROW | {"algo__discrete_gradient": "straight_through"}, PROBE + "Match", slack=0.6
    ),
    "one network": Run("identical_policies", ON, f"{__file__}:parts", sabotage="identical_agents"),
}


class Flat(Aim):
    """One dimension of the actions has no width."""

    action = Box((-3.0, 0.5), (1.0, 0.5))

    def _play(self, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return -(action[..., 0] - self.obs[..., 0]).square(), self._constant(0.0)


def flat(num_envs: int, device: torch.device) -> BatchedEnv:
    """Many of it."""
    return Flat(num_envs, device)


class MixedUp(Match):
    """Everyone sees what another copy is in."""

    def reset(self, seed: int) -> PerGroup:
        """Begin."""
        return self._turned(super().reset(seed))

    def step(self, action: PerGroup) -> Step:
        """Go on."""
        step = super().step(action)
        return step._replace(obs=self._turned(step.obs), next_obs=self._turned(step.next_obs))

    def _turned(self, obs: PerGroup) -> PerGroup:
        return {name: x.roll(1, dims=0) for name, x in obs.items()}


class Wide(Aim):
    """Over in eight steps, with bounds that are alike."""

    action, length = Box((-1.0, -1.0), (1.0, 1.0)), 8

    def _play(self, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return super()._play(action)[0], self._uniform()


def wide(num_envs: int, device: torch.device) -> BatchedEnv:
    """Many of it."""
    return Wide(num_envs, device)


class FirstPays(Match):
    """Both are paid mostly for the first one's choice, and a hundredth for the second one's."""

    agents = 2

    def _play(self, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        right = (action == (self.obs.squeeze(-1) > 0)).float()
        return (0.99 * right[:, :1] + 0.01 * right[:, 1:]).expand(-1, 2).contiguous(), self._constant(0.0)


def first_pays(num_envs: int, device: torch.device) -> BatchedEnv:
    """Many of it."""
    return FirstPays(num_envs, device)


class Parts(Roles):
    """Two who must differ, and see only noise."""

    def _begin(self) -> torch.Tensor:
        return self._uniform()


def parts(num_envs: int, device: torch.device) -> BatchedEnv:
    """Many of it."""
    return Parts(num_envs, device)


def mixed_up(num_envs: int, device: torch.device) -> BatchedEnv:
    """Many of it."""
    return MixedUp(num_envs, device)


def trained(path: Path, run: Run) -> Case:
    """What is known of the run when it has ended."""
    flags: dict[str, Any] = {
        "env": run.env,
        "env__kwargs": dict(run.env_kwargs),
        "env__num_envs": 8,
        "algo__network__hidden": (32,),
        "eval_episodes": 8,
        "eval_every": 500,
        "stability": "monitor",
        "quiet": True,
        "device": "cpu",
        "run_dir": str(path / "run"),
        **run.flags,
    }
    if run.fault is not None:
        kwargs = FAULTS[run.fault].kwargs(run.env, run.env_kwargs, run.dose, run.onset)
        kwargs["faults"][0].update(run.options)
        flags |= {"env": "benchmarks.faults:distorted", "env__kwargs": kwargs}
    if run.sabotage is not None:
        flags = dict(SABOTAGE[run.sabotage].flags) | flags
    with sabotaged(run.sabotage, run.dose, 8 * run.onset) if run.sabotage else nullcontext():
        ms.train(**flags)
    return read_case(path / "run")


@pytest.mark.usefixtures("always_probing", "few_contributions")
@pytest.mark.parametrize("name", RUNS)
def test_injected_fault_is_named_first_at_its_place_and_not_without_its_function(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RUNS[name]
    case = trained(tmp_path, run)
    found = diagnose(case)["findings"]
    assert [entry["cause"] for entry in found][:1] == [run.cause]
    assert run.where.items() <= found[0]["where"].items()
    began, last = 8 * run.onset, int(case.recording.steps[-1])
    assert abs(found[0]["onset_steps"] - began) <= run.slack * last
    monkeypatch.delitem(CAUSES, run.cause)
    assert all(entry["cause"] != run.cause for entry in diagnose(case)["findings"])


HEALTHY = {
    "bang-bang, on": Run("", ON, f"{__file__}:wide", "bang_bang_optimal"),
    "bang-bang, off": Run("", OFF, f"{__file__}:wide", "bang_bang_optimal"),
    "sparse": Run("", ON | {"total_steps": 6_000}, PROBE + "Aim", "reward_sparse", options={"threshold": -0.05}),
    "converged early": Run("", ON | {"total_steps": 8_000, "algo__lr": 2e-2}, PROBE + "Match"),
    "maddpg": Run("", OFF, PROBE + "Match"),
    "matd3": Run("", OFF | {"algo": "matd3"}, PROBE + "Match"),
    "not misled": Run("", NARROW, PROBE + "Match"),
    "spread, mappo": Run("", ON),
    "spread, maddpg": Run("", OFF),
    "spread, matd3": Run("", OFF | {"algo": "matd3"}, env_kwargs={"continuous_actions": True}),
}


@pytest.mark.usefixtures("always_probing", "few_contributions")
@pytest.mark.parametrize("name", HEALTHY)
def test_nothing_is_named_in_healthy_runs_that_look_ill(name: str, tmp_path: Path) -> None:
    found = diagnose(trained(tmp_path, HEALTHY[name]))
    named = [entry for entry in found["findings"] if entry["cause"] != "unknown"]  # the shortest have learned nothing
    assert named == []
    if not name.startswith("spread"):
        assert found["verdict"] == "healthy"


@pytest.mark.usefixtures("always_probing")
def test_lazy_agent_is_named_from_what_is_measured_when_the_run_has_ended(tmp_path: Path) -> None:
    case = trained(tmp_path, Run("", ON, f"{__file__}:first_pays"))
    loaded = load_agent(tmp_path / "run")
    measured = contributions.measure(loaded.agent, first_pays(8, torch.device("cpu")), seed=1)
    found = diagnose(replace(case, facts=dict(case.facts) | {"contributions": measured}))["findings"]
    assert ("lazy_agent", "agent_1") in [(entry["cause"], entry["where"].get("agent")) for entry in found]
