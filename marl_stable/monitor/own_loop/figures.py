"""From a window of anyone's loop to signals, in the words of the table.

Shapes: N rows, C calls, T steps, E copies, A agents, O features, D action dimensions, n actions. Results are `(A,)`, or
`(A, D)` and `(A, O)`; nothing here makes the host wait for the device.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from marl_stable import rows
from marl_stable.monitor.own_loop.window import Piece, Window
from marl_stable.monitor.signals import actions, data, values
from marl_stable.returns import finished

COMPARED = 512  # executed actions that are compared with one another


class Actions(NamedTuple):
    """What is known of a loop's actions: how many there are to choose from, or the bounds, `()` or `(D,)` each."""

    n: int | None
    low: Tensor | None
    high: Tensor | None

    def canonical(self, x: Tensor) -> Tensor:
        """`(N, A, D)` with bounds at -1 and 1."""
        assert self.low is not None
        assert self.high is not None
        low, high = self.low.to(x.device), self.high.to(x.device)
        return 2 * (x.float() - low) / (high - low) - 1


class Figures:
    """Turns windows into signals; remembers what must be known from one to the next."""

    def __init__(self, kind: Actions, gamma: float | None) -> None:
        self._kind, self._gamma = kind, gamma
        self._low: Tensor | None = None  # (A,) smallest reward so far
        self._high: Tensor | None = None
        self._age: Tensor | None = None  # (E, A) steps lived in the running episodes
        self._lived: Tensor | None = None  # the same, where ends are of one kind

    @torch.no_grad()
    def read(self, window: Window) -> dict[str, Tensor]:
        """All signals of the window."""
        window.close()
        found = self._rewards(window.rows.get("reward"))
        found |= _observations(window)
        found |= self._values(window) | _ratios(window)
        return found | self._ends(window.pieces) | self._lengths(window) | self._actions(window)

    def _rewards(self, given: list[Tensor] | None) -> dict[str, Tensor]:
        if not given:
            return {}
        reward = torch.cat(given)
        finite = reward.isfinite()
        low = torch.where(finite, reward, torch.inf).amin(0)
        high = torch.where(finite, reward, -torch.inf).amax(0)
        self._low = low if self._low is None else torch.minimum(self._low, low)
        self._high = high if self._high is None else torch.maximum(self._high, high)
        bad = {"stability/reward_non_finite": (~finite).float().mean(0)}
        return data.rewards(reward, torch.ones_like(finite)) | bad

    def _values(self, window: Window) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        given = window.rows.get("value")
        if given:
            value = torch.cat(given)
            alive = torch.ones_like(value, dtype=torch.bool)
            found["stability/value_mean"], found["stability/value_std"] = value.mean(0), rows.deviation(value, alive)
            if self._gamma is not None and self._low is not None and self._high is not None:
                found |= values.infeasible(value, alive, self._low, self._high, self._gamma)
        if self._gamma is None or not window.pieces:
            return found
        judged = [_judged(piece, self._gamma) for piece in window.pieces]
        seen = values.Judged._make(torch.cat(parts) for parts in zip(*judged, strict=True)).some()
        told = values.value_signals(seen)
        if all(piece.value is not None for piece in window.pieces):
            return found | told
        return found | {name: told[name] for name in ("stability/return_mean", "stability/return_std")}

    def _ends(self, pieces: list[Piece]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for piece in pieces:
            if not piece.told_apart:
                return {}
            if self._age is None or self._age.shape != piece.reward.shape[1:]:
                self._age = torch.zeros_like(piece.reward[0], dtype=torch.int64)
            there = torch.ones_like(piece.ended)
            truncated = piece.ended & ~piece.terminated
            recent = data.Recent(
                piece.reward, piece.reward, piece.reward, piece.terminated, truncated, piece.ended, there
            )
            found, self._age = data.ends(recent, self._age)
        return found

    def _lengths(self, window: Window) -> dict[str, Tensor]:
        """`charts/episode_length ()` of the episodes that ended, NaN where none did; unless the loop tells it."""
        if not window.pieces or "charts/episode_length" in window.numbers:
            return {}
        lengths = []
        for piece in window.pieces:
            ended = piece.ended
            if self._lived is None or self._lived.shape != ended.shape[1:]:
                self._lived = torch.zeros_like(ended[0], dtype=torch.int64)
            t = torch.arange(1, len(ended) + 1, device=ended.device)[:, None, None]
            last = torch.cat([-self._lived.unsqueeze(0), torch.where(ended, t, -self._lived)]).cummax(0).values
            lengths.append(torch.where(ended, t - last[:-1], torch.nan).flatten())
            self._lived = len(ended) - last[-1]
        return {"charts/episode_length": torch.cat(lengths).nanmean()}

    def _actions(self, window: Window) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        if done := window.rows.get("action"):
            found |= self._executed(torch.cat(done))
        if logits := window.rows.get("logits"):
            x = torch.cat(logits)[-data.SAMPLE :].float()
            probs = x.softmax(-1)
            response = actions.discrete_responsiveness(probs)
            found |= {"stability/responsiveness": response, "actions/responsiveness": response}
            found["stability/entropy"] = actions.discrete_entropy(probs)
            found["stability/logit_gap"] = actions.logit_gap(x)
            found["actions/saturation"] = actions.discrete_saturation(probs)
        if (greedy := window.rows.get("greedy_action")) and self._kind.low is not None:
            mode = self._kind.canonical(torch.cat(greedy)[-data.SAMPLE :])
            response = actions.deterministic_responsiveness(mode)
            found |= {"stability/responsiveness": response, "actions/responsiveness": response.amax(-1)}
            found["stability/saturation"] = actions.continuous_saturation(mode)
            found["actions/saturation"] = found["stability/saturation"].mean(-1)
        if u := window.rows.get("preactivation"):
            x = torch.cat(u)[-data.SAMPLE :].float()
            found |= {
                "stability/preactivation": actions.preactivation(x),
                "stability/attenuation": actions.attenuation(x),
            }
        return found

    def _executed(self, action: Tensor) -> dict[str, Tensor]:
        """Of executed actions `(N, A, K)`: how alike they are; and how far the policy can at most respond, since what
        it does for different observations cannot differ more than all that it did."""
        if self._kind.low is not None:
            x = self._kind.canonical(action)
            spread = rows.deviation(x, None)  # (A, D)
            found = {"sameness": actions.continuous_sameness(x.unsqueeze(0)), "actions/responsiveness": spread.amax(-1)}
            near = (x.abs() > actions.SATURATED).float().mean(0)
            return found | {"stability/saturation": near, "actions/saturation": near.mean(-1)}
        if action.is_floating_point() and self._kind.n is None:
            return {}
        some = action[:: -(-len(action) // COMPARED)]
        alike = (some.unsqueeze(0) == some.unsqueeze(1)).float().mean(1)  # (N, A, K) share of equals of each
        found = {"sameness": alike.amax(0).mean(-1)}
        if self._kind.n is not None and self._kind.n > 1:
            entropy = -alike.log().mean(0).mean(-1)
            found["actions/responsiveness"] = entropy / torch.log(torch.tensor(float(self._kind.n)))
        return found


def _observations(window: Window) -> dict[str, Tensor]:
    given = window.rows.get("observation")
    if not given or len({x.shape[1:] for x in given}) > 1:
        return {}
    obs = torch.cat([x.float() for x in given])
    found = data.observations(obs, torch.ones_like(obs[..., 0], dtype=torch.bool), None)
    if obs[0].numel() <= data.MOST_COLUMNS:
        bad = (~obs.isfinite()).float().mean(0)
        if window.missed:
            counted = sum(n for _, n in window.missed)
            bad = torch.maximum(bad, torch.stack([share for share, _ in window.missed]).sum(0) / counted)
        found["stability/obs_non_finite"] = bad
    return found


def _judged(piece: Piece, gamma: float) -> values.Judged:
    """Steps with what came of them. At a truncation the value of the last state stands for what would have followed."""
    reward = piece.reward.nan_to_num(0.0, 0.0, 0.0)
    value = torch.zeros_like(reward) if piece.value is None else piece.value
    follows = torch.cat([value[1:], value[-1:]])
    follows = torch.where(piece.ended, value, follows)
    truncated = piece.ended & ~piece.terminated
    outcome = _summed(reward + gamma * torch.where(truncated, value, 0.0), piece.ended, gamma)
    error = values.td_error(reward, value, follows, piece.terminated, gamma)
    known = finished(piece.ended)
    learned = torch.ones_like(known)
    learned[-1] = piece.ended[-1]
    parts = (value, reward, error, outcome, known, learned)
    return values.Judged._make(x.flatten(0, 1) for x in parts)


def _summed(reward: Tensor, ended: Tensor, gamma: float) -> Tensor:
    """Discounted sums to the end of the episode `(T, E, A)`, by doubling: log T operations instead of T."""
    total, factor, reach = reward, (~ended) * gamma, 1
    while reach < len(reward):
        ahead = torch.cat([total[reach:], torch.zeros_like(total[:reach])])
        total = total + factor * ahead
        factor = factor * torch.cat([factor[reach:], torch.zeros_like(factor[:reach])])
        reach *= 2
    return total


def _ratios(window: Window) -> dict[str, Tensor]:
    """Of log ratios, call by call: the largest, the mean effective sample size, and what first minibatches had."""
    given = window.rows.get("log_ratio")
    if not given:
        return {}
    usual = [x for x in given if x.shape == given[0].shape]  # a last minibatch may be smaller
    x = torch.stack(usual)  # (C, N, A)
    weight = (x - x.amax(1, keepdim=True)).exp()
    effective = weight.sum(1).square() / (weight.square().sum(1) * x.shape[1])
    found = {"stability/effective_samples": effective.mean(0)}
    found["stability/log_ratio_peak"] = torch.stack([part.abs().amax(0) for part in (x.flatten(0, 1), given[-1])]).amax(
        0
    )
    if window.first:
        first = torch.stack([given[i].expm1().abs().amax(0) for i in window.first])
        found["stability/first_ratio"] = first.amax(0)
    return found
