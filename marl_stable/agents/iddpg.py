"""IDDPG: every agent learns with DDPG (Lillicrap et al. 2016) from what it sees and does itself."""

from __future__ import annotations

from marl_stable.agents.maddpg import MADDPG


class IDDPG(MADDPG):
    """MADDPG with local critics; nothing else differs."""

    centralised = False
