"""The losses of DDPG (Lillicrap et al. 2016) for a group of agents, as pure functions of tensors and numbers.

Shapes: B rows of a batch, A agents of one group, K critics (two for twins).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from marl_stable.agents.ppo import masked_mean


def td_target(reward: Tensor, next_q: Tensor, terminated: Tensor, gamma: float, terminal: Tensor) -> Tensor:
    """`(B, A)` y = r + gamma min_k Q'_k(s', a'), with the value of an end in place of Q' where the agent terminated.

    Lillicrap et al. 2016, eq. 5; the minimum over twins is Fujimoto et al. 2018, eq. 10. `terminal (A,)` is 0 for raw
    rewards; where rewards are centred it is what lies beyond an end in those units, reward 0 for ever.
    """
    return reward + gamma * torch.where(terminated, terminal, next_q.amin(0))


def critic_loss(q: Tensor, target: Tensor, alive: Tensor, huber: float | None, share: bool) -> Tensor:
    """Half the squared error of every critic `q (K, B, A)`, linear beyond `huber` (Huber 1964)."""
    target = target.expand_as(q)
    error = 0.5 * (q - target).square() if huber is None else huber_loss(q, target, reduction="none", delta=huber)
    return masked_mean(error.sum(0), alive, share)


def actor_loss(q: Tensor, penalty: Tensor, alive: Tensor, action_penalty: float, share: bool) -> Tensor:
    """-E[Q_i(x, a_1, ..., a_N)] with a_i = mu_i(o_i), all others from the replay (Lowe et al. 2017, eq. 5).

    `q (B, A)` holds each agent's own value of its own current action; `penalty (B, A)` is the mean square before the
    tanh, which keeps actions off their bounds.
    """
    return -masked_mean(q - action_penalty * penalty, alive, share)
