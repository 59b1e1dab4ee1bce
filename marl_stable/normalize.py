"""Running statistics that one outlier cannot silence and that follow a true change.

Shapes: N rows, `...` the shape of the statistics, for instance (O,) or (A, O).

A plain running mean and deviation lets a single value of 1e6 push everything else to zero for the rest of the run,
while every usual plot looks calm. Here values enter winsorised at ten deviations; where more than a fifth of a
feature's values are beyond that for three updates in a row, it has truly changed and its statistics begin anew.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from marl_stable import distributed
from marl_stable.rows import spread

WINSOR = 10.0  # deviations
SHIFTED_SHARE, SHIFTED_UPDATES = 0.2, 3
MEMORY = 1_000_000.0  # rows; bounded, so that late drift still moves the statistics
SAMPLE = 2_048  # rows from which medians are taken; sorting a whole batch would cost much of an update
RELATIVE_FLOOR = 1e-2  # of the median deviation: below it a feature is noise on a constant
ABSOLUTE_FLOOR = 1e-8


class RunningNorm(nn.Module):
    """Running mean and deviation of `shape`, robust to outliers, part of the checkpoint like any buffer."""

    mean: Tensor
    var: Tensor
    count: Tensor
    shifted_for: Tensor
    offset: Tensor  # the mean and the floored deviation in float32, as they are used; they change in place
    divisor: Tensor
    winsor: float | Tensor = WINSOR  # deviations from the middle at which values enter at most

    def __init__(self, shape: tuple[int, ...], clip: float) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("var", torch.ones(shape, dtype=torch.float64))
        self.register_buffer("count", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("shifted_for", torch.zeros(shape, dtype=torch.int64))
        self.register_buffer("offset", torch.zeros(shape), persistent=False)
        self.register_buffer("divisor", torch.ones(shape), persistent=False)
        self.register_load_state_dict_post_hook(lambda *_: self._refresh())  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        """`(N, ...)` in deviations from the mean, at most `clip` of them."""
        return torch.clamp((x - self.offset) / self.divisor, -self.clip, self.clip)

    def inverse(self, x: Tensor) -> Tensor:
        """Back from deviations to units."""
        return torch.addcmul(self.offset, x, self.divisor)

    def scaled(self, x: Tensor) -> Tensor:
        """`(N, ...)` divided by the deviation and not centred, winsorised as in `forward`."""
        return torch.add(self(x), self.offset / self.divisor)

    @torch.no_grad()
    def expect(self, mean: Tensor, std: Tensor) -> None:
        """Begin with what is expected, `mean` and `std` of the statistics' shape, where no row was taken in so far.

        The first rows replace it.
        """
        fresh = self.count == 0
        self.mean = torch.where(fresh, mean.to(self.mean), self.mean)
        self.var = torch.where(fresh, std.to(self.var).square(), self.var)
        self._refresh()

    @torch.no_grad()
    def update(self, x: Tensor, weight: Tensor | None = None, settled: bool = False) -> None:
        """Take in rows `(N, ...)`; `weight`, broadcastable to them, is 0 for entries to leave out. Non-finite ones are.

        `settled`: statistics stay as they are, unless all was constant so far or they begin anew. Mean and variance
        combine as in Chan et al. 1979.
        """
        finite = x.abs() < torch.inf  # false for NaN; cheaper than `isfinite`
        w = finite if weight is None else finite & (weight > 0)
        x = x.to(torch.float64)
        centre, scale = robust(sampled(x, w))
        self._forget_where_shifted(x, w)
        fresh = (self.count == 0) | (self.var.sqrt() <= ABSOLUTE_FLOOR)  # constant so far: nothing to judge by
        w = w & fresh if settled else w
        middle = torch.where(fresh, centre, self.mean)
        reach = self.winsor * torch.where(fresh, scale, self.var.sqrt())
        x = torch.where(w, torch.clamp(x, middle - reach, middle + reach), 0.0)
        n, summed = distributed.total(torch.stack([w.sum(0).to(torch.float64), x.sum(0)]))
        mean = summed / n.clamp_min(1)
        var = distributed.total(torch.where(w, (x - mean).square(), 0.0).sum(0)) / n.clamp_min(1)
        self._combine(mean, var, n)
        self._refresh()

    def _forget_where_shifted(self, x: Tensor, w: Tensor) -> None:
        beyond = ((x - self.mean).abs() > WINSOR * self.divisor) & w
        far, known = distributed.total(torch.stack([beyond.sum(0), w.sum(0)]))
        share = far / known.clamp_min(1)
        self.shifted_for = torch.where((share > SHIFTED_SHARE) & (self.count > 0), self.shifted_for + 1, 0)
        self.count = torch.where(self.shifted_for >= SHIFTED_UPDATES, 0.0, self.count)

    def _combine(self, mean: Tensor, var: Tensor, n: Tensor) -> None:
        total = (self.count + n).clamp_min(1)
        delta = mean - self.mean
        both = (self.var * self.count + var * n + delta.square() * self.count * n / total) / total
        seen = n > 0
        self.var = torch.where(seen, both, self.var)
        self.mean = torch.where(seen, self.mean + delta * n / total, self.mean)
        self.count = torch.where(seen, total.clamp_max(MEMORY), self.count)

    def _refresh(self) -> None:
        """Floor the deviation: 1 until the first update and for constants, which would else amplify rounding."""
        std = self.var.sqrt()
        floor = (RELATIVE_FLOOR * std.median()).clamp_min(ABSOLUTE_FLOOR)
        self.divisor.copy_(torch.where(std > ABSOLUTE_FLOOR, torch.maximum(std, floor), 1.0))
        self.offset.copy_(self.mean)


class ObservationNorm(RunningNorm):
    """:class:`RunningNorm` of a group's observations: one for all agents where they share, else one each.

    Features that say which actions are legal are no measurements: they pass as they are.
    """

    def __init__(self, agents: int, features: int, mask: int, share: bool, clip: float) -> None:
        """`mask`: how many of the `features`, the last ones, are legal actions."""
        self.features, self.mask, self.share = features - mask, mask, share
        super().__init__((self.features,) if share else (agents, self.features), clip)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., A, O)` in deviations from the mean, legal actions untouched."""
        if x.shape[-1] == self.features:
            return super().forward(x)
        return torch.cat([super().forward(x[..., : self.features]), x[..., self.features :]], dim=-1)

    def alone(self, agent: int) -> ObservationNorm:
        """What it is for that agent alone, as it stands."""
        mask, features = self.mask, self.features
        own = ObservationNorm(1, features + mask, mask, True, self.clip)
        for name in ("offset", "divisor"):  # floored by all agents' statistics
            value = getattr(self, name)
            getattr(own, name).copy_(value if self.share else value[agent])
        return own

    def move(self, shift: Tensor) -> None:
        """All measurements have moved by `shift`, of the statistics' shape."""
        self.mean = self.mean + shift
        self._refresh()

    def take_in(self, obs: Tensor, alive: Tensor | None) -> None:
        """Let raw observations `(N, A, O)` of living agents `(N, A)` into the statistics."""
        obs = obs[..., : self.features]
        weight = None if alive is None else alive.unsqueeze(-1)
        if self.share:  # one statistic for all: their rows are rows alike
            obs = obs.flatten(0, 1)
            weight = None if weight is None else weight.flatten(0, 1)
        self.update(obs, weight)


def sampled(x: Tensor, w: Tensor) -> Tensor:
    """Rows of `(N, ...)` that stand for all, those of all processes; NaN in entries where not `w`."""
    some = spread(len(x), max(1, SAMPLE // distributed.world_size()), x.device)
    return distributed.gathered(torch.where(w.index_select(0, some), x.index_select(0, some), torch.nan))


def robust(x: Tensor) -> tuple[Tensor, Tensor]:
    """Median and a robust deviation of each column of `(N, ...)` over entries that are not NaN; 0 where there are none.

    The deviation is 1.4826 MAD; where more than half of the entries are equal (sparse rewards) that is 0, and the same
    of the other entries, times the root of their share, takes its place.
    """
    w = ~x.isnan()
    centre = x.nanmedian(0).values
    off = (x - centre).abs()
    others = off > 0
    mad = off.nanmedian(0).values
    rare = torch.where(others, off, torch.nan).nanmedian(0).values * (others.sum(0) / w.sum(0).clamp_min(1)).sqrt()
    scale = 1.4826 * torch.where(mad > 0, mad, rare)
    return torch.nan_to_num(centre), torch.nan_to_num(scale)
