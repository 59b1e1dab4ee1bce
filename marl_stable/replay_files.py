"""The replay beside the checkpoints: files of consecutive steps, each written once.

A replay of half a gigabyte would else be rewritten at every save. A save adds a file with the steps since the one
before (and, of turn-based play, with those that may have changed); a checkpoint names the steps it needs; a file goes
only when neither `last.pt` nor `previous.pt` needs it.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from marl_stable import checkpoint, distributed
from marl_stable.agents.base import Rings
from marl_stable.types import UsageError


class ReplayFiles:
    """The files of one run's replay in `folder`, made at the first step that is saved."""

    def __init__(self, folder: Path, rings: Rings) -> None:
        """`rings`: as the checkpoint has them; files of later steps, which no checkpoint knows, are dropped."""
        self.folder = folder
        self._last = rings.steps  # those of `last.pt`
        there = 0
        for _, last, path in self._files():
            if last > rings.steps:
                path.unlink()
            else:
                there = last
        self.written, self.settled = min(rings.steps, there), min(rings.settled, there)

    def save(self, rings: Rings) -> None:
        """Add what was written since the last save. Raises OSError or RuntimeError (a full disk)."""
        if not rings.groups or rings.steps == self.written:
            return
        slots = _slots(rings)
        first = max(self.settled, rings.steps - slots)
        at = torch.arange(first, rings.steps) % slots
        rows = {
            group: {name: ring[at.to(ring.device)] for name, ring in parts.items()}
            for group, parts in rings.groups.items()
        }
        checkpoint.save(self.folder / f"{first:012d}-{rings.steps:012d}.pt", {"rings": rows})
        self.written, self.settled = rings.steps, rings.settled

    def forget(self, rings: Rings) -> None:
        """Delete files that no checkpoint needs any more.

        To be called once `last.pt` is written: before that, or where it could not be, the two checkpoints on disk are
        older and need older steps.
        """
        if not rings.groups:
            return
        previous, self._last = self._last, rings.steps
        for _, last, path in self._files():
            if last <= previous - _slots(rings):
                path.unlink()

    def load(self, rings: Rings) -> None:
        """Fill `rings` with the last of their steps. UsageError where a file is missing or damaged."""
        if not rings.groups or not rings.steps:
            return
        slots = _slots(rings)
        known = wanted = max(0, rings.steps - slots)
        for first, last, path in self._files():
            if last <= wanted or first > known:
                continue
            try:
                saved = checkpoint.load(path, torch.device("cpu"))["rings"]
            except checkpoint.Damaged as error:
                raise UsageError(
                    f"the replay cannot be read: {error}. Begin anew with --init-from this run."
                ) from error
            keep = torch.arange(max(first, wanted), last)
            for group, parts in saved.items():
                for name, rows in parts.items():
                    ring = rings.groups[group][name]
                    ring[(keep % slots).to(ring.device)] = rows[keep - first].to(ring.device)
            known = last
        if known < rings.steps:
            raise UsageError(
                f"the replay in {self.folder} lacks steps {known} to {rings.steps}. "
                "Begin anew with --init-from this run."
            )

    def _files(self) -> list[tuple[int, int, Path]]:
        """(first step, the one after the last, path) in the order of saving."""
        found = ((re.fullmatch(r"(\d+)-(\d+)", path.stem), path) for path in self.folder.glob("*.pt"))
        return sorted(((int(m[1]), int(m[2]), path) for m, path in found if m), key=lambda file: file[1])


def own_folder(folder: Path, rank: int, processes: int) -> Path:
    """Where one of several processes keeps its replay; `folder` itself where there is one only."""
    return folder / f"{rank}of{processes}" if processes > 1 else folder


def load_divided(folder: Path, rings: Rings, before: int) -> None:
    """Fill `rings` with this process's part of what `before` processes had kept in `folder`."""
    if not rings.groups:
        return
    now, parts = distributed.world_size(), []
    for rank in range(before):
        groups = {
            group: {name: _with_copies(ring, ring.shape[1] * now // before) for name, ring in parts.items()}
            for group, parts in rings.groups.items()
        }
        theirs = rings._replace(groups=groups)
        ReplayFiles(own_folder(folder, rank, before), theirs).load(theirs)
        parts.append(groups)
    for group, mine in rings.groups.items():
        for name, ring in mine.items():
            ring.copy_(torch.cat([part[group][name] for part in parts], dim=1).chunk(now, dim=1)[distributed.rank()])


def _with_copies(ring: Tensor, copies: int) -> Tensor:
    """Zeros for as many steps of so many copies, `(slots, copies, ...)`."""
    return ring.new_zeros(len(ring), copies, *ring.shape[2:])


def _slots(rings: Rings) -> int:
    return len(next(iter(next(iter(rings.groups.values())).values())))
