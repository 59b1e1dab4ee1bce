"""Algorithms. `config.py` has every setting; one file per algorithm has its losses and its agent."""

if __name__ != "marl_stable.agents":  # the top-level link `agents` is for readers, not for imports
    raise ImportError("import marl_stable.agents, not agents: the link at the top level only shows the room.")

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from marl_stable.agents.base import Agent


def algorithm(name: str) -> "Callable[..., Agent]":
    """The class of the algorithm called `name` in `agents/config.py`. Loads torch.

    Called with (spec, config, num_envs, device, seed, refuse, watch).
    """
    from importlib import import_module

    found: Any = getattr(import_module(f"marl_stable.agents.{name}"), name.upper())
    return found  # type: ignore[no-any-return]
