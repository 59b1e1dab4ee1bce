"""From an iteration's tensors to its row of figures and its incidents: one transfer, then plain numbers."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from marl_stable.envs.base import BatchedEnv, take_mishaps
from marl_stable.monitor.detectors import Incident, RepeatedAction
from marl_stable.types import EnvSpec, PerGroup

NETWORKS = ("actor", "critic")
NOT_LOGGED = ("non_finite/actor", "non_finite/critic", "sameness")  # they become incidents
EVIDENCE = ("actions/saturation", "actions/repeat_ratio", "actions/responsiveness")
Host = dict[str, dict[str, list[float]]]
"""tag -> group -> numbers."""


def to_host(stats: Mapping[str, PerGroup]) -> Host:
    """All tensors in one transfer."""
    places = [(tag, group) for tag, groups in stats.items() for group in groups]
    tensors = [stats[tag][group].detach().to(torch.float64).reshape(-1) for tag, group in places]
    numbers = torch.cat(tensors).tolist()
    found: Host = {}
    for (tag, group), tensor in zip(places, tensors, strict=True):
        found.setdefault(tag, {})[group] = numbers[: len(tensor)]
        numbers = numbers[len(tensor) :]
    return found


def row_of(found: Host) -> dict[str, float]:
    """Figures by tag: means over agents, and with several groups the means of each as `tag/group`."""
    row = {}
    for tag, groups in found.items():
        if tag in NOT_LOGGED:
            continue
        row[tag] = _mean(_joined(groups))
        if len(groups) > 1:
            row |= {f"{tag}/{name}": _mean(values) for name, values in groups.items()}
    return row


def non_finite_share(found: Host) -> float:
    """Share of optimiser steps whose gradient was not finite, mean over networks and agents."""
    shares = [share for network in NETWORKS for share in _joined(found.get(f"non_finite/{network}", {}))]
    return _mean(shares) if shares else 0.0  # an iteration of a warm-up has no step


def non_finite_updates(steps: int, spec: EnvSpec, found: Host, action: str) -> list[Incident]:
    """One incident per network (and agent, where agents have their own) whose gradients were not finite.

    `action` is what was done about them.
    """
    incidents = []
    for network in NETWORKS:
        for group in spec.groups:
            for row, share in enumerate(rows := found.get(f"non_finite/{network}", {}).get(group.name, [])):
                if share > 0:
                    place = {"agent": group.agents[row]} if len(rows) > 1 else {"group": group.name}
                    where = {"network": network, **place}
                    incidents.append(Incident(steps, "non_finite_gradient", where, share, 0.0, action, {}))
    return incidents


def worker_failures(steps: int, env: BatchedEnv) -> list[Incident]:
    """What failed in the workers of `env` since this was last asked."""
    return [
        Incident(
            steps,
            "worker_failure",
            mishap.where,
            float(mishap.failures),
            float(mishap.limit),
            "stopped" if mishap.fatal else "restarted",
            {"reason": mishap.told},
        )
        for mishap in take_mishaps(env)
    ]


def repeated_actions(detector: RepeatedAction, steps: int, spec: EnvSpec, found: Host) -> list[Incident]:
    """Hand each agent's numbers to the detector."""
    names = [agent for group in spec.groups for agent in group.agents]
    by_agent = {tag: _joined(groups) for tag, groups in found.items() if tag in EVIDENCE or tag == "sameness"}
    evidence = {
        agent: {tag.removeprefix("actions/"): by_agent[tag][i] for tag in EVIDENCE if tag in by_agent}
        for i, agent in enumerate(names)
    }
    return detector(steps, dict(zip(names, by_agent["sameness"], strict=True)), evidence)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _joined(groups: dict[str, list[float]]) -> list[float]:
    return [value for values in groups.values() for value in values]
