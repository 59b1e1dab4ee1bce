"""The memory that a full replay takes: computed from its shapes, and measured in a process of its own.

python -m benchmarks.timed.replay 1000000    # bytes measured
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from marl_stable.buffers import Replay
from marl_stable.config import EnvConfig
from marl_stable.envs import catalog
from marl_stable.types import EnvSpec

ROOT = Path(__file__).parents[2]
COPIES = 250


def computed(steps: int) -> int:
    """Bytes of the replay of simple_spread that holds `steps`, by its shapes alone."""
    replays = _replays(steps, torch.device("meta"))
    return sum(tensor.nbytes for replay in replays for tensor in replay.tensors().values())


def measured(steps: int) -> int:
    """Bytes by which a new process grows when it makes that replay and fills it."""
    command = [sys.executable, "-m", "benchmarks.timed.replay", str(steps)]
    return int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def _replays(steps: int, device: torch.device) -> list[Replay]:
    return [Replay(steps // COPIES, COPIES, group, device) for group in _spec().groups]


def _spec() -> EnvSpec:
    return catalog.make(EnvConfig(id="particle/simple_spread_v3"), torch.device("cpu"), 1).spec


def _growth(steps: int) -> int:
    """Bytes by which this process grows when it makes the replay and fills it."""
    _replays(COPIES, torch.device("cpu"))  # what is loaded when first used is no part of it
    before = _resident()
    replays = _replays(steps, torch.device("cpu"))
    for replay in replays:
        for tensor in replay.tensors().values():
            tensor.fill_(1)  # memory is taken when it is written to
    return _resident() - before


def _resident() -> int:
    """Bytes of memory that this process holds, as Linux tells."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    print(_growth(int(sys.argv[1])))
