"""IPPO: every agent learns with PPO from what it sees itself (de Witt et al. 2020, arXiv 2011.09533)."""

from __future__ import annotations

from marl_stable.agents.mappo import MAPPO


class IPPO(MAPPO):
    """MAPPO with local critics; nothing else differs."""

    centralised = False
