"""Multi-agent reinforcement learning in which training does not go wrong in silence.

The public names load what they need when they are first used: importing this package costs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from marl_stable.monitor.stability_monitor import StabilityMonitor
    from marl_stable.policy import Policy, load_policy
    from marl_stable.run import Run
    from marl_stable.run.beginning import train
    from marl_stable.types import EnvironmentFailure, UsageError

__version__ = "0.1.0"

_HOMES = {
    "EnvironmentFailure": "marl_stable.types",
    "Policy": "marl_stable.policy",
    "Run": "marl_stable.run",
    "StabilityMonitor": "marl_stable.monitor.stability_monitor",
    "UsageError": "marl_stable.types",
    "load_policy": "marl_stable.policy",
    "train": "marl_stable.run.beginning",
}

__all__ = [
    "EnvironmentFailure",
    "Policy",
    "Run",
    "StabilityMonitor",
    "UsageError",
    "__version__",
    "load_policy",
    "train",
]


def __getattr__(name: str) -> Any:
    """PEP 562: public names are imported when they are first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
