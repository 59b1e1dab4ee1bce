"""When work is recorded, and what a recording keeps; what it does on a GPU is asked in `test_cuda.py`."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from marl_stable import graphs
from marl_stable.graphs import MOST, ORDINARY, Replayed


class Batch(NamedTuple):
    x: Tensor
    past: Tensor | None = None


class Recording:
    """In place of a CUDA graph: tells that it was replayed."""

    made = 0

    def __init__(self, work: Any, leaves: list[Any], form: Any, generator: torch.Generator) -> None:
        Recording.made += 1

    def __call__(self, leaves: list[Any]) -> str:
        return "replayed"


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> Replayed:
    """Work on a device that can record."""
    monkeypatch.setattr(graphs, "_Graph", Recording)
    Recording.made = 0
    replayed = Replayed(lambda batch, lr: "worked")
    replayed.record(torch.Generator())
    assert not replayed.recording  # a CPU's generator: nothing to gain
    replayed.recording, replayed._generator = True, torch.Generator()
    return replayed


def test_without_a_gpu_the_work_is_called_as_it_is():
    given = []
    replayed = Replayed(lambda *inputs: given.append(inputs))
    replayed.record(torch.Generator())
    batch = Batch(torch.ones(2))
    for _ in range(2 * ORDINARY):
        replayed(batch, 0.5)
    assert all(inputs[0] is batch and inputs[1] == 0.5 for inputs in given)


def test_it_is_recorded_after_some_ordinary_calls_whatever_the_numbers_are(recording: Replayed):
    told = [recording(Batch(torch.ones(2)), 0.1 * i) for i in range(ORDINARY + 2)]
    assert told == ["worked"] * ORDINARY + ["replayed"] * 2
    assert Recording.made == 1


def test_each_combination_of_shapes_types_and_absences_has_a_recording(recording: Replayed):
    kinds = [
        Batch(torch.ones(2)),
        Batch(torch.ones(3)),
        Batch(torch.ones(2, dtype=torch.int64)),
        Batch(torch.ones(2), torch.ones(1)),
    ]
    for _ in range(ORDINARY + 1):
        told = [recording(kind, lr) for kind in kinds for lr in (0.1, 3)]  # what is no float is part of what is done
    assert told == ["replayed"] * 8
    assert Recording.made == 8


def test_where_shapes_never_come_back_nothing_is_recorded_and_there_is_a_bound(recording: Replayed):
    assert {recording(Batch(torch.ones(n)), 0.1) for n in range(50)} == {"worked"}
    for n in range(100, 100 + 2 * MOST):
        for _ in range(ORDINARY + 1):
            recording(Batch(torch.ones(n)), 0.1)
    assert Recording.made == MOST


def test_results_are_packed_by_type_and_handed_out_as_copies():
    tensors = [torch.tensor(1.5), torch.tensor([[True, False]]), torch.arange(3), torch.tensor([2.5, 3.5])]
    packed = graphs._Packed(tensors)
    first, second = packed.copies(), packed.copies()
    for copies in (first, second):
        assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(copies, tensors, strict=True))
    first[3].zero_()
    assert torch.equal(second[3], tensors[3])
    assert torch.equal(packed.copies()[3], tensors[3])
