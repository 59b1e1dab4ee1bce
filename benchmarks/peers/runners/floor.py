"""The bare passes and optimiser steps of the updates that `ms.train` makes with the flags of its settings."""

from __future__ import annotations

from benchmarks.peers.orders import serve, settings
from benchmarks.timed.learning import floor
from marl_stable import configs
from marl_stable.agents.config import MAPPOConfig

given = settings()
config = configs.resolve(configs.nested(given["flags"])).algo
assert isinstance(config, MAPPOConfig)
steps = config.batch_size
learn = floor(given["agents"], given["obs"], given["outputs"], config)


def play() -> int:
    """One update."""
    learn()
    return steps


serve(play)
