"""What learners of all algorithms tell the monitor of a group: what it collected, and how its agents differ.

Shapes: T steps, E copies, P probe observations, A agents, O observation features. All stays on the device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from marl_stable.agents.behaviour import PROBE
from marl_stable.agents.config import ActorCriticConfig
from marl_stable.agents.group_learner import GroupLearner
from marl_stable.monitor.signals.data import History, Recent, data_signals
from marl_stable.monitor.signals.team import continuous_diversity, discrete_diversity, equal_actions
from marl_stable.monitor.table import NETWORKS, Layers
from marl_stable.networks.actors import PolicyBody
from marl_stable.networks.heads import Answer, Categorical, MultiCategorical
from marl_stable.normalize import ObservationNorm

PROBE_SHARE = 0.005  # of the rows that pass networks in an update
BACKWARD = 2  # passes that a backward pass costs
EIGEN = 4 * 128  # rows that the eigenvalues of one network's last layer cost, measured at the default width


def collected(actor: PolicyBody, recent: Recent, norm: ObservationNorm | None, history: History) -> dict[str, Tensor]:
    """What a group saw, got and did since the last update; `norm` where observations are normalised."""
    found = data_signals(recent, norm, history)
    if recent.alive.shape[2] > 1:
        found["stability/equal_actions"] = equal_actions(actor.canonical(recent.action), recent.alive)
    return found


def diversity(actor: PolicyBody, answer: Answer, alive: Tensor) -> dict[str, Tensor]:
    """How far each agent is from its group, `(A,)`, from the answers of all to the same observations.

    Rows count where `alive (P, A)`.
    """
    if isinstance(answer, Categorical | MultiCategorical):
        choices = [answer] if isinstance(answer, Categorical) else answer.choices
        apart = torch.stack([discrete_diversity(choice.log_probs.exp(), alive) for choice in choices]).mean(0)
    else:
        apart = continuous_diversity(actor.canonical(answer.mode()), alive)
    return {"stability/diversity": apart}


def rates(config: ActorCriticConfig, scale: float) -> tuple[float, float]:
    """Step sizes of actor and critic, `scale` times those of the beginning."""
    return scale * (config.actor_lr or config.lr), scale * (config.critic_lr or config.lr)


def layer_names(learners: Mapping[str, GroupLearner]) -> dict[str, dict[str, Layers]]:
    """What the layers of each group's actor and critic are called in their signals, `group -> network -> names`."""
    return {
        name: {part: {"layer": x.layer_names(part), "unit": x.unit_names(part)} for part in NETWORKS}
        for name, x in learners.items()
    }


def probe_passes(x: GroupLearner, rows: int) -> int:
    """Rows of all networks of a group that are asked, beside every iteration's, at the probe of a batch of so many.

    They are the critic's and the actor's activations, the actor's slope, and all agents at what each saw.
    """
    probe, agents = min(rows, PROBE), len(x.group.agents)
    return probe * (1 + (2 + BACKWARD) * agents + agents) + 2 * EIGEN


def probe_every(probe: int, update: float) -> int:
    """Every how many-th iteration networks may be asked about `probe` rows where an update's passes take `update`."""
    return max(1, math.ceil(probe / (PROBE_SHARE * update)))
