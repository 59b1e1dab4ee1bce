"""BenchMARL's MAPPO with its defaults, on the discrete task with episodes of 25 steps."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from benchmarl.algorithms import MappoConfig
from benchmarl.environments import PettingZooTask
from benchmarl.experiment import Experiment, ExperimentConfig
from benchmarl.models.mlp import MlpConfig
from tensordict import TensorDict
from torchrl.envs import ExplorationType, set_exploration_type

from benchmarks.peers.orders import settings
from benchmarks.peers.runners.greedy import tell, until
from benchmarks.peers.runners.mpe2_for_torchrl import provide

CHANGED = {
    "loggers": ["csv"], "create_json": False, "evaluation": False, "render": False, "max_n_frames": 10**9,
    "prefer_continuous_actions": False,
}  # fmt: skip


def main() -> None:
    """Train until the time is up, and play."""
    config = ExperimentConfig.get_from_yaml()
    for name, value in CHANGED.items():
        setattr(config, name, value)
    provide()
    task = PettingZooTask.SIMPLE_SPREAD.get_from_yaml()
    task.config["max_cycles"] = 25
    experiment = Experiment(
        task=task,
        algorithm_config=MappoConfig.get_from_yaml(),
        model_config=MlpConfig.get_from_yaml(),
        critic_model_config=MlpConfig.get_from_yaml(),
        seed=1,
        config=config,
    )
    until(settings()["seconds"], experiment.run)

    @torch.no_grad()
    def act(obs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        seen = TensorDict({"agent": {"observation": torch.as_tensor(obs)}}, [])
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            actions: np.ndarray[Any, Any] = experiment.policy(seen)["agent", "action"].numpy()
        return actions

    tell(experiment.total_frames, act)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
