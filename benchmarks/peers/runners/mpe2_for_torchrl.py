"""Hands mpe2's particle tasks to TorchRL's wrapper, which looks for them where PettingZoo once had them."""

from __future__ import annotations

import sys
from types import ModuleType

from mpe2.all_modules import mpe_environments

LIST = "pettingzoo.utils.all_modules"  # cannot be imported unless every one of PettingZoo's games is installed


def provide() -> None:
    """From now on `PettingZooEnv(task="simple_spread_v3")` finds mpe2's."""
    module = ModuleType(LIST)
    module.all_environments = mpe_environments  # type: ignore[attr-defined]
    sys.modules[LIST] = module
