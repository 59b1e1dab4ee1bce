"""Whole iterations of a BenchMARL experiment, with its own defaults but for what the settings name.

PettingZoo no longer has the particle tasks that TorchRL's wrapper asks it for; it finds them in mpe2 here.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import Any

from benchmarl.algorithms import MaddpgConfig, MappoConfig
from benchmarl.environments import PettingZooTask, VmasTask
from benchmarl.experiment import Callback, Experiment, ExperimentConfig
from benchmarl.models.mlp import MlpConfig

from benchmarks.peers.orders import Orders, settings
from benchmarks.peers.runners.mpe2_for_torchrl import provide

ALGORITHMS = {"mappo": MappoConfig, "maddpg": MaddpgConfig}
TASKS = {"mpe2": PettingZooTask.SIMPLE_SPREAD, "vmas": VmasTask.SIMPLE_SPREAD}
QUIET = {"loggers": ["csv"], "create_json": False, "evaluation": False, "render": False, "max_n_frames": 10**9}


class Waiting(Callback):  # type: ignore[misc]
    """Waits for the next order when an iteration has been learned from."""

    def __init__(self) -> None:
        super().__init__()
        self.orders = Orders()

    def on_train_end(self, training_td: Any, group: str) -> None:
        """There is one group."""
        self.orders.done(self.experiment.config.collected_frames_per_batch(self.experiment.on_policy))


def main() -> None:
    """Train under orders."""
    given = settings()
    config = ExperimentConfig.get_from_yaml()
    for name, value in (QUIET | given["experiment"]).items():
        setattr(config, name, value)
    provide()
    experiment = Experiment(
        task=TASKS[given["task"]].get_from_yaml(),
        algorithm_config=ALGORITHMS[given["algorithm"]].get_from_yaml(),
        model_config=MlpConfig.get_from_yaml(),
        critic_model_config=MlpConfig.get_from_yaml(),
        seed=1,
        config=config,
        callbacks=[Waiting()],
    )
    with suppress(KeyboardInterrupt):
        experiment.run()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
