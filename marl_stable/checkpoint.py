"""Checkpoints: written whole or not at all, refused at save where they could not be loaded, checked before they are.

`torch.load(weights_only=True)` reads them, so that no code in a stranger's file can run. It refuses NumPy numbers,
named tuples, enums and paths, but only at load, when it is too late: :func:`save` refuses them first.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from marl_stable.agents.config import MADDPGConfig, MAPPOConfig, default_config
from marl_stable.conversion import override
from marl_stable.types import EnvSpec, UsageError, spec_from_dict

FORMAT = 1


class Damaged(Exception):
    """A checkpoint that cannot be read; the message says why."""


class Kept(NamedTuple):
    """A run's checkpoint, and what it says of itself."""

    state: dict[str, Any]
    steps: int
    spec: EnvSpec
    algo: MAPPOConfig | MADDPGConfig


def save(path: Path, state: dict[str, Any], keep_as: Path | None = None) -> None:
    """Write `state` to `path` atomically; what was there moves to `keep_as`.

    Raises TypeError, naming the place, for a value that could not be loaded again.
    """
    _require_plain(state, "state")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(state | {"format": FORMAT}, file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if keep_as is not None and path.exists():
        path.replace(keep_as)
    temporary.replace(path)
    _sync_folder(path.parent)


def load(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a checkpoint; raises Damaged where it is missing, broken, foreign or of a later format."""
    if not path.exists():
        raise Damaged(f"{path} does not exist")
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()  # torch reads flipped bits without a word; the archive's checksums do not
        if broken is not None:
            raise Damaged(f"{path} is damaged (in {broken})")
        state = torch.load(path, map_location=device, weights_only=True)
    except Damaged:
        raise
    except Exception as error:  # whatever the bytes make the readers raise, it is one thing to the user
        reason = str(error).strip().splitlines()
        raise Damaged(f"{path} cannot be read ({reason[0] if reason else type(error).__name__})") from error
    if not isinstance(state, dict) or type(state.get("format")) is not int:
        raise Damaged(f"{path} is not a checkpoint of marl_stable")
    if state["format"] > FORMAT:
        raise Damaged(f"{path} was written by a later release (format {state['format']}, this one reads {FORMAT})")
    return state


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """While what was loaded from `path` is taken apart: Damaged where a part is missing or something else."""
    try:
        yield
    except (AttributeError, KeyError, TypeError) as error:
        raise Damaged(f"{path} is damaged ({type(error).__name__}: {error})") from error


def load_run(path: Path, device: torch.device) -> Kept:
    """Read a run's checkpoint; raises Damaged, as `load` does, also where it does not say whose it is."""
    state = load(path, device)
    with reading(path):
        algo = override(default_config(state["algo"]["name"]), state["algo"])
        kept = Kept(state, state["steps"], spec_from_dict(state["spec"]), algo)
    if type(kept.steps) is not int:
        raise Damaged(f"{path} is damaged (steps: {kept.steps!r})")
    return kept


def load_training(path: Path, device: torch.device, parts: Iterable[str] = ()) -> Kept:
    """Read a checkpoint that a run can go on from; raises Damaged as `load_run` does, and where it holds a policy alone
    or the training in it lacks one of `parts`.
    """
    kept = load_run(path, device)
    if "training" not in kept.state:
        raise Damaged(f"{path} holds a policy only")
    training = kept.state["training"]
    if not isinstance(training, dict):
        raise Damaged(f"{path} is damaged (training: {type(training).__name__})")
    if missing := [part for part in parts if part not in training]:
        raise Damaged(f"{path} is damaged (its training lacks {', '.join(missing)})")
    return kept


def load_newest(folder: Path, device: torch.device, parts: Iterable[str] = ()) -> tuple[Kept, str | None]:
    """`last.pt`, or with a warning `previous.pt`; UsageError where one cannot go on from either.

    `parts`: what the training in it must have.
    Nothing is deleted: a `last.pt` that cannot be read is set aside, so that the next save does not move it over the
    good `previous.pt`.
    """
    last = folder / "last.pt"
    try:
        return load_training(last, device, parts), None
    except Damaged as error:
        try:
            kept = load_training(folder / "previous.pt", device, parts)
        except Damaged as older:
            raise UsageError(
                f"no checkpoint to go on from: {error}; {older}. Train anew, or copy an undamaged last.pt there."
            ) from older
        if last.exists():
            last.replace(folder / "damaged.pt")
        return kept, f"{error}; going on from previous.pt at {kept.steps:,} steps."


def _require_plain(value: Any, place: str) -> None:
    if type(value) is dict:
        for key, item in value.items():
            if type(key) not in (str, int):
                raise TypeError(f"{place} has the key {key!r} of type {type(key).__name__}; keys are str or int")
            _require_plain(item, f"{place}[{key!r}]")
    elif type(value) in (list, tuple):
        for i, item in enumerate(value):
            _require_plain(item, f"{place}[{i}]")
    elif not (value is None or isinstance(value, Tensor) or type(value) in (bool, int, float, str)):
        raise TypeError(f"{place} is a {type(value).__module__}.{type(value).__name__}; store a plain type or a tensor")


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
