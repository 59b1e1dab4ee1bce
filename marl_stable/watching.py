"""From an iteration's tensors to its row of figures and its incidents: one transfer, then plain numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from marl_stable import distributed
from marl_stable.envs.base import BatchedEnv, take_mishaps
from marl_stable.monitor.detectors import Incident, RepeatedAction
from marl_stable.monitor.table import NETWORKS, PREFIX, SIGNALS, Host, Worst, signal_of
from marl_stable.types import EnvSpec, PerGroup

NOT_LOGGED = ("non_finite/", "skipped/", "stunned/", "sameness")  # they become incidents
WEIGHTS = "weights/norm"
EVIDENCE = ("actions/saturation", "actions/repeat_ratio", "actions/responsiveness")


def to_host(stats: Mapping[str, PerGroup]) -> Host:
    """All tensors in one transfer."""
    places = [(tag, group) for tag, groups in stats.items() for group in groups]
    tensors = [stats[tag][group].detach().to(torch.float64).reshape(-1) for tag, group in places]
    numbers = torch.cat(tensors).cpu().numpy()
    found: dict[str, dict[str, NDArray[np.float64]]] = {}
    start = 0
    for (tag, group), tensor in zip(places, tensors, strict=True):
        end = start + len(tensor)
        found.setdefault(tag, {})[group] = numbers[start:end].reshape(stats[tag][group].shape)
        start = end
    return found


def of_all(found: Host) -> Host:
    """The figures of all processes that train together: means, of the monitor's signals over those that were read.

    Raises RuntimeError where the processes do not have the same weights.
    """
    if distributed.world_size() == 1:
        return found
    places = [(tag, group) for tag, groups in found.items() for group in groups]
    mine = np.concatenate([found[tag][group].ravel() for tag, group in places])
    each = distributed.gathered(torch.from_numpy(mine).unsqueeze(0))  # (processes, numbers)
    plain, known = each.mean(0).numpy(), each.nanmean(0).numpy()
    joint: dict[str, dict[str, NDArray[np.float64]]] = {}
    start = 0
    for tag, group in places:
        end = start + found[tag][group].size
        if tag == WEIGHTS and not torch.allclose(each[:, start:end], each[:1, start:end], 0.0, 0.0, equal_nan=True):
            raise RuntimeError(f"processes have come apart: {WEIGHTS} of {group} is {each[:, start].tolist()}")
        numbers = known if tag.startswith(PREFIX) else plain
        joint.setdefault(tag, {})[group] = numbers[start:end].reshape(found[tag][group].shape)
        start = end
    return joint


def row_of(found: Host) -> dict[str, float]:
    """Figures by tag: means over agents, and with several groups the means of each as `tag/group`.

    The monitor's signals have a number for each group, the mean or the largest of its parts, and the same of those for
    all; what was not read is left out.
    """
    row = {}
    for tag, groups in found.items():
        if tag.startswith(NOT_LOGGED):
            continue
        parts = {name: values.ravel() for name, values in groups.items()}
        told_as: Worst = "mean"
        if tag.startswith(PREFIX):
            told_as = SIGNALS[signal_of(tag)[0]].told_as
            parts = {name: np.array([told]) for name, x in parts.items() if not math.isnan(told := _told(x, told_as))}
        if parts:
            row[tag] = _told(np.concatenate(list(parts.values())), told_as)
        if len(groups) > 1:
            row |= {f"{tag}/{name}": _told(values, told_as) for name, values in parts.items()}
    return row


def non_finite_share(found: Host) -> float:
    """Share of optimiser steps whose gradient was not finite, mean over networks and agents."""
    shares = [share for network in NETWORKS for share in _joined(found.get(f"non_finite/{network}", {}))]
    return sum(shares) / len(shares) if shares else 0.0  # an iteration of a warm-up has no step


def non_finite_updates(steps: int, spec: EnvSpec, found: Host, action: str) -> list[Incident]:
    """One incident per network (and agent, where agents have their own) whose gradients were not finite.

    `action` is what was done about them.
    """
    shares = _rows(spec, found, "non_finite")
    return [Incident(steps, "non_finite_gradient", where, share, 0.0, action, {}) for where, share in shares]


def skipped_spikes(steps: int, spec: EnvSpec, found: Host) -> list[Incident]:
    """One incident per network (and agent, where agents have their own) whose steps were skipped for a spike."""
    refused = {tuple(where.items()): share for where, share in _rows(spec, found, "non_finite")}
    spikes = [(where, x - refused.get(tuple(where.items()), 0.0)) for where, x in _rows(spec, found, "skipped")]
    return [Incident(steps, "gradient_spike", where, x, 0.0, "skipped_update", {}) for where, x in spikes if x > 1e-9]


def _rows(spec: EnvSpec, found: Host, tag: str) -> list[tuple[dict[str, str], float]]:
    """Place and share of every optimiser row that has one above 0."""
    told = []
    for network in NETWORKS:
        for group in spec.groups:
            rows = found.get(f"{tag}/{network}", {}).get(group.name, np.empty(0)).tolist()
            for row, share in enumerate(rows):
                place = {"agent": group.agents[row]} if len(rows) > 1 else {"group": group.name}
                if share > 0:
                    told.append(({"network": network, **place}, share))
    return told


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
    by_agent = {tag: _joined(groups).tolist() for tag, groups in found.items() if tag in EVIDENCE or tag == "sameness"}
    evidence = {
        agent: {tag.removeprefix("actions/"): by_agent[tag][i] for tag in EVIDENCE if tag in by_agent}
        for i, agent in enumerate(names)
    }
    return detector(steps, dict(zip(names, by_agent["sameness"], strict=True)), evidence)


def _told(values: NDArray[np.float64], told_as: Worst) -> float:
    """NaN where a mean has a NaN in it, as curves should show it; a signal's parts that were not read do not count."""
    if told_as == "mean":
        return float(values.mean())
    known = values[~np.isnan(values)]
    return float(known.max()) if len(known) else math.nan


def _joined(groups: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.concatenate([values.ravel() for values in groups.values()]) if groups else np.empty(0)
