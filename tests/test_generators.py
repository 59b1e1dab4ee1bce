"""Going on with a generator from a state."""

from __future__ import annotations

import torch

from marl_stable.generators import go_on


def test_the_stream_goes_on_where_the_state_was_taken():
    first, second = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    torch.rand(100, generator=first)
    go_on(second, first.get_state())
    assert torch.equal(torch.rand(5, generator=first), torch.rand(5, generator=second))


def test_a_state_of_another_kind_of_device_begins_a_stream_that_follows_from_it():
    """A CUDA generator's state is its seed and an offset, 16 bytes."""
    states = [torch.tensor([*range(15), last], dtype=torch.uint8) for last in (0, 0, 1)]
    drawn = []
    for state in states:
        generator = torch.Generator()
        go_on(generator, state)
        drawn.append(torch.rand(5, generator=generator))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
