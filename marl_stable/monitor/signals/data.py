"""Tensors to numbers: what the environment hands to a group of agents.

Shapes: T steps, E copies, N rows, A agents, O observation features. Only what living agents saw and got counts; where
nobody lived a figure is NaN. Everything stays on the device.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from marl_stable import rows
from marl_stable.normalize import ObservationNorm

SAMPLE = 512  # rows of observations looked at, and of rewards for their medians; else all, since outliers are rare
MOST_COLUMNS = 2_048  # more numbers per signal than that are not recorded
TAIL = 1_000  # one reward in so many is beyond the 99.9th percentile


class Recent(NamedTuple):
    """What a group collected since the last update; raw values."""

    obs: Tensor  # (T, E, A, O)
    action: Tensor  # (T, E, A) or (T, E, A, D)
    reward: Tensor  # (T, E, A)
    terminated: Tensor  # (T, E, A) bool
    truncated: Tensor  # (T, E, A) bool
    ended: Tensor  # (T, E, A) bool: one of the two
    alive: Tensor  # (T, E, A) bool: the agent acted


class History:
    """What must be remembered from window to window: rewards' bounds, and how long agents of running episodes live."""

    PARTS = ("low", "high", "age")

    def __init__(self, copies: int, agents: int, device: torch.device) -> None:
        self.low = torch.full((agents,), torch.inf, device=device)  # (A,) smallest reward so far
        self.high = torch.full((agents,), -torch.inf, device=device)
        self.age = torch.zeros(copies, agents, dtype=torch.int64, device=device)  # (E, A) steps lived in this episode
        self.ends: dict[str, Tensor] = {}  # figures of the last window

    def take_in(self, recent: Recent) -> None:
        """Go on by a window."""
        reward = torch.where(recent.alive & recent.reward.isfinite(), recent.reward, torch.nan).flatten(0, 1)
        low, high = reward.nan_to_num(torch.inf).amin(0), reward.nan_to_num(-torch.inf).amax(0)
        self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        self.ends, self.age = ends(recent, self.age)

    def begin_anew(self, copies: Tensor) -> None:
        """New episodes begin in `copies (E,)` with the next window; those under way are lost."""
        self.age = self.age.masked_fill(copies.unsqueeze(1), 0)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything needed to go on exactly."""
        return {name: getattr(self, name).clone() for name in self.PARTS}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on where `state_dict` was taken."""
        for name in self.PARTS:
            setattr(self, name, state[name].to(getattr(self, name), copy=True))


def data_signals(recent: Recent, norm: ObservationNorm | None, history: History) -> dict[str, Tensor]:
    """All signals of this file; `norm` where observations are normalised, `history` with the window taken in."""
    found = observations(recent.obs.flatten(0, 1), recent.alive.flatten(0, 1), norm)
    found |= rewards(recent.reward.flatten(0, 1), recent.alive.flatten(0, 1)) | history.ends
    return found | {"stability/alive": recent.alive.float().mean((0, 1))}


# ---- observations


def observations(obs: Tensor, alive: Tensor, norm: ObservationNorm | None) -> dict[str, Tensor]:
    """Raw `obs (N, A, O)` of agents `alive (N, A)` by feature `(A, O)`, from some rows spread over them.

    Where there are more than 2,048 features of all agents, each feature's largest over agents `(O,)`; where there are
    more of one agent, only the peak and the share of clipped entries, `()` both. What is not finite is left out.
    """
    some = rows.spread(len(obs), SAMPLE, obs.device)
    obs, alive = obs.index_select(0, some), alive.index_select(0, some)
    seen = alive.unsqueeze(-1) & obs.isfinite()  # (N, A, O)
    known, weight = torch.where(seen, obs, 0.0), seen.to(obs.dtype)  # products are faster than masks
    count = weight.sum(0)
    mean = known.sum(0) / count
    found = {"obs_mean": mean, "obs_std": ((known - mean) * weight).square().sum(0).div(count).sqrt()}
    found["obs_peak"] = torch.where(count > 0, known.abs().amax(0), torch.nan)
    if norm is not None:
        found["obs_clipped"] = (_beyond(known, norm) * weight).sum(0) / count
    agents, features = mean.shape
    if features > MOST_COLUMNS:
        found = {name: _summed_up(name, value) for name, value in found.items() if name in ("obs_peak", "obs_clipped")}
    elif agents * features > MOST_COLUMNS:
        found = {name: _largest(value) for name, value in found.items()}
    empty = obs.abs().sum(-1) == 0
    found["obs_padded"] = rows.mean(empty, alive)
    return {f"stability/{name}": value for name, value in found.items()}


def _beyond(obs: Tensor, norm: ObservationNorm) -> Tensor:
    """`(N, A, O)` 1 where the normaliser clips; features that say which actions are legal pass it as they are."""
    measured = obs[..., : norm.features]
    clipped = (((measured - norm.offset) / norm.divisor).abs() > norm.clip).to(obs.dtype)
    return torch.nn.functional.pad(clipped, (0, obs.shape[-1] - norm.features))


def _summed_up(name: str, x: Tensor) -> Tensor:
    """`()` of all features `(A, O)`: the largest, or of shares the mean."""
    return _largest(x.reshape(-1, 1))[0] if name == "obs_peak" else x.nanmean()


def _largest(x: Tensor) -> Tensor:
    """`(O,)` the entry of the largest magnitude of `(A, O)`, with its sign, NaN left out where there are others."""
    size = x.abs().nan_to_num(-1.0, posinf=torch.inf)
    return x.gather(0, size.argmax(0, keepdim=True))[0]


# ---- rewards


def rewards(reward: Tensor, alive: Tensor) -> dict[str, Tensor]:
    """Of all finite rewards `(N, A)` of agents `alive (N, A)`, `(A,)` each; p999 and peak are of |r - median|.

    Medians are of rows spread over them.
    """
    reward, alive = reward.t().contiguous(), alive.t()  # (A, N): sums along the last axis are faster
    counts = alive & reward.isfinite()
    known, weight = torch.where(counts, reward, 0.0), counts.to(reward.dtype)
    count = weight.sum(-1)
    mean = known.sum(-1) / count
    std = ((known - mean.unsqueeze(-1)) * weight).square().sum(-1).div(count).sqrt()
    some = rows.spread(reward.shape[1], SAMPLE, reward.device)
    median, mad = _median_and_mad(reward.index_select(1, some), counts.index_select(1, some))
    tail, peak = _tail((known - median.unsqueeze(-1)).abs(), counts)
    found = {"mean": mean, "std": std, "median": median, "mad": mad, "p999": tail, "peak": peak}
    found["zero"] = ((known == 0) * weight).sum(-1) / count
    return {f"stability/reward_{name}": value for name, value in found.items()}


def _median_and_mad(x: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """`(A,)` the lower median of entries of `(A, N)` that count, and that of their distances from it."""
    x = torch.where(counts, x, torch.nan)
    median = x.nanmedian(-1).values
    return median, (x - median.unsqueeze(-1)).abs().nanmedian(-1).values


def _tail(size: Tensor, counts: Tensor) -> list[Tensor]:
    """`(A,)` the smallest entry of `size (A, N)` that at least 99.9% of those that count do not exceed; the largest."""
    largest = torch.where(counts, size, -1.0).topk(size.shape[1] // TAIL + 1, -1).values
    n = counts.sum(-1, keepdim=True)
    found = largest.gather(-1, torch.cat([n // TAIL, torch.zeros_like(n)], -1))
    return list(torch.where(n > 0, found, torch.nan).unbind(-1))


def by_turns(reward: Tensor, acted: Tensor) -> Tensor:
    """`(T, E, A)` rewards summed from each agent's turn to its next, where it `acted`, and 0 elsewhere.

    What comes before an agent's first turn belongs to none of these.
    """
    turn = acted.cumsum(0)  # (T, E, A) which of its turns a step belongs to
    sums = torch.zeros_like(torch.cat([reward[:1], reward])).scatter_add_(0, turn, reward)
    return sums.gather(0, turn).masked_fill(~acted, 0.0)


# ---- ends


def ends(recent: Recent, age: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """How episodes of agents end, `()` each; and `age (E, A)`, steps lived in its episode, after the window.

    An agent that is said to have ended again, without having lived since, ends once.
    """
    lived = age + recent.alive.cumsum(0)  # (T, E, A) since the running episodes of the first step began
    until = torch.where(recent.ended, lived, 0).cummax(0).values  # the same at the last end, this step's included
    before = torch.cat([torch.zeros_like(age).unsqueeze(0), until[:-1]])
    length = (lived - before).to(recent.reward.dtype)
    end = recent.ended & (length > 0)
    terminated = end & recent.terminated
    spread = rows.deviation(length.flatten(), terminated.flatten())
    figures = {"stability/ends_terminated": terminated.sum() / end.sum(), "stability/ends_length_std": spread}
    return figures, lived[-1] - until[-1]
