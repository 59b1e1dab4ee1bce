"""Several processes that train as one: what each must know of the others.

Shapes: N rows of data in each process.

`torchrun` starts the processes and tells each its place in environment variables; torch's distributed engine carries
the messages. Each steps copies of its own and learns from their data; whatever decides (gradients, statistics, figures)
is made of all data, by the same operations on the same numbers, so that all processes hold equal parameters bit for
bit. In a single process every function here returns its input at once. In several, all must call the same functions in
the same order: what one process does alone is done within `alone`, and what can fail in one within `together`.
"""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as engine
from torch import Tensor

from marl_stable.types import UsageError

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
PATIENCE = timedelta(hours=2)  # for the first process, which evaluates while the others wait; a dead one shows at once
APART, SEEDS = 10_000_019, 2**31  # between the seeds of two processes, and how many seeds there are

T = TypeVar("T")

_size, _rank = 1, 0


def world_size() -> int:
    """How many processes train together."""
    return _size


def rank() -> int:
    """Which of them this is."""
    return _rank


def leads() -> bool:
    """Whether this is the first process, which alone writes files, evaluates and speaks."""
    return _rank == 0


def own_seed(seed: int) -> int:
    """The seed of what must differ between processes, from the run's."""
    return seed if _rank == 0 else (seed + APART * _rank) % SEEDS


def divided(count: int, name: str) -> int:
    """Each process's part of what `name` says of the whole run; UsageError where it has no equal parts."""
    if count % _size:
        more = -(-count // _size) * _size
        raise UsageError(f"{name} is {count}, which {_size} processes cannot share alike; set it to {more}.")
    return count // _size


def part(rows: Tensor) -> Tensor:
    """This process's part of rows `(N, ...)` that all have; parts are equally many."""
    return rows[: len(rows) // _size * _size][_rank::_size] if _size > 1 else rows


# ---- numbers of all


def total(x: Tensor) -> Tensor:
    """The sum of all processes' `x`, the same bits in each."""
    if _size == 1:
        return x
    x = x.clone(memory_format=torch.contiguous_format)
    engine.all_reduce(x)
    return x


def mean(x: Tensor) -> Tensor:
    """The mean of all processes' `x`, the same bits in each."""
    return x if _size == 1 else total(x) / _size


def gathered(x: Tensor) -> Tensor:
    """The rows `(N, ...)` of all processes, one process after the other."""
    if _size == 1:
        return x
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(_size)]
    engine.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def anyone(here: bool) -> bool:
    """Whether it is so in any process."""
    return here if _size == 1 else bool(total(torch.tensor(float(here))) > 0)


# ---- other things of all


def told(value: T) -> T:
    """What the first process has; plain values and tensors of the CPU."""
    if _size == 1:
        return value
    found: list[Any] = [value]
    engine.broadcast_object_list(found)
    return found[0]  # type: ignore[no-any-return]


def collected(value: T) -> list[T]:
    """What all processes have, in their order, for the first one; the others get nothing."""
    if _size == 1:
        return [value]
    found: list[Any] = [None] * _size
    engine.gather_object(value, found if leads() else None)
    return found if leads() else []


@contextlib.contextmanager
def together(*kinds: type[Exception]) -> Iterator[None]:
    """Where what is within raises one of `kinds` in some process, it raises in all, with the words of the first.

    Within, processes must not wait for each other.
    """
    if _size == 1:
        yield
        return
    failed: Exception | None = None
    try:
        yield
    except kinds as error:
        failed = error
    if not anyone(failed is not None):
        return
    mine = None if failed is None else (kinds.index(next(k for k in kinds if isinstance(failed, k))), str(failed))
    found: list[Any] = [None] * _size
    engine.all_gather_object(found, mine)
    kind, words = next(entry for entry in found if entry is not None)
    raise kinds[kind](words) from failed


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Within, this process is the only one: it waits for none."""
    global _size
    before, _size = _size, 1
    try:
        yield
    finally:
        _size = before


# ---- beginning and end


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[torch.device]:
    """Within, be one of the processes that `torchrun` started, on a device of its own; without `torchrun`, alone.

    The processes leave together, unless one fails.
    """
    global _size, _rank
    size = int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in VARIABLES) else 1
    if size == 1:
        yield device
        return
    device, backend = _place(device)
    if _size > 1:
        yield device
        return
    if not engine.is_initialized():
        store, here, _ = next(engine.rendezvous("env://", timeout=PATIENCE))  # type: ignore[attr-defined]
        # The store outlives a restart, with the addresses of processes that are dead.
        store = engine.PrefixStore(f"start {_starts()}", store)  # type: ignore[attr-defined]
        engine.init_process_group(backend, store=store, rank=here, world_size=size, timeout=PATIENCE)
        atexit.register(engine.destroy_process_group)
    _size, _rank = size, engine.get_rank()
    try:
        yield device
        anyone(False)  # torchrun ends the others once one has ended with another code than 0
    finally:
        _size, _rank = 1, 0


def _place(device: torch.device) -> tuple[torch.device, str]:
    """A device for this process, and how messages go: NCCL serves one process on each GPU, and no more."""
    if device.type != "cuda":
        return device, "gloo"
    here, devices = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    device = torch.device("cuda", here % devices)
    torch.cuda.set_device(device)
    enough = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) <= devices
    return device, "cpu:gloo,cuda:nccl" if enough else "cpu:gloo,cuda:gloo"


def launch() -> str | None:
    """What this start by `torchrun` and its restarts have in common; None without `torchrun`."""
    run = os.environ.get("TORCHELASTIC_RUN_ID")
    return None if run is None else f"{run}/{os.getppid()}"


def restarted() -> bool:
    """Whether `torchrun` has started all processes again, after one of them had failed."""
    return _starts() > 0


def _starts() -> int:
    """How often before."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
