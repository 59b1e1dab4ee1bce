"""The replay beside the checkpoints: files of consecutive steps, each written once.

A replay of half a gigabyte would else be rewritten at every save. A save adds a file with the steps since the one
before; a checkpoint names the steps it needs; a file goes only when neither `last.pt` nor `previous.pt` needs it.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from marl_stable import checkpoint
from marl_stable.types import UsageError

Rings = dict[str, dict[str, Tensor]]
"""group -> name -> `(slots, E, ...)`: step t lies in slot t modulo slots."""


class ReplayFiles:
    """The files of one run's replay in `folder`, made at the first step that is saved."""

    def __init__(self, folder: Path, written: int = 0) -> None:
        """`written`: steps that are saved already; files of later ones, which no checkpoint knows, are dropped."""
        self.folder, self.written = folder, written
        for first, _, path in self._files():
            if first >= written:
                path.unlink()

    def save(self, rings: Rings, steps: int) -> None:
        """Add what was written since the last save; `steps` in all. Raises OSError or RuntimeError (a full disk)."""
        if not rings or steps == self.written:
            return
        slots = _slots(rings)
        first = max(self.written, steps - slots)
        at = torch.arange(first, steps) % slots
        rows = {group: {name: ring[at.to(ring.device)] for name, ring in ring.items()} for group, ring in rings.items()}
        checkpoint.save(self.folder / f"{first:012d}-{steps:012d}.pt", {"rings": rows})
        self._forget(self.written - slots)
        self.written = steps

    def load(self, rings: Rings) -> None:
        """Fill `rings` with the last steps before `written`. UsageError where a file is missing or damaged."""
        if not rings or not self.written:
            return
        slots = _slots(rings)
        known = wanted = max(0, self.written - slots)
        for first, last, path in self._files():
            if last <= wanted:
                continue
            if first > known:
                break
            try:
                saved = checkpoint.load(path, torch.device("cpu"))["rings"]
            except checkpoint.Damaged as error:
                raise UsageError(
                    f"the replay cannot be read: {error}. Begin anew with --init-from this run."
                ) from error
            keep = torch.arange(max(first, wanted), last)
            for group, parts in saved.items():
                for name, rows in parts.items():
                    ring = rings[group][name]
                    ring[(keep % slots).to(ring.device)] = rows[keep - first].to(ring.device)
            known = last
        if known < self.written:
            raise UsageError(
                f"the replay in {self.folder} lacks steps {known} to {self.written}. Begin anew with --init-from this run."
            )

    def _files(self) -> list[tuple[int, int, Path]]:
        """(first step, the one after the last, path) in order."""
        found = ((re.fullmatch(r"(\d+)-(\d+)", path.stem), path) for path in self.folder.glob("*.pt"))
        return sorted((int(match[1]), int(match[2]), path) for match, path in found if match)

    def _forget(self, before: int) -> None:
        """Delete files whose every step comes before the first that `previous.pt` needs."""
        for _, last, path in self._files():
            if last <= before:
                path.unlink()


def _slots(rings: Rings) -> int:
    return len(next(iter(next(iter(rings.values())).values())))
