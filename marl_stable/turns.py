"""A replay of turn-based play: each transition goes from an agent's turn to its next.

All that lies between belongs to it.

Shapes: T slots, E copies, N agents of all groups, A agents of one group, O observation features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from marl_stable.buffers import Replay
from marl_stable.types import PerGroup, Step


class Turns:
    """Writes the steps of turn-based play into the replays of all groups.

    In each step one agent of each copy acts, so that each row belongs to one agent. It is `alive`, fit to learn from,
    once its agent moves again or ends: then the rewards since then are summed and `next_obs` is what all saw. A turn of
    which something is missing never is.
    """

    def __init__(self, replays: dict[str, Replay]) -> None:
        self.replays = replays
        first = next(iter(replays.values()))
        self.slots, copies, device = first.slots, first.reward.shape[1], first.reward.device
        sizes = [replay.reward.shape[2] for replay in replays.values()]
        self.opened = torch.full(
            (copies, sum(sizes)), -1, dtype=torch.int64, device=device
        )  # (E, N) step of open turns
        self._copies = torch.arange(copies, device=device)
        self._places = [(name, a) for name, size in zip(replays, sizes, strict=True) for a in range(size)]

    def write(self, t: int, obs: PerGroup, action: PerGroup, step: Step) -> None:
        """Keep step `t`: what all saw, what one did, and what followed."""
        acted = torch.cat([step.alive[name] for name in self.replays], dim=1)  # (E, N)
        terminated = torch.cat([step.terminated[name] for name in self.replays], dim=1)
        truncated = torch.cat([step.truncated[name] for name in self.replays], dim=1)
        self._close(t, acted, obs, torch.zeros_like(acted))
        nobody = {name: torch.zeros_like(alive) for name, alive in step.alive.items()}
        for name, replay in self.replays.items():
            replay.write(t, name, obs[name], action[name], step._replace(alive=nobody))
            replay.reward[t % self.slots] = 0.0
        self.opened = torch.where(acted, t, self.opened)
        for n, (name, a) in enumerate(self._places):
            row = (self._slot(n), self._copies, a)
            gained = step.reward[name][:, a].masked_fill(self.opened[:, n] < 0, 0.0)
            self.replays[name].reward[row] = self.replays[name].reward[row] + gained
        if step.missing:
            spoilt = torch.cat([step.missing[name] for name in self.replays], dim=1)  # (E, N)
            self.opened = self.opened.masked_fill(spoilt, -1)
        over = terminated | truncated
        self._close(t, over, step.next_obs, terminated)
        self.opened = self.opened.masked_fill(over, -1)

    def begin_anew(self, copies: Tensor) -> None:
        """The running episodes of `copies (E,)` are lost: nobody learns what would have followed their open turns."""
        self.opened = self.opened.masked_fill(copies.unsqueeze(1), -1)

    def settled(self, t: int) -> int:
        """The first step that may still change, at step `t`."""
        still = torch.where(self.opened < 0, t, self.opened)
        return int(still.min())

    def _close(self, t: int, ends: Tensor, next_obs: PerGroup, terminated: Tensor) -> None:
        """Complete the open turns where `ends (E, N)`; all else is written back as it was, without a wait."""
        ends = ends & (self.opened >= 0) & (t - self.opened < self.slots)  # an older row is somebody else's by now
        for n, (own, a) in enumerate(self._places):
            slot, now = self._slot(n), ends[:, n]
            for name, replay in self.replays.items():
                kept = replay.next_obs[slot, self._copies]  # (E, A, O)
                replay.next_obs[slot, self._copies] = torch.where(now[:, None, None], next_obs[name], kept)
            row, replay = (slot, self._copies, a), self.replays[own]
            replay.terminated[row] = torch.where(now, terminated[:, n], replay.terminated[row])
            replay.alive[row] = replay.alive[row] | now

    def _slot(self, n: int) -> Tensor:
        """`(E,)` where agent n's open turn lies; any slot where it has none."""
        return self.opened[:, n].clamp_min(0) % self.slots

    def state_dict(self) -> dict[str, Any]:
        """Which turns are open."""
        return {"opened": self.opened.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.opened = state["opened"].to(self.opened)
