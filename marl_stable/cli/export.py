"""`marl-stable export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from marl_stable.cli.words import Usage, say
from marl_stable.types import UsageError

USAGE = Usage("export", "RUN -o DIR [--format pt2|onnx]")


@dataclass(frozen=True)
class Export:
    """Write each agent's greedy policy into a file of its own, with its normaliser and its action scaling inside.
    PyTorch alone can act with it, or an ONNX runtime."""

    output: str | None = None
    """Folder to write to, `-o` for short."""
    format: Literal["pt2", "onnx"] = "pt2"
    """Programs of torch.export, or ONNX (needs the extra of that name)."""
    checkpoint: Literal["best", "last"] | None = None
    """Which checkpoint; unset: the best, else the last."""


def export(words: list[str]) -> int:
    """Write each agent's policy as a program of its own"""
    others, asked = USAGE.read(words, Export())
    run = USAGE.run_folder(others)
    if asked.output is None:
        raise UsageError("-o has no value; export needs a folder to write to, such as -o policies.")
    from marl_stable import exporting
    from marl_stable.report.aside import prints_aside

    with prints_aside():
        found = exporting.export(run, Path(asked.output), asked.format, asked.checkpoint)
    say("\n".join(map(str, found.files)))
    say(f"policies of the {found.checkpoint} checkpoint, after {found.steps:,} steps")
    return 0
