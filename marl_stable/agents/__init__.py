"""Algorithms. `config.py` has every setting; one file per algorithm has its losses and its agent."""

if __name__ != "marl_stable.agents":  # the top-level link `agents` is for readers, not for imports
    raise ImportError("import marl_stable.agents, not agents: the link at the top level only shows the room.")

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from marl_stable.agents.mappo import MAPPO


def algorithm(name: str) -> type["MAPPO"]:
    """The class of the algorithm called `name` in `agents/config.py`. Loads torch."""
    from importlib import import_module

    found: type[MAPPO] = getattr(import_module(f"marl_stable.agents.{name}"), name.upper())
    return found
