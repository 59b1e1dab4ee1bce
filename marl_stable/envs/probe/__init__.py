"""Tiny games with a known answer, batched on the device: what fails on one is broken, and its rule says where."""

from __future__ import annotations

from marl_stable.envs.probe.acting import Aim, Allowed, Relay, Remember, Roles
from marl_stable.envs.probe.base import Probe
from marl_stable.envs.probe.credit import Ending, Endless, Match, Recall, Silence

__all__ = [
    "GAMES",
    "Aim",
    "Allowed",
    "Ending",
    "Endless",
    "Match",
    "Probe",
    "Recall",
    "Relay",
    "Remember",
    "Roles",
    "Silence",
]

GAMES: dict[str, type[Probe]] = {
    game.__name__: game for game in (Match, Recall, Endless, Ending, Roles, Aim, Remember, Allowed, Relay, Silence)
}
