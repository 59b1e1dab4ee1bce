"""How networks fare: units, weights and steps of an optimiser, by layer.

Shapes: N rows, A agents, H units of a layer, R networks (1 where agents share, else A) and rows of their optimiser,
M rows of one network, P parameters of one. `h (N, A, H)` are a layer's activations, of one network for all agents, or
of one each where `apart`; `alive (N, A)` is true where a row counts, None where all do.
"""

from __future__ import annotations

import torch
from torch import Tensor

from marl_stable import rows

DORMANT = 0.025  # of the mean activation of the layer (Sokar et al. 2023, section 3, which takes 0 to 0.1)

TINY = 1e-30


def dormant(h: Tensor, apart: bool, alive: Tensor | None = None) -> Tensor:
    """`()` share of units whose mean |h| is at most 2.5% of their layer's (Sokar et al. 2023, eq. 1).

    Networks with no row that counts, or with one that is not finite, are left out; NaN where that is all of them.
    """
    h, share = _by_network(h, apart, alive)
    activity = (share.unsqueeze(1) @ h.abs()).squeeze(1)  # (R, H)
    asleep = (activity <= DORMANT * activity.mean(-1, keepdim=True)).float().mean(-1)
    return torch.where(activity.isfinite().all(-1), asleep, torch.nan).nanmean()


def effective_rank(h: Tensor, apart: bool, alive: Tensor | None = None) -> Tensor:
    """`()` exp of the entropy of the normalised singular values (Roy and Vetterli 2007), as a share of the width.

    From the eigenvalues of the H x H products, in a third of the time. Those that are rounding count as 0. Finding
    eigenvalues is the one thing here for which torch makes the host wait where the device is a GPU: once a network and
    reading, which a transfer follows anyway. Networks are left out as in :func:`dormant`.
    """
    h, share = _by_network(h, apart, alive)
    h = h * share.sqrt().unsqueeze(-1)
    product = h.mT @ h
    finite = product.isfinite().flatten(1).all(-1)
    product = product / product.diagonal(dim1=-2, dim2=-1).sum(-1).clamp_min(TINY)[:, None, None]  # huge ones fail
    try:  # in float32 it fails on an ordinary layer half of whose units are dead
        square: Tensor = torch.linalg.eigvalsh(product.nan_to_num(0.0, 0.0, 0.0).double()).to(h.dtype)
    except RuntimeError:  # no convergence: a figure is not worth a training
        return torch.full_like(product.sum(), torch.nan)
    rounding = square.amax(-1, keepdim=True) * square.shape[-1] * torch.finfo(square.dtype).eps
    singular = torch.where(square > rounding, square, 0.0).sqrt()
    part = singular / singular.sum(-1, keepdim=True)
    rank: Tensor = torch.exp(-torch.special.xlogy(part, part).sum(-1)) / h.shape[-1]
    return torch.where(finite, rank, torch.nan).nanmean()


def step_budget(h: Tensor, rate: Tensor, alive: Tensor | None = None) -> Tensor:
    """`(A,)` rate mean ||h||_1: how far a step of Adam of size `rate (R,)` can move an output that is linear in `h`."""
    return rate * rows.mean(h.abs().sum(-1), alive)


def _by_network(h: Tensor, apart: bool, alive: Tensor | None) -> tuple[Tensor, Tensor]:
    """All rows of one network together, `(R, M, H)`, and each row's share in their mean, `(R, M)`."""
    h = h.transpose(0, 1) if apart else h.flatten(0, 1).unsqueeze(0)
    if alive is None:
        return h, torch.full_like(h[..., 0], 1 / h.shape[1])
    counts = (alive.T if apart else alive.reshape(1, -1)).to(h.dtype)
    return h, counts / counts.sum(1, keepdim=True)


def rms(x: Tensor) -> Tensor:
    """`(R,)` root mean square of each row of `x (R, P)`."""
    return x.square().mean(1).sqrt()


def ratio(part: Tensor, whole: Tensor) -> Tensor:
    """`part / whole`, and 0 where both are: weights that are zero and stay so have not moved."""
    return torch.where((part == 0) & (whole == 0), 0.0, part / whole)
